"""Images from the data set at the bottom of Avalanche's layers, as they are there."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from cl import ArrayPixels, Seeds
from cl.data.augment import Crop
from cl.data.images import whole
from cl.digests import digest_bytes
from cl.errors import BadInput
from cl.progress import track


@dataclass(frozen=True)
class ImageOrigin:
    """A row of a data set, and the transformations that are part of the benchmark (a permutation, a rotation)."""

    data: Any
    row: int
    frozen: tuple[Any, ...] = ()

    def image(self) -> np.ndarray:
        """uint8 `(height, width, 3)`. Raises BadInput for pixels that were normalised."""
        element = _bare(self.data)[self.row]
        for groups in reversed(self.frozen):
            element = groups(element, group_name="eval")
        return _bytes_of(element[0])


def origin_of(data: Any, row: int) -> ImageOrigin:
    """Where row `row` of an Avalanche data set comes from: its layers are subsets and unions of others."""
    frozen: list[Any] = []
    while True:
        if hasattr(data, "_flat_data"):
            data = data._flat_data
        elif hasattr(data, "_get_idx"):
            groups = getattr(data, "_frozen_transform_groups", None)
            if groups is not None and _changes_images(groups["eval"]):
                frozen.append(groups)
            place, row = data._get_idx(row)
            data = data._datasets[place]
        elif isinstance(data, Subset):
            data, row = data.dataset, int(data.indices[row])
        else:
            return ImageOrigin(data, row, tuple(frozen))


def _changes_images(transform: Any) -> bool:
    """Whether a frozen transformation does anything to images: classic benchmarks freeze those of their labels too."""
    if transform is None or not hasattr(transform, "flat_transforms"):
        return transform is not None
    return any(one is not None for one in transform.flat_transforms(0))


def undisturbed() -> contextlib.AbstractContextManager[None]:
    """torchvision's transformations draw even where there is nothing to choose."""
    return Seeds("avalanche").forked("frozen")


def _bare(data: Any) -> Any:
    """The data set without transformations of its own."""
    own = [name for name in ("transform", "transforms") if getattr(data, name, None) is not None]
    if not own:
        return data
    bare = copy.copy(data)
    for name in own:
        setattr(bare, name, None)
    return bare


def _bytes_of(image: Any) -> np.ndarray:
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    array = np.asarray(image)
    if isinstance(image, Tensor) and array.ndim == 3 and array.shape[0] in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        if low < 0 or high > 1:
            raise BadInput(
                f"images hold values from {low:.3g} to {high:.3g}; give Avalanche the data set without Normalize, "
                f"in [0, 1] or as bytes: the backbone normalises"
            )
        array = np.round(array * 255).astype(np.uint8)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise BadInput(f"an image has the shape {array.shape}; images of one or three channels are needed")
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


class BenchmarkPixels:
    """The images of a benchmark, read when they are asked for."""

    def __init__(self, origins: Mapping[str, ImageOrigin], image_size: int | None) -> None:
        self._origins, self._size = origins, image_size
        self._digests: dict[str, str] = {}

    def digest(self, sample: str) -> str:
        if sample not in self._digests:
            alike = [name for name, one in self._origins.items() if one.frozen == self._origins[sample].frozen]
            with undisturbed():  # costly, hence once for many
                for name in track(alike, "images"):
                    image = self._image(name)
                    self._digests[name] = digest_bytes(f"{image.shape}".encode() + image.tobytes())
        return self._digests[sample]

    def read(self, samples: Sequence[str], crops: Sequence[Crop] | None = None) -> Tensor:
        with undisturbed():
            images = [self._image(sample) for sample in samples]
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            sizes = " and ".join(f"{wide} x {high}" for high, wide, _ in sorted(shapes)[:2])
            raise BadInput(f"images of {sizes} in one stream; bring them to one size with image_size")
        return ArrayPixels(samples, np.stack(images)).read(samples, crops)

    def _image(self, sample: str) -> np.ndarray:
        image = self._origins[sample].image()
        if self._size is None:
            return image
        return np.asarray(whole(Image.fromarray(image), self._size))
