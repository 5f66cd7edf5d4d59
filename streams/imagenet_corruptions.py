"""Corruptions with the severities of ImageNet-C, for pictures of 224 pixels, by the package imagecorruptions-imaug.

It draws from numpy's global generator, and glass blur and impulse noise from generators of their own that take a seed.
Its motion blur and snow are not ImageMagick's, and its elastic transform has no affine part and parameters of its own:
what it makes is like ImageNet-C, not equal.
"""

from __future__ import annotations

import threading
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from cl.errors import BadInput
from cl.seeds import Seeds
from streams.corruptions import Generator, parsed

PACKAGE = "imagecorruptions-imaug"
TAKE_SEEDS = ("impulse_noise", "glass_blur")
SMALLEST = 32

_alone = threading.Lock()  # numpy's global generator is one


def imagenet_corrupted(image: np.ndarray, condition: str, picture: str) -> np.ndarray:
    """As `streams.corruptions.corrupted`, with the severities of ImageNet-C, which must be whole. Raises BadInput."""
    package, seeds = _package(), Seeds("imagenet corruptions")
    if min(image.shape[:2]) < SMALLEST:
        raise BadInput(
            f"pictures of {image.shape[1]} x {image.shape[0]} are too small; {PACKAGE} needs {SMALLEST} x {SMALLEST}"
        )
    for corruption, severity in parsed(condition):
        if severity != int(severity):
            raise BadInput(f"severity {severity:g} of {corruption.name}: {PACKAGE} knows whole ones only")
        if not severity:
            continue
        names = corruption.name, picture, int(severity)
        own = {"seed": seeds.integer("own", *names) % 2**31} if corruption.name in TAKE_SEEDS else {}
        with _alone, seeds.forked("global", *names):
            image = package.corrupt(image, severity=int(severity), corruption_name=corruption.name, **own)
    return image


def _package() -> Any:
    """The package. Raises BadInput where it is missing; `imagecorruptions`, of the same import name, is not it."""
    try:
        version(PACKAGE)
        import imagecorruptions
    except (PackageNotFoundError, ImportError) as error:
        raise BadInput(
            f"the severities of ImageNet-C need {PACKAGE} ({error}); pip install 'palimpsest-cl[corruptions]'"
        ) from None
    return imagecorruptions


IMAGENET_C = Generator(imagenet_corrupted, (PACKAGE, "opencv-python", "scikit-image", "numba", "scipy"))
