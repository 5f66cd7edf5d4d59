"""Class Gaussians in a feature space: fitted once, drawn from to train a classifier without images.

The ridge on the diagonal is fixed, so that a class of one image, or of equal images, has a covariance too. Factors are
found once, in float64: with fewer images than dimensions a covariance is singular but for the ridge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.components.builder import builds
from cl.components.checkpoint import Checkpoint
from cl.data.samples import Samples
from cl.errors import NonFinite
from cl.home.store import Tensors
from cl.learning.train import Optimisation, descend
from cl.seeds import Seeds

Draws = tuple[Tensor, Tensor]  # vectors (n, d), class rows (n,)


def lone_class_warning(task: str, samples: Samples, ridge: float) -> str | None:
    """A line about a class of one image, of which a Gaussian knows the mean alone; None where there is none."""
    alone = sorted(name for name, count in Counter(samples.labels).items() if count == 1)
    return f"class '{alone[0]}' of task '{task}' has one image; its Gaussian is {ridge} x identity" if alone else None


@builds("statistics")
def class_spread(
    samples: Samples,
    features: Tensors,
    *,
    classes: list[str],
    ridge: float,
    kind: Literal["covariance", "variance", "pooled"],
) -> Tensors:
    """The spread of each class's features: divisor n-1, plus `ridge` on the diagonal; zero before it where n = 1.

    covariance: Cholesky factors, their lower triangles row by row, `factor` `(classes, d(d+1)/2)`. variance: only the
    diagonal, as `deviation` `(classes, d)`. pooled: as covariance, every class with the covariance within classes.
    Raises NonFinite, naming sample and class, for a feature that is NaN or infinite.
    """
    rows, targets = features["features"].double(), samples.targets(classes)
    _check_finite(samples, rows)
    groups = [rows[targets == row] - rows[targets == row].mean(0) for row in range(len(classes))]  # (images, d) each
    if kind == "variance":
        variances = [group.square().sum(0) / max(1, len(group) - 1) for group in groups]
        return {"deviation": (torch.stack(variances) + ridge).sqrt().float()}
    if kind == "pooled":
        groups = [torch.cat(groups)] * len(classes)
    lost = len(classes) if kind == "pooled" else 1
    covariances = torch.stack([group.T @ group / max(1, len(group) - lost) for group in groups])  # (classes, d, d)
    factors = torch.linalg.cholesky(covariances + ridge * torch.eye(rows.shape[1], dtype=torch.float64))
    below, across = _triangle(rows.shape[1])
    return {"factor": factors[:, below, across].float()}


class Gaussians:
    """One Gaussian a class, ready to draw from.

    names: of the classes, in order. means: `(classes, d)`. spreads: of `class_spread`, one a group of classes, joined
    in the same order.
    """

    def __init__(self, names: Sequence[str], means: Tensor, spreads: Sequence[Tensors], device: str = "cpu") -> None:
        self.names, self.means = list(names), means.to(device)
        self.dim = means.shape[1]
        self._spreads = [spread.to(device) for group in spreads for spread in _unpacked(group, self.dim)]

    def of_class(self, row: int, count: int, seeds: Seeds, *names: object) -> tuple[Tensor, Tensor]:
        """`count` draws of one class, and a key in [0, 1) for each to shuffle by.

        They depend on the seeds, the class's name, `names` and its own Gaussian alone.
        """
        generator = seeds.generator("draws", self.names[row], *names)
        z = torch.randn(count, self.dim, generator=generator).to(self.means.device)  # (count, d)
        keys = torch.rand(count, generator=generator)
        spread = self._spreads[row]
        offsets = z @ spread.T if spread.ndim == 2 else z * spread
        return self.means[row] + offsets, keys

    def draw(self, count: int, seeds: Seeds, *names: object) -> Draws:
        """`count` draws of every class, shuffled: vectors `(classes * count, d)` and class rows, int64."""
        drawn = [self.of_class(row, count, seeds, *names) for row in range(len(self.names))]
        order = torch.cat([keys for _, keys in drawn]).argsort(stable=True).to(self.means.device)
        vectors = torch.cat([vectors for vectors, _ in drawn])
        return vectors[order], order // count


def align(
    head: Tensors,
    logits: Callable[[Tensors, Tensor], Tensor],
    gaussians: Gaussians,
    how: Optimisation,
    seeds: Seeds,
    checkpoint: Checkpoint,
) -> Tensors:
    """The head after cross-entropy on fresh draws, a batch of them for each class and epoch, shuffled into steps."""

    def batches(epoch: int) -> Iterator[Draws]:
        vectors, targets = gaussians.draw(how.batch_size, seeds, epoch)
        return zip(vectors.split(how.batch_size), targets.split(how.batch_size), strict=True)

    def loss(live: Tensors, drawn: Draws) -> Tensor:
        return F.cross_entropy(logits(live, drawn[0]), drawn[1])

    start = {name: value.to(gaussians.means.device) for name, value in head.items()}
    return descend(start, loss, batches, how, checkpoint)


def covariance(spread: Mapping[str, Tensor], dim: int) -> Tensor:
    """The covariance of each class, `(classes, d, d)`, float64."""
    unpacked = [one.double() for one in _unpacked(spread, dim)]
    return torch.stack([one @ one.T if one.ndim == 2 else one.square().diag() for one in unpacked])


def _unpacked(spread: Mapping[str, Tensor], dim: int) -> Iterator[Tensor]:
    """Of each class, its lower Cholesky factor `(d, d)` or its standard deviations `(d,)`."""
    if "deviation" in spread:
        yield from spread["deviation"]
        return
    below, across = _triangle(dim)
    for packed in spread["factor"]:
        factor = packed.new_zeros(dim, dim)
        factor[below, across] = packed
        yield factor


def _triangle(dim: int) -> tuple[Tensor, Tensor]:
    below, across = torch.tril_indices(dim, dim)
    return below, across


def _check_finite(samples: Samples, rows: Tensor) -> None:
    wrong = torch.nonzero(~torch.isfinite(rows).all(1))
    if len(wrong):
        row = int(wrong[0])
        raise NonFinite(f"the feature of sample '{samples.ids[row]}' of class '{samples.labels[row]}' is not finite")
