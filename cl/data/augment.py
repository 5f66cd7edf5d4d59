"""Training augmentation: the crop of an image in one epoch, drawn by (sample id, epoch) alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from cl.errors import BadInput
from cl.seeds import Seeds

# Szegedy et al., Going Deeper with Convolutions, CVPR 2015: aspect ratios of the training crops.
RATIO = (3 / 4, 4 / 3)
ATTEMPTS = 10

Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True)
class Crop:
    """One random resized crop with a flip. draws: uniform in [0, 1), four an attempt and one for the flip."""

    scale: tuple[float, float]
    draws: tuple[float, ...]

    def of(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """The crop of the original `image`, bilinear, at `size` (width, height)."""
        crop = image.resize(size, Image.Resampling.BILINEAR, box=self.box(*image.size))
        return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.draws[-1] < 0.5 else crop

    def box(self, width: int, height: int) -> Box:
        """A part of the image: its area's share uniform in `scale`, its ratio log-uniform in `RATIO`, its place
        uniform. Where no attempt fits, the largest central part within the ratios."""
        for attempt in range(ATTEMPTS):
            area, ratio, x, y = self.draws[4 * attempt : 4 * attempt + 4]
            pixels = width * height * (self.scale[0] + area * (self.scale[1] - self.scale[0]))
            aspect = RATIO[0] * (RATIO[1] / RATIO[0]) ** ratio
            w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
            if 0 < w <= width and 0 < h <= height:
                left, top = int(x * (width - w + 1)), int(y * (height - h + 1))
                return left, top, left + w, top + h
        w, h = min(width, max(1, round(height * RATIO[1]))), min(height, max(1, round(width / RATIO[0])))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h


def crop_flip(scale: tuple[float, float]) -> str:
    """The name of this augmentation, as a shard's digest holds it."""
    return f"crop-flip {scale[0]!r} {scale[1]!r}"


def crops(augment: str, ids: Sequence[str], epoch: int, seeds: Seeds) -> list[Crop] | None:
    """The crop of each of `ids` in this epoch; None without augmentation. Raises BadInput for an unknown one."""
    if augment == "none":
        return None
    kind, *scale = augment.split()
    if kind != "crop-flip" or len(scale) != 2:
        raise BadInput(f"unknown augmentation '{augment}'; use none or crop-flip")
    drawn = seeds.uniform(ids, (4 * ATTEMPTS + 1,), "augment", epoch).tolist()
    return [Crop((float(scale[0]), float(scale[1])), tuple(row)) for row in drawn]
