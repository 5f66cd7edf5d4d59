"""Classifier heads. Rows belong to class names, so that a class can come or go without moving another."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.seeds import Seeds

Rows = Callable[[Sequence[str], int, Seeds], Tensor]


def uniform_rows(classes: Sequence[str], dim: int, seeds: Seeds) -> Tensor:
    """One row a class, uniform in +-1/sqrt(dim), float32 `(classes, dim)`; each row seeded by its class name."""
    bound = 1 / math.sqrt(dim)
    rows = [2 * torch.rand(dim, generator=seeds.generator("head", name)) - 1 for name in classes]
    return torch.stack(rows) * bound


def normal_rows(classes: Sequence[str], dim: int, seeds: Seeds) -> Tensor:
    """One row a class, normal with standard deviation 0.02, float32 `(classes, dim)`; each row seeded by its class."""
    return torch.stack([0.02 * torch.randn(dim, generator=seeds.generator("head", name)) for name in classes])


def linear_head(
    before: Mapping[str, Tensor] | None, classes: Sequence[str], dim: int, seeds: Seeds, rows: Rows
) -> dict[str, Tensor]:
    """weight `(classes, d)` and bias `(classes,)`: those of `before`, then `rows` of the other classes with bias 0."""
    head = dict(before) if before is not None else {"weight": torch.zeros(0, dim), "bias": torch.zeros(0)}
    new = classes[len(head["weight"]) :]
    if not new:
        return head
    return {
        "weight": torch.cat([head["weight"], rows(new, dim, seeds)]),
        "bias": torch.cat([head["bias"], torch.zeros(len(new))]),
    }


def linear(features: Tensor, head: Mapping[str, Tensor]) -> Tensor:
    """Logits `(n, classes)` of a linear head."""
    return F.linear(features, head["weight"], head["bias"])


def cosine(features: Tensor, rows: Tensor) -> Tensor:
    """Cosine of each feature `(n, d)` with each row `(classes, d)`: `(n, classes)`. A zero vector has cosine 0."""
    return F.normalize(features, dim=-1) @ F.normalize(rows, dim=-1).T


def cosface(cosines: Tensor, targets: Tensor, scale: float, margin: float) -> Tensor:
    """Cross-entropy of scale * (cosine - margin for the own class), mean over rows (Wang et al., CVPR 2018, Eq. 4).

    cosines: `(n, classes)`. targets: int64 `(n,)`. With margin 0 a plain scaled softmax.
    """
    own = F.one_hot(targets, cosines.shape[1]).to(cosines.dtype)
    return F.cross_entropy(scale * (cosines - margin * own), targets)
