"""Answers of many low-rank adapters with heads of their own: those that each row picked, or all of them.

All rows of a batch run in one batched call, whichever adapters they picked. Adapters and heads are opened when a row
needs them, so that a library may be larger than the memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.adapters import lowrank
from cl.components.builder import builds
from cl.data.samples import Samples
from cl.home.store import Tensors
from cl.models.backbone import BATCH, Backbone, batches, on_device, real_passes
from cl.models.heads import cosine

SHARPNESS = 16.0  # factor of a cosine to a class mean before the softmax
FLOOR = 1e-12  # smallest probability whose logarithm is a score


@builds("cache")
def mixed_scores(
    samples: Samples,
    routing: Tensors,
    adapters: Mapping[str, Tensors],
    heads: Mapping[str, Tensors],
    bare: Tensors | None,
    *,
    backbone: Backbone,
    columns: list[list[int]],
    classes: int,
    mixing: str,
    normalise: bool,
) -> Tensors:
    """log p(c | x), `(n, classes)`.

    routing: see `retrieval.route`; its picks count in `adapters` and `heads`, which are opened when a row
    needs them. columns: where the classes of each head stand, see `Classifier`. bare: log p of the backbone alone,
    mixed in half where a row is far from everything. normalise: heads take normalised features.
    """
    shards, classifier = list(adapters), Classifier(heads, columns, classes, normalise)
    found = []
    for number, (real, images) in enumerate(batches(samples, "scores")):
        rows = torch.arange(BATCH).clamp(max=real - 1) + number * BATCH
        pick, weight = (routing[name][rows].to(backbone.device) for name in ("pick", "weight"))
        with torch.no_grad(), real_passes(backbone, real):
            found.append(_mixed(backbone, images, adapters, shards, pick, weight, classifier, mixing)[:real].cpu())
    p = torch.cat(found)
    if bare is not None:
        p = torch.where(routing["far"][:, None], (p + bare["scores"].exp()) / 2, p)
    return {"scores": p.clamp(min=FLOOR).log()}


def _mixed(
    backbone: Backbone,
    images: Tensor,
    adapters: Mapping[str, Tensors],
    shards: Sequence[str],
    pick: Tensor,
    weight: Tensor,
    classifier: Classifier,
    mixing: str,
) -> Tensor:
    """p `(BATCH, classes)` of one batch; pick and weight `(BATCH, t)`."""
    used, place = torch.unique(pick, return_inverse=True)
    opened = [on_device(adapters[shards[number]], backbone) for number in used.tolist()]
    names = lowrank.layers(opened[0])
    slots = range(pick.shape[1])
    if mixing == "weights":
        merged = backbone.changed(images, names, lowrank.mixed(opened, place, weight))
        features = [merged for _ in slots]
    else:
        alone = torch.ones_like(weight[:, :1])
        features = [
            backbone.changed(images, names, lowrank.mixed(opened, place[:, slot, None], alone)) for slot in slots
        ]
    found = [weight[:, slot, None] * classifier(features[slot], pick[:, slot]) for slot in slots]
    return torch.stack(found).sum(0)


class Classifier:
    """The heads of many shards, each over its own classes: a row's probabilities over all classes.

    columns: of each head, in their order, where its classes stand among all; filled up with `classes` to one width for
    all, as a row's bits must not depend on its neighbours.
    """

    def __init__(
        self, heads: Mapping[str, Tensors], columns: Sequence[Sequence[int]], classes: int, normalise: bool
    ) -> None:
        self._heads, self._shards, self._columns = heads, list(heads), torch.tensor(columns)
        self._total, self._normalise = classes, normalise

    def __call__(self, features: Tensor, pick: Tensor) -> Tensor:
        """p `(n, classes)` of the features `(n, d)`, each under the head `pick` `(n,)`."""
        used, place = torch.unique(pick, return_inverse=True)
        loaded = [self._padded(number) for number in used.tolist()]
        weight, bias = (torch.stack(parts).to(features.device)[place] for parts in zip(*loaded, strict=True))
        column = self._columns[pick.cpu()].to(features.device)
        rows = F.normalize(features, dim=-1) if self._normalise else features
        p = torch.softmax(torch.bmm(weight, rows[:, :, None])[:, :, 0] + bias, 1)  # (n, width)
        every = p.new_zeros(len(p), self._total + 1)  # the last column takes what pads the narrower heads
        return every.scatter_add_(1, column, p)[:, :-1]

    def _padded(self, number: int) -> tuple[Tensor, Tensor]:
        head = self._heads[self._shards[number]]
        missing = self._columns.shape[1] - len(head["bias"])
        return F.pad(head["weight"], (0, 0, 0, missing)), F.pad(head["bias"], (0, missing), value=-torch.inf)


@builds("cache")
def pooled(sums: Mapping[str, Tensors], *, backbone: Backbone, columns: list[list[int]], classes: int) -> Tensors:
    """The sums `(classes, d)` of each class over all shards. columns: see `Classifier`."""
    found = torch.zeros(classes, backbone.dim, dtype=torch.int64)
    for own, one in zip(columns, sums.values(), strict=True):
        found.index_add_(0, torch.tensor(own[: len(one["sum"])]), one["sum"])
    return {"sum": found}


@builds("cache")
def bare_scores(features: Tensors, sums: Tensors) -> Tensors:
    """log p `(n, classes)` of the backbone alone: a softmax over cosines to the class means of all shards together."""
    return {"scores": torch.log_softmax(SHARPNESS * cosine(features["features"], sums["sum"].float()), 1)}


@builds("cache")
def uniform_scores(
    samples: Samples,
    adapters: Mapping[str, Tensors],
    heads: Mapping[str, Tensors],
    *,
    backbone: Backbone,
    columns: list[list[int]],
    classes: int,
    normalise: bool,
) -> Tensors:
    """log p `(n, classes)` under the mean of all adapters' deltas, the mean of all heads."""
    opened = list(adapters.values())
    merged = on_device(lowrank.concat(opened, [1 / len(opened)] * len(opened)), backbone)
    classifier = Classifier(heads, columns, classes, normalise)
    found = []
    for real, images in batches(samples, "uniform"):
        with torch.no_grad(), real_passes(backbone, real):
            features = backbone.changed(images, lowrank.layers(merged), lowrank.change(merged))
            every = [classifier(features, torch.full((BATCH,), number)) for number in range(len(opened))]
        found.append(torch.stack(every).mean(0)[:real].cpu())
    return {"scores": torch.cat(found).clamp(min=FLOOR).log()}
