"""Class means in a feature space."""

from __future__ import annotations

import torch

from cl.components.builder import builds
from cl.data.samples import Samples
from cl.home.store import Tensors


@builds("prototype")
def class_means(samples: Samples, features: Tensors, *, classes: list[str]) -> Tensors:
    """Raw mean of each class's features, summed in float64: mean `(classes, d)` float32."""
    targets = samples.targets(classes)
    rows = features["features"].double()
    sums = torch.zeros(len(classes), rows.shape[1], dtype=torch.float64).index_add_(0, targets, rows)
    counts = torch.bincount(targets, minlength=len(classes))
    return {"mean": (sums / counts[:, None]).float()}
