"""Common corruptions of pictures (Hendrycks, Dietterich, ICLR 2019, arXiv 1903.12261), as functions of any severity.

Each takes a picture x, float64 `(height, width, 3)` in [0, 1], a generator and its parameters, and returns a picture of
the same shape; what leaves [0, 1] is clipped by the caller. Written for pictures of about 32 pixels. What the published
generators take from elsewhere is made here from noise (frost) or replaced by arithmetic (motion blur, spatter's edges):
visibly alike, not equal.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy import ndimage

from cl.seeds import Seeds

Floats = NDArray[np.float64]

GREY = np.array([0.299, 0.587, 0.114])  # luma weights of ITU-R BT.601
BYTE = 255.0

# Noise.


def gaussian_noise(x: Floats, draw: Generator, std: float) -> Floats:
    return x + draw.normal(0.0, std, x.shape)


def shot_noise(x: Floats, draw: Generator, quantum: float) -> Floats:
    """Photons of brightness `quantum` each, Poisson in number."""
    photons = draw.poisson(x / quantum).astype(np.float64)
    return photons * quantum


def impulse_noise(x: Floats, draw: Generator, amount: float) -> Floats:
    """A share `amount` of all channel values becomes black or white."""
    chance = draw.random(x.shape)
    return np.where(chance < amount / 2, 0.0, np.where(chance > 1 - amount / 2, 1.0, x))


def speckle_noise(x: Floats, draw: Generator, std: float) -> Floats:
    return x + x * draw.normal(0.0, std, x.shape)


# Blur.


def gaussian_blur(x: Floats, draw: Generator, sigma: float) -> Floats:
    return _blurred(x, sigma)


def defocus_blur(x: Floats, draw: Generator, radius: float, antialias: float) -> Floats:
    """Mean over a disk, whose edge a Gaussian of three taps softens."""
    reach = int(radius) + 1
    away = np.arange(-reach, reach + 1)
    disk = (away[:, None] ** 2 + away**2 <= radius**2).astype(float)
    taps = np.exp(-0.5 * (np.array([1.0, 0.0, 1.0]) / antialias) ** 2)
    soft = ndimage.correlate(disk / disk.sum(), np.outer(taps, taps) / taps.sum() ** 2, mode="constant")
    blurred: Floats = ndimage.correlate(x, soft[:, :, None], mode="mirror")
    return blurred


def glass_blur(x: Floats, draw: Generator, sigma: float, reach: float, iterations: float) -> Floats:
    """Pixels take the place of near ones, between two blurs.

    The published generator means to swap two pixels, but its rows are views, so that the second is copied over the
    first and stays. Kept, as it decides how strong the corruption is.
    """
    height, width, _ = x.shape
    most, times = round(reach), round(iterations)
    source = list(range(height * width))
    if most:
        rows, columns = range(height - most, most, -1), range(width - most, most, -1)
        moves = draw.integers(-most, most, (times, len(rows), len(columns), 2)).tolist()
        for turn in moves:
            for row, along in zip(rows, turn, strict=True):
                for column, (across, down) in zip(columns, along, strict=True):
                    source[row * width + column] = source[(row + down) * width + column + across]
    before = np.floor(_blurred(x, sigma) * BYTE) / BYTE
    return _blurred(before.reshape(-1, 3)[source].reshape(x.shape), sigma)


def motion_blur(x: Floats, draw: Generator, radius: float, sigma: float) -> Floats:
    return _dragged(x, radius, sigma, draw.uniform(-45, 45))


def zoom_blur(x: Floats, draw: Generator, largest: float, step: float) -> Floats:
    """Mean of the picture and of enlargements of its centre by 1, 1 + step, ... up to `largest`."""
    height, width, channels = x.shape
    factors = np.arange(1, largest, step).tolist()
    rows, columns = (np.stack([_enlarging(size, factor) for factor in factors]) for size in (height, width))
    taller: Floats = (rows @ x.reshape(height, -1)).reshape(-1, height, width, channels)
    total: Floats = (columns[:, None] @ taller).sum(0)
    return (x + total) / (len(factors) + 1)


# Weather.


class Snowfall(NamedTuple):
    """The parameters of snow: a field of noise (mean, std), enlarged by `zoom`, flakes above `threshold` in it, the
    wind that drags them (radius, sigma), and the share `mix` of the picture that is not whitened."""

    mean: float
    std: float
    zoom: float
    threshold: float
    radius: float
    sigma: float
    mix: float


def snow(x: Floats, draw: Generator, *parameters: float) -> Floats:
    """Flakes: what exceeds a threshold in an enlarged field of noise, dragged by the wind, over a whitened picture.

    parameters: those of `Snowfall`.
    """
    fall = Snowfall(*parameters)
    field = draw.normal(fall.mean, fall.std, x.shape[:2])
    field = _enlarging(x.shape[0], fall.zoom) @ field @ _enlarging(x.shape[1], fall.zoom).T
    flakes = np.clip(np.where(field < fall.threshold, 0.0, field), 0.0, 1.0)
    flakes = _dragged(flakes[:, :, None], fall.radius, fall.sigma, draw.uniform(-135, -45))
    whitened: Floats = np.maximum(x, (x @ GREY)[:, :, None] * 1.5 + 0.5)
    return fall.mix * x + (1 - fall.mix) * whitened + flakes + flakes[::-1, ::-1]


def frost(x: Floats, draw: Generator, weight: float, ice: float) -> Floats:
    """The picture behind a random piece of one of five sheets of ice."""
    height, width, _ = x.shape
    sheet = _ice(int(draw.integers(5)), 6 * max(height, width))
    top, left = draw.integers(len(sheet) - height), draw.integers(len(sheet) - width)
    return weight * x + ice * sheet[top : top + height, left : left + width]


def fog(x: Floats, draw: Generator, amount: float, decay: float) -> Floats:
    """x <- (x + amount P) m / (m + amount), P a plasma fractal and m the brightest value."""
    height, width, _ = x.shape
    size = 1 << (max(height, width) - 1).bit_length()
    brightest = float(x.max())
    thick: Floats = x + amount * _plasma(size, decay, draw)[:height, :width, None]
    return thick * brightest / (brightest + amount)


def brightness(x: Floats, draw: Generator, more: float) -> Floats:
    """`more` added to V of HSV: with hue and saturation kept, all channels grow in proportion."""
    value: Floats = x.max(2, keepdims=True)
    brighter: Floats = np.clip(value + more, 0.0, 1.0)
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1.0), brighter)


# Digital.


def contrast(x: Floats, draw: Generator, factor: float) -> Floats:
    mean: Floats = x.mean((0, 1), keepdims=True)
    return (x - mean) * factor + mean


def saturate(x: Floats, draw: Generator, factor: float, more: float) -> Floats:
    """S of HSV times `factor`, plus `more`: what each channel lacks to V grows in proportion; grey has red's hue."""
    value: Floats = x.max(2, keepdims=True)
    lack: Floats = value - x.min(2, keepdims=True)
    coloured = lack > 0
    saturation = np.where(coloured, lack / np.where(value > 0, value, 1.0), 0.0)
    wanted = np.clip(saturation * factor + more, 0.0, 1.0)
    share: Floats = np.where(coloured, (value - x) / np.where(coloured, lack, 1.0), np.array([0.0, 1.0, 1.0]))
    return value * (1 - wanted * share)


