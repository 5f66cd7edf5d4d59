"""Images that whoever asks a model hands over, in any of the forms that programs have them in."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from cl.data.images import read_image, upright, whole
from cl.errors import BadInput

FORMS = "uint8 arrays ([n, ]height, width[, 3]) or uint8 tensors ([n, ]3, height, width)"
COLOUR = 3
NO_WIDTH = (1, 2, 4)  # a last axis of these is of channels that we do not know, not of pixels


def squares(images: Any, size: int) -> np.ndarray:
    """The largest central square of each image, bicubic, uint8 `(n, size, size, 3)`: the same as of an image file.

    images: a path, a Pillow image, a uint8 array or tensor (see `FORMS`; an array whose last axis is 3 is in colour),
    or a sequence of such. Raises BadInput for anything else.
    """
    found = [np.asarray(whole(image, size)) for image in _each(images)]
    if not found:
        raise BadInput("there is no image to look at; give one or more")
    return np.stack(found)


def _each(images: Any) -> Iterator[Image.Image]:
    if isinstance(images, str | PathLike):
        yield read_image(Path(images))
    elif isinstance(images, Image.Image):
        yield upright(images)
    elif isinstance(images, Tensor):
        yield from map(Image.fromarray, _rows(_channels_last(images)))
    elif isinstance(images, np.ndarray):
        yield from (Image.fromarray(row).convert("RGB") for row in _rows(images))
    elif isinstance(images, list | tuple):
        for image in images:
            yield from _each(image)
    else:
        raise BadInput(f"a {type(images).__name__} is no image; give paths, Pillow images, {FORMS}")


def _channels_last(images: Tensor) -> np.ndarray:
    if images.ndim not in (3, 4) or images.shape[-3] != COLOUR:
        raise BadInput(f"images have shape {tuple(images.shape)}; give {FORMS}")
    values = images.detach().cpu()
    return (values.float() if values.is_floating_point() else values).movedim(-3, -1).numpy()


def _rows(images: np.ndarray) -> np.ndarray:
    """The images one by one, `(n, height, width[, 3])`."""
    axes = images.ndim - (images.ndim > 2 and images.shape[-1] == COLOUR)
    if axes not in (2, 3) or not images.size or (axes == images.ndim and images.shape[-1] in NO_WIDTH):
        raise BadInput(f"images have shape {images.shape}; give {FORMS}")
    if images.dtype != np.uint8:
        holes = " with NaN" if images.dtype.kind == "f" and np.isnan(images).any() else ""
        raise BadInput(f"images must be uint8, from 0 to 255, not {images.dtype}{holes}; convert them first")
    return np.ascontiguousarray(images if axes == 3 else images[None])
