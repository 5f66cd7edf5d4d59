"""Common corruptions of pictures (Hendrycks, Dietterich, ICLR 2019, arXiv 1903.12261), as functions of any severity.

Each takes a picture x, float64 `(height, width, 3)` in [0, 1], a generator and its parameters, and returns a picture of
the same shape; what leaves [0, 1] is clipped by the caller. Written for pictures of about 32 pixels. What the published
generators take from elsewhere is made here from noise (frost) or replaced by arithmetic (motion blur, spatter's edges):
visibly alike, not equal.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageOps
from scipy import ndimage

from cl.seeds import Seeds

GREY = np.array([0.299, 0.587, 0.114])  # luma weights of ITU-R BT.601
BYTE = 255.0

# Noise.


def gaussian_noise(x: np.ndarray, draw: Generator, std: float) -> np.ndarray:
    return x + draw.normal(0.0, std, x.shape)


def shot_noise(x: np.ndarray, draw: Generator, quantum: float) -> np.ndarray:
    """Photons of brightness `quantum` each, Poisson in number."""
    return draw.poisson(x / quantum) * quantum


def impulse_noise(x: np.ndarray, draw: Generator, amount: float) -> np.ndarray:
    """A share `amount` of all channel values becomes black or white."""
    chance = draw.random(x.shape)
    return np.where(chance < amount / 2, 0.0, np.where(chance > 1 - amount / 2, 1.0, x))


def speckle_noise(x: np.ndarray, draw: Generator, std: float) -> np.ndarray:
    return x + x * draw.normal(0.0, std, x.shape)


# Blur.


def gaussian_blur(x: np.ndarray, draw: Generator, sigma: float) -> np.ndarray:
    return _blurred(x, sigma)


def defocus_blur(x: np.ndarray, draw: Generator, radius: float, antialias: float) -> np.ndarray:
    """Mean over a disk, whose edge a Gaussian of three taps softens."""
    reach = int(radius) + 1
    away = np.arange(-reach, reach + 1)
    disk = (away[:, None] ** 2 + away**2 <= radius**2).astype(float)
    taps = np.exp(-0.5 * (np.array([1.0, 0.0, 1.0]) / antialias) ** 2)
    soft = ndimage.correlate(disk / disk.sum(), np.outer(taps, taps) / taps.sum() ** 2, mode="constant")
    return ndimage.correlate(x, soft[:, :, None], mode="mirror")


def glass_blur(x: np.ndarray, draw: Generator, sigma: float, reach: float, iterations: float) -> np.ndarray:
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


def motion_blur(x: np.ndarray, draw: Generator, radius: float, sigma: float) -> np.ndarray:
    return _dragged(x, radius, sigma, draw.uniform(-45, 45))


def zoom_blur(x: np.ndarray, draw: Generator, largest: float, step: float) -> np.ndarray:
    """Mean of the picture and of enlargements of its centre by 1, 1 + step, ... up to `largest`."""
    height, width, channels = x.shape
    factors = np.arange(1, largest, step).tolist()
    rows, columns = (np.stack([_enlarging(size, factor) for factor in factors]) for size in (height, width))
    taller = (rows @ x.reshape(height, -1)).reshape(-1, height, width, channels)
    return (x + (columns[:, None] @ taller).sum(0)) / (len(factors) + 1)


# Weather.


def snow(
    x: np.ndarray,
    draw: Generator,
    mean: float,
    std: float,
    zoom: float,
    threshold: float,
    radius: float,
    sigma: float,
    mix: float,
) -> np.ndarray:
    """Flakes: what exceeds a threshold in an enlarged field of noise, dragged by the wind, over a whitened picture."""
    field = draw.normal(mean, std, x.shape[:2])
    field = _enlarging(x.shape[0], zoom) @ field @ _enlarging(x.shape[1], zoom).T
    flakes = np.clip(np.where(field < threshold, 0.0, field), 0.0, 1.0)
    flakes = _dragged(flakes[:, :, None], radius, sigma, draw.uniform(-135, -45))
    whitened = np.maximum(x, (x @ GREY)[:, :, None] * 1.5 + 0.5)
    return mix * x + (1 - mix) * whitened + flakes + flakes[::-1, ::-1]


def frost(x: np.ndarray, draw: Generator, weight: float, ice: float) -> np.ndarray:
    """The picture behind a random piece of one of five sheets of ice."""
    height, width, _ = x.shape
    sheet = _ice(int(draw.integers(5)), 6 * max(height, width))
    top, left = draw.integers(len(sheet) - height), draw.integers(len(sheet) - width)
    return weight * x + ice * sheet[top : top + height, left : left + width]


def fog(x: np.ndarray, draw: Generator, amount: float, decay: float) -> np.ndarray:
    """x <- (x + amount P) m / (m + amount), P a plasma fractal and m the brightest value."""
    height, width, _ = x.shape
    size = 1 << (max(height, width) - 1).bit_length()
    brightest = x.max()
    thick = x + amount * _plasma(size, decay, draw)[:height, :width, None]
    return thick * brightest / (brightest + amount)


def brightness(x: np.ndarray, draw: Generator, more: float) -> np.ndarray:
    """`more` added to V of HSV: with hue and saturation kept, all channels grow in proportion."""
    value = x.max(2, keepdims=True)
    brighter = np.clip(value + more, 0.0, 1.0)
    return np.where(value > 0, x * brighter / np.where(value > 0, value, 1.0), brighter)


# Digital.


def contrast(x: np.ndarray, draw: Generator, factor: float) -> np.ndarray:
    mean = x.mean((0, 1), keepdims=True)
    return (x - mean) * factor + mean


def saturate(x: np.ndarray, draw: Generator, factor: float, more: float) -> np.ndarray:
    """S of HSV times `factor`, plus `more`: what each channel lacks to V grows in proportion; grey has red's hue."""
    value, lack = x.max(2, keepdims=True), x.max(2, keepdims=True) - x.min(2, keepdims=True)
    coloured = lack > 0
    saturation = np.where(coloured, lack / np.where(value > 0, value, 1.0), 0.0)
    wanted = np.clip(saturation * factor + more, 0.0, 1.0)
    share = np.where(coloured, (value - x) / np.where(coloured, lack, 1.0), np.array([0.0, 1.0, 1.0]))
    return value * (1 - wanted * share)