def elastic_transform(x: Floats, draw: Generator, alpha: float, sigma: float, jitter: float) -> Floats:
    """Three points moved by up to `jitter` pixels (affine), then every pixel by a smooth field of noise."""
    height, width, _ = x.shape
    centre, third = np.array([height // 2, width // 2]), min(height, width) // 3
    points = centre + third * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + draw.uniform(-jitter, jitter, points.shape)
    back, *_ = np.linalg.lstsq(np.hstack([moved, np.ones((3, 1))]), points, rcond=None)  # (3, 2): moved -> points
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)
    x = _sampled(x, grid @ back[:2] + back[2], "mirror")
    field = draw.uniform(-1, 1, (height, width, 2))
    if alpha and sigma:
        field = ndimage.gaussian_filter(field, (sigma, sigma, 0), mode="reflect", truncate=3)
    return _sampled(x, grid + alpha * field, "reflect")


def pixelate(x: Floats, draw: Generator, factor: float) -> Floats:
    height, width, _ = x.shape
    small = _picture(x).resize((int(width * factor), int(height * factor)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BOX)) / BYTE


def jpeg_compression(x: Floats, draw: Generator, quality: float) -> Floats:
    file = io.BytesIO()
    _picture(x).save(file, "JPEG", quality=round(quality))
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")) / BYTE


def spatter(
    x: Floats,
    draw: Generator,
    mean: float,
    std: float,
    blur: float,
    threshold: float,
    strength: float,
    mud: float,
) -> Floats:
    """Drops, what exceeds a threshold in a blurred field of noise: of water, lit from one side, or of mud."""
    field = _blurred(draw.normal(mean, std, x.shape[:2])[:, :, None], blur)[:, :, 0]
    if mud < 0.5:
        return x + strength * _drops(np.where(field < threshold, 0.0, field))[:, :, None] * TURQUOISE
    cover = _blurred((field > threshold).astype(float)[:, :, None], strength)
    cover[cover < 0.8] = 0
    return np.clip(x * (1 - cover) + cover * BROWN, 0.0, 1.0)


TURQUOISE = np.array([175, 238, 238]) / BYTE
BROWN = np.array([63, 42, 20]) / BYTE
EMBOSS = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])


