"""Classifier heads. Rows belong to class names, so that a class can come or go without moving another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.seeds import Seeds


def uniform_rows(classes: Sequence[str], dim: int, seeds: Seeds) -> Tensor:
    """One row a class, uniform in +-1/sqrt(dim), float32 `(classes, dim)`; each row seeded by its class name."""
    bound = 1 / math.sqrt(dim)
    rows = [2 * torch.rand(dim, generator=seeds.generator("head", name)) - 1 for name in classes]
    return torch.stack(rows) * bound


def cosine(features: Tensor, rows: Tensor) -> Tensor:
    """Cosine of each feature `(n, d)` with each row `(classes, d)`: `(n, classes)`. A zero vector has cosine 0."""
    return F.normalize(features, dim=-1) @ F.normalize(rows, dim=-1).T
