"""Corrupted pictures: which corruptions there are, how strong each severity is, and pixels, made when they are read.

A *condition* says what a picture is seen through: `GN/5` is gaussian noise of severity 5, `GN/4.75+SN/0.5` gaussian and
then shot noise. The severities of CIFAR-10-C are for pictures of 32 pixels, those of ImageNet-C for 224; the latter
come from a package (`streams.imagenet_corruptions`). Sets made here are "C-like": only the published files are
CIFAR-10-C or ImageNet-C.
"""

from __future__ import annotations

import platform
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from PIL import features
from torch import Tensor

from cl.code import code_digest
from cl.data.augment import Crop
from cl.data.samples import ArrayPixels, Pixels, marks_of, prepare
from cl.digests import digest_json
from cl.errors import BadInput, UnknownName, shown
from cl.seeds import Seeds
from streams import corruption_functions as make

LEVELS = 5
KEPT_BYTES = 64 << 20  # corrupted pictures kept in memory: 20,000 of 32 pixels


@dataclass(frozen=True)
class Corruption:
    """code, name: how it is called. levels: its parameters at severities 0 to 5; at 0 it does nothing."""

    code: str
    name: str
    function: Callable[..., np.ndarray]
    levels: tuple[tuple[float, ...], ...]

    def parameters(self, severity: float) -> tuple[float, ...]:
        """Those of this severity, linear between whole ones."""
        below = min(int(severity), LEVELS - 1)
        first, second = self.levels[below], self.levels[below + 1]
        share = severity - below
        return tuple(
            one if share == 0 else two if share == 1 else (1 - share) * one + share * two
            for one, two in zip(first, second, strict=True)
        )


def _one(*levels: float) -> tuple[tuple[float, ...], ...]:
    return tuple((level,) for level in levels)