def _drops(liquid: Floats) -> Floats:
    """How much light drops add, at most 1: the distance to their outline, equalised and embossed, times the liquid."""
    inside = liquid > 0
    outline = inside & ~ndimage.binary_erosion(inside)
    away = np.minimum(ndimage.distance_transform_edt(~outline), 20) if outline.any() else np.full(liquid.shape, 20.0)
    even = ImageOps.equalize(Image.fromarray(ndimage.uniform_filter(away, 3).astype(np.uint8)))
    lit = np.clip(ndimage.correlate(np.asarray(even).astype(float), EMBOSS, mode="mirror"), 0, BYTE)
    light: Floats = np.clip(liquid, 0, 1) * ndimage.uniform_filter(lit, 3)
    return light / light.max() if light.max() > 0 else light


# What several of them share.


def _picture(x: Floats) -> Image.Image:
    return Image.fromarray(np.rint(x * BYTE).astype(np.uint8))


def _blurred(x: Floats, sigma: float) -> Floats:
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest") if sigma > 0 else x


def _dragged(x: Floats, radius: float, sigma: float, degrees: float) -> Floats:
    """Blurred one way along a line: pixels at distance 0, 1, ... weigh exp(-distance^2 / 2 sigma^2)."""
    length = 2 * int(np.ceil(radius)) + 1
    weights = np.exp(-0.5 * (np.arange(length) / sigma) ** 2)
    weights /= weights.sum()
    turned = np.deg2rad(degrees)
    padded = np.pad(x, ((length, length), (length, length), (0, 0)), mode="edge")
    total = np.zeros_like(x)
    for distance, weight in enumerate(weights):
        top, left = length + round(distance * np.sin(turned)), length + round(distance * np.cos(turned))
        total += weight * padded[top : top + x.shape[0], left : left + x.shape[1]]
    return total


@lru_cache(1024)
def _enlarging(size: int, factor: float) -> Floats:
    """The matrix `(size, size)` that enlarges the middle of a column by `factor`, linearly between pixels."""
    kept = int(np.ceil(size / factor))
    top = (size - kept) // 2
    larger: Floats = ndimage.zoom(np.eye(size)[top : top + kept], (factor, 1), order=1)
    surplus = (len(larger) - size) // 2
    return larger[surplus : surplus + size]


def _sampled(x: Floats, places: Floats, mode: str) -> Floats:
    """x at `places` `(height, width, 2)`, linearly between pixels."""
    at = np.moveaxis(places, -1, 0)
    return np.stack([ndimage.map_coordinates(x[:, :, c], at, order=1, mode=mode) for c in range(x.shape[2])], -1)


def _plasma(size: int, decay: float, draw: Generator) -> Floats:
    """Diamond-square fractal on a torus, `(size, size)` in [0, 1]: each halving adds noise weaker by decay^2."""
    field = np.zeros((size, size))
    step, wobble = size, 1.0
    while step >= 2:
        half = step // 2
        corners = field[::step, ::step]
        pairs = corners + np.roll(corners, -1, 0)
        noise = draw.uniform(-wobble, wobble, (3, *corners.shape))
        field[half::step, half::step] = (pairs + np.roll(pairs, -1, 1)) / 4 + noise[0]
        middles = field[half::step, half::step]
        across = middles + np.roll(middles, 1, 0) + corners + np.roll(corners, -1, 1)
        down = middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 0)
        field[::step, half::step] = across / 4 + noise[1]
        field[half::step, ::step] = down / 4 + noise[2]
        step, wobble = half, wobble / decay**2
    field -= field.min()
    highest = float(field.max())
    return field / highest


@lru_cache(8)
def _ice(sheet: int, size: int) -> Floats:
    """Sheet number `sheet` of pale blue ice, `(size, size, 3)`: bright needles where slow noise crosses zero."""
    draw = np.random.default_rng(Seeds("frost").integer("sheet", sheet))
    needles = np.zeros((size, size))
    for width in (2.0, 4.0, 8.0):
        noise = ndimage.gaussian_filter(draw.normal(size=(size, size)), (width, width / 3), mode="wrap")
        noise = ndimage.rotate(np.tile(noise, (2, 2)), draw.uniform(0, 180), reshape=False, mode="wrap", order=1)
        middle = noise[size // 2 : size // 2 + size, size // 2 : size // 2 + size]
        needles += np.exp(-np.abs(middle) / (0.35 * middle.std())) / 3
    shade = _plasma(1 << (size - 1).bit_length(), 1.6, draw)[:size, :size]
    light: Floats = np.clip(0.25 + 0.75 * needles + 0.35 * (shade - 0.5), 0.0, 1.0)
    sheets: Floats = light[:, :, None] ** np.array([1.15, 1.0, 0.85])
    return sheets
