"""Test-time augmentation of batches of pixels: the pipeline of CoTTA and ViDA, each copy seeded by its sample.

Colour jitter (brightness, contrast, saturation, hue, gamma, in random order), a small affine map with the edge
repeated, a slight blur, a flip, noise. All copies of a batch run as one stack of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.seeds import Seeds

# Wang et al., CVPR 2022, released code: ranges of the colour jitter and of the affine map.
JITTER = {
    "brightness": (0.6, 1.4),
    "contrast": (0.7, 1.3),
    "saturation": (0.5, 1.5),
    "hue": (-0.06, 0.06),
    "gamma": (0.7, 1.3),
}
ANGLE, SCALE = math.radians(15), (0.9, 1.1)
SHIFT = 1 / 8  # of the side: a sixteenth of the padded image, which is twice as wide
SIGMA, NOISE = (0.001, 0.5), 0.005
MARGIN = 2  # pixels that the 5 x 5 blur reads beside the image
DRAWS = 2 * len(JITTER) + 6
GREY = (0.2989, 0.587, 0.114)


@torch.no_grad()
def augmentations(pixels: Tensor, ids: Sequence[str], count: int, seeds: Seeds, shared: str | None = None) -> Tensor:
    """`count` copies of each image: `(count * n, 3, side, side)` in [0, 1], the batch again and again, from `(n, ...)`.

    Every image draws its own parameters, from its id; with `shared` the batch of that key draws one set for all of its
    images, as the released code of ViDA does (the noise is each image's own).
    """
    if shared is None:
        draws = seeds.uniform(ids, (count, DRAWS), "view").transpose(0, 1)  # (count, n, draws)
    else:
        draws = seeds.uniform([shared], (count, DRAWS), "view").transpose(0, 1).expand(-1, len(ids), -1)
    u = draws.reshape(-1, DRAWS).to(pixels.device)  # (count * n, draws)
    x = pixels.clamp(0, 1).repeat(count, 1, 1, 1)  # (count * n, 3, side, side)
    x = _colour_jitter(x, u[:, : 2 * len(JITTER)])
    angle, across, down, zoom, sigma, flip = u[:, 2 * len(JITTER) :].unbind(1)
    x = _affine(x, angle, across, down, zoom)  # (..., side + 2 MARGIN, side + 2 MARGIN)
    x = _blurred(x, _between(SIGMA, sigma))
    x = torch.where((flip < 0.5)[:, None, None, None], x.flip(-1), x)
    noise = [torch.randn(count, *x.shape[1:], generator=seeds.generator("noise", one)) for one in ids]
    x = x + NOISE * torch.stack(noise, 1).flatten(0, 1).to(x.device)
    return x.clamp(0, 1)


def _between(limits: tuple[float, float], u: Tensor) -> Tensor:
    return limits[0] + (limits[1] - limits[0]) * u


def _colour_jitter(x: Tensor, u: Tensor) -> Tensor:
    """All five changes of colour, each image in the order that its draws give."""
    order = u[:, len(JITTER) :].argsort(1)
    for place in range(len(JITTER)):
        for kind, (name, limits) in enumerate(JITTER.items()):
            rows = torch.nonzero(order[:, place] == kind)[:, 0]
            factor = _between(limits, u[rows, kind])[:, None, None, None]
            x = x.index_copy(0, rows, _COLOUR[name](x[rows], factor).clamp(0, 1))
    return x


def _grey(x: Tensor) -> Tensor:
    return (x * x.new_tensor(GREY)[:, None, None]).sum(1, keepdim=True)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    return factor * x + (1 - factor) * _grey(x).mean((1, 2, 3), keepdim=True)


def _hue(x: Tensor, turn: Tensor) -> Tensor:
    """The hue turned by a share of the circle, by way of HSV."""
    value, low = x.max(1, keepdim=True).values, x.min(1, keepdim=True).values
    chroma = value - low
    r, g, b = x.split(1, 1)
    safe = torch.where(chroma > 0, chroma, 1.0)
    sector = torch.where(value == r, (g - b) / safe, torch.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    hue = 6 * ((sector / 6 + turn) % 1)
    k = (x.new_tensor([5.0, 3.0, 1.0])[:, None, None] + hue) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


_COLOUR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": lambda x, factor: factor * x,
    "contrast": _contrast,
    "saturation": lambda x, factor: factor * x + (1 - factor) * _grey(x),
    "hue": _hue,
    "gamma": lambda x, factor: x.clamp(min=1e-8) ** factor,
}


def _affine(x: Tensor, angle: Tensor, across: Tensor, down: Tensor, zoom: Tensor) -> Tensor:
    """Turned, shifted and scaled, bilinear, the edge repeated outside; with a margin for the blur."""
    side = x.shape[-1]
    turn, scale = ANGLE * (2 * angle - 1), _between(SCALE, zoom)
    wide = (side + 2 * MARGIN) / side / scale
    cos, sin = turn.cos() * wide, turn.sin() * wide
    shift = torch.stack([across, down], 1) * 4 * SHIFT - 2 * SHIFT  # in units of half a side
    theta = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    grid = F.affine_grid(
        torch.cat([theta, shift[:, :, None]], 2), [len(x), 3, side + 2 * MARGIN, side + 2 * MARGIN], align_corners=False
    )
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a kernel of 5, first down, then across; the margin is used up."""
    taps = torch.arange(-MARGIN, MARGIN + 1, device=x.device)
    kernel = torch.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    side = x.shape[-1] - 2 * MARGIN
    weight = [kernel[:, tap, None, None, None] for tap in range(len(taps))]
    x = sum((weight[tap] * x[:, :, tap : tap + side] for tap in range(1, len(taps))), weight[0] * x[:, :, :side])
    return sum((weight[tap] * x[..., tap : tap + side] for tap in range(1, len(taps))), weight[0] * x[..., :side])