# Parameters of the published generator of CIFAR-10-C, with a level 0 put before them.
CORRUPTIONS = (
    Corruption("GN", "gaussian_noise", make.gaussian_noise, _one(0, 0.04, 0.06, 0.08, 0.09, 0.10)),
    Corruption("SN", "shot_noise", make.shot_noise, _one(0, 1 / 500, 1 / 250, 1 / 100, 1 / 75, 1 / 50)),
    Corruption("IN", "impulse_noise", make.impulse_noise, _one(0, 0.01, 0.02, 0.03, 0.05, 0.07)),
    Corruption(
        "DB", "defocus_blur", make.defocus_blur, ((0, 0.1), (0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
    ),
    Corruption(
        "GB",
        "glass_blur",
        make.glass_blur,
        ((0, 0, 0), (0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    ),
    Corruption("MB", "motion_blur", make.motion_blur, ((0, 0.1), (6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    Corruption(
        "ZB",
        "zoom_blur",
        make.zoom_blur,
        ((1, 0.01), (1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    ),
    Corruption(
        "SW",
        "snow",
        make.snow,
        (
            (0, 0, 1, 0.6, 8, 3, 1),
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    Corruption("FR", "frost", make.frost, ((1, 0), (1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    Corruption("FG", "fog", make.fog, ((0, 3), (0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    Corruption("BR", "brightness", make.brightness, _one(0, 0.05, 0.1, 0.15, 0.2, 0.3)),
    Corruption("CO", "contrast", make.contrast, _one(1, 0.75, 0.5, 0.4, 0.3, 0.15)),
    Corruption(
        "EL",
        "elastic_transform",
        make.elastic_transform,
        tuple(
            (32 * alpha, 32 * sigma, 32 * jitter)
            for alpha, sigma, jitter in (
                (0, 0, 0),
                (0, 0, 0.08),
                (0.05, 0.2, 0.07),
                (0.08, 0.06, 0.06),
                (0.1, 0.04, 0.05),
                (0.1, 0.03, 0.03),
            )
        ),
    ),
    Corruption("PX", "pixelate", make.pixelate, _one(1, 0.95, 0.9, 0.85, 0.75, 0.65)),
    Corruption("JP", "jpeg_compression", make.jpeg_compression, _one(100, 80, 65, 58, 50, 40)),
)
# For choosing learning rates; no reported stream has them.
EXTRA = (
    Corruption("SP", "speckle_noise", make.speckle_noise, _one(0, 0.06, 0.1, 0.12, 0.16, 0.2)),
    Corruption("GU", "gaussian_blur", make.gaussian_blur, _one(0, 0.4, 0.6, 0.7, 0.8, 1)),
    Corruption(
        "ST",
        "spatter",
        make.spatter,
        (
            (0.62, 0.1, 0.7, 0.7, 0, 0),
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
    ),
    Corruption("SA", "saturate", make.saturate, ((1, 0), (0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))),
)
BY_CODE = {one.code: one for one in (*CORRUPTIONS, *EXTRA)}
CODES = tuple(one.code for one in CORRUPTIONS)
CODE_OF = {one.name: one.code for one in BY_CODE.values()}


def code_of(name: str) -> str:
    """The code of a corruption given by code or name. Raises UnknownName with the nearest."""
    code = CODE_OF.get(name, name)
    if code not in BY_CODE:
        raise UnknownName("corruption", name, [*BY_CODE, *CODE_OF])
    return code


def check_severity(severity: float) -> float:
    """Raises BadInput unless it is in 0 to 5."""
    if not 0 <= severity <= LEVELS:
        raise BadInput(f"severity must be 0 to {LEVELS}, not {severity:g}")
    return severity


def spelled(code: str, severity: float) -> str:
    """The condition of one corruption, `GN/5`."""
    return f"{code}/{severity:g}"


def parsed(condition: str) -> list[tuple[Corruption, float]]:
    """The corruptions and severities of a condition, first to last. Raises UnknownName or BadInput."""
    return [_parsed(one) for one in condition.split("+")]


def _parsed(text: str) -> tuple[Corruption, float]:
    name, _, severity = text.partition("/")
    corruption = BY_CODE[code_of(name)]
    try:
        return corruption, check_severity(float(severity))
    except ValueError:
        raise BadInput(f"'{shown(text)}' has no severity; write it as {corruption.name}/5") from None


def corrupted(image: np.ndarray, condition: str, picture: str) -> np.ndarray:
    """The image, uint8 `(height, width, 3)`, under a condition with the severities of CIFAR-10-C.

    Every draw comes from (picture, corruption, severity), `picture` being the image's name. Raises UnknownName or
    BadInput for a condition that cannot be read.
    """
    for corruption, severity in parsed(condition):
        if severity:
            seed = Seeds("corruptions").integer(corruption.name, picture, f"{severity:g}")
            draw = np.random.default_rng(seed)
            seen = corruption.function(image / 255.0, draw, *corruption.parameters(severity))
            image = (np.clip(seen, 0.0, 1.0) * 255).astype(np.uint8)
    return image


@dataclass(frozen=True)
class Generator:
    """What corrupts: a function like `corrupted`, and the packages that its result depends on."""

    corrupt: Callable[[np.ndarray, str, str], np.ndarray]
    packages: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """Identity of its code, of the packages' releases and of the machine's arithmetic."""
        releases = [_release(package) for package in ("numpy", "pillow", *self.packages)]
        return digest_json([code_digest(self.corrupt), releases, features.version("jpg"), platform.machine()])


def _release(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


CIFAR_C = Generator(corrupted, ("scipy",))


def sample_of(picture: str, condition: str, visit: int) -> str:
    """The sample id of a picture on the visit number `visit` of a condition: `cifar10-test/00042|GN/5|r03`."""
    return f"{picture}|{condition}|r{visit:02d}"


class CorruptedPixels:
    """Pictures of `base` under the conditions that their sample ids name, made when they are read; the latest are kept.

    A picture looks the same on every visit of a condition.
    """

    def __init__(self, base: Pixels, generator: Generator = CIFAR_C) -> None:
        self._base, self._generator = base, generator
        self._kept: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()
        self._kept_bytes = 0

    def digest(self, sample: str) -> str:
        """Digest of everything that determines the pixels."""
        picture, condition = _seen(sample)
        return digest_json([self._base.digest(picture), picture, condition, self._generator.digest])

    def marks(self, sample: str) -> tuple[str, ...]:
        """Those of the clean picture, each under the condition."""
        picture, condition = _seen(sample)
        return tuple(digest_json([mark, condition]) for mark in marks_of(self._base, picture))

    def prepare(self, samples: Sequence[str]) -> None:
        prepare(self._base, [_seen(sample)[0] for sample in samples])

    def read(self, samples: Sequence[str], crops: Sequence[Crop] | None = None) -> Tensor:
        places = [_seen(sample) for sample in samples]
        found = {place: self._kept[place] for place in places if place in self._kept}
        missing = [place for place in dict.fromkeys(places) if place not in found]
        if missing:
            clean = self._base.read([picture for picture, _ in missing]).permute(0, 2, 3, 1).numpy()
            for (picture, condition), image in zip(missing, clean, strict=True):
                found[picture, condition] = self._generator.corrupt(image, condition, picture)
        self._keep(found)
        return ArrayPixels(samples, np.stack([found[place] for place in places])).read(samples, crops)

    def _keep(self, found: dict[tuple[str, str], np.ndarray]) -> None:
        for place, image in found.items():
            if place not in self._kept:
                self._kept[place] = image
                self._kept_bytes += image.nbytes
            self._kept.move_to_end(place)
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes


def _seen(sample: str) -> tuple[str, str]:
    """(picture, condition) of a sample id; names of pictures may hold any character."""
    picture, condition, _ = sample.rsplit("|", 2)
    return picture, condition
