"""SSIAT's stage 2, semantic shift estimation: old class means move as the session's images moved near them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cl import Tensors, builds

NEAREST = 0.05  # share of a session's images that `sigma = auto` looks at for each class


@dataclass(frozen=True)
class Shift:
    """How images are weighted: by nearness (`weighted`), a kernel of width sigma plus a floor, or alike (`mean`)."""

    kind: str
    sigma: float | Literal["auto"]
    floor: float


@builds(mean="prototype", figures="evidence")
def shifted_means(
    old: Tensors,
    new: Tensors,
    before: Tensors,
    after: Tensors,
    *,
    shift: Shift,
) -> dict[str, Tensors]:
    """Means `(classes so far, d)`: old ones moved, then new ones. before, after: E1 and E2, row by row the same image.

    figures, one value an old class: kernel_share (of the weights' sum, what is not the floor), effective_samples
    1/sum w^2, median_distance (squared, of E1 to the mean), gap (its norm).
    """
    e1, e2, mu = before["features"].double(), after["features"].double(), old["mean"].double()
    distances = squared_distances(e1, mu)  # (n, old classes)
    kernel = log_kernel(distances, shift.sigma)
    weights = nearness(kernel, shift.floor) if shift.kind == "weighted" else torch.full_like(kernel, 1 / len(e1))
    gap = weights.T @ (e2 - e1)  # (old classes, d)
    total = kernel.exp().sum(0)
    figures = {
        "kernel_share": total / (total + shift.floor * len(e1)) if shift.floor > 0 else torch.ones_like(total),
        "effective_samples": 1 / weights.square().sum(0),
        "median_distance": distances.median(0).values,
        "gap": gap.norm(dim=1),
    }
    return {"mean": {"mean": torch.cat([(mu + gap).float(), new["mean"]])}, "figures": figures}


def squared_distances(rows: Tensor, means: Tensor) -> Tensor:
    """|row - mean|^2, `(rows, means)`, by one matrix product; never negative."""
    squares = rows.square().sum(1)[:, None] + means.square().sum(1) - 2 * rows @ means.T
    return squares.clamp_min(0)


def log_kernel(distances: Tensor, sigma: float | str) -> Tensor:
    """-d^2 / (2 sigma^2). auto: sigma^2 is the median d^2 of each class's nearest 5 % of images, over all classes."""
    if sigma == "auto":
        nearest = distances.sort(dim=0).values[: max(1, math.ceil(NEAREST * len(distances)))]
        return -distances / (2 * nearest.median().clamp_min(torch.finfo(distances.dtype).tiny))
    return -distances / (2 * float(sigma) ** 2)


def nearness(kernel: Tensor, floor: float) -> Tensor:
    """Weights of the images for each old class, columns of sum 1, from logarithms of the kernel `(n, classes)`.

    Without a floor they are a softmax, so that a class far from every image has no 0/0.
    """
    if floor == 0:
        return kernel.softmax(0)
    weights = kernel.exp() + floor
    return weights / weights.sum(0)


@builds("evidence")
def shift_figures(sessions: list[Tensors], *, places: list[int], total: int) -> Tensors:
    """Means over old classes of each session's figures, `(sessions,)`, NaN where nothing was shifted."""
    curves = {name: torch.full((total,), torch.nan, dtype=torch.float64) for name in sessions[0]}
    for place, session in zip(places, sessions, strict=True):
        for name, values in session.items():
            curves[name][place] = values.mean()
    return curves