def elastic_transform(x: np.ndarray, draw: Generator, alpha: float, sigma: float, jitter: float) -> np.ndarray:
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


def pixelate(x: np.ndarray, draw: Generator, factor: float) -> np.ndarray:
    height, width, _ = x.shape
    small = _picture(x).resize((int(width * factor), int(height * factor)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BOX)) / BYTE


def jpeg_compression(x: np.ndarray, draw: Generator, quality: float) -> np.ndarray:
    file = io.BytesIO()
    _picture(x).save(file, "JPEG", quality=round(quality))
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")) / BYTE


def spatter(
    x: np.ndarray,
    draw: Generator,
    mean: float,
    std: float,
    blur: float,
    threshold: float,
    strength: float,
    mud: float,
) -> np.ndarray:
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


def _drops(liquid: np.ndarray) -> np.ndarray:
    """How much light drops add, at most 1: the distance to their outline, equalised and embossed, times the liquid."""
    inside = liquid > 0
    outline = inside & ~ndimage.binary_erosion(inside)
    away = np.minimum(ndimage.distance_transform_edt(~outline), 20) if outline.any() else np.full(liquid.shape, 20.0)
    even = ImageOps.equalize(Image.fromarray(ndimage.uniform_filter(away, 3).astype(np.uint8)))
    lit = np.clip(ndimage.correlate(np.asarray(even).astype(float), EMBOSS, mode="mirror"), 0, BYTE)
    light = np.clip(liquid, 0, 1) * ndimage.uniform_filter(lit, 3)
    return light / light.max() if light.max() > 0 else light


# What several of them share.


def _picture(x: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(x * BYTE).astype(np.uint8))


def _blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, (sigma, sigma, 0), mode="nearest") if sigma > 0 else x


def _dragged(x: np.ndarray, radius: float, sigma: float, degrees: float) -> np.ndarray:
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
def _enlarging(size: int, factor: float) -> np.ndarray:
    """The matrix `(size, size)` that enlarges the middle of a column by `factor`, linearly between pixels."""
    kept = int(np.ceil(size / factor))
    top = (size - kept) // 2
    larger = ndimage.zoom(np.eye(size)[top : top + kept], (factor, 1), order=1)
    surplus = (len(larger) - size) // 2
    return larger[surplus : surplus + size]


def _sampled(x: np.ndarray, places: np.ndarray, mode: str) -> np.ndarray:
    """x at `places` `(height, width, 2)`, linearly between pixels."""
    at = np.moveaxis(places, -1, 0)
    return np.stack([ndimage.map_coordinates(x[:, :, c], at, order=1, mode=mode) for c in range(x.shape[2])], -1)


def _plasma(size: int, decay: float, draw: Generator) -> np.ndarray:
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
    return field / field.max()


@lru_cache(8)
def _ice(sheet: int, size: int) -> np.ndarray:
    """Sheet number `sheet` of pale blue ice, `(size, size, 3)`: bright needles where slow noise crosses zero."""
    draw = np.random.default_rng(Seeds("frost").integer("sheet", sheet))
    needles = np.zeros((size, size))
    for width in (2.0, 4.0, 8.0):
        noise = ndimage.gaussian_filter(draw.normal(size=(size, size)), (width, width / 3), mode="wrap")
        noise = ndimage.rotate(np.tile(noise, (2, 2)), draw.uniform(0, 180), reshape=False, mode="wrap", order=1)
        middle = noise[size // 2 : size // 2 + size, size // 2 : size // 2 + size]
        needles += np.exp(-np.abs(middle) / (0.35 * middle.std())) / 3
    shade = _plasma(1 << (size - 1).bit_length(), 1.6, draw)[:size, :size]
    light = np.clip(0.25 + 0.75 * needles + 0.35 * (shade - 0.5), 0.0, 1.0)
    return light[:, :, None] ** np.array([1.15, 1.0, 0.85])
