"""Answers of many low-rank adapters with heads of their own: those that each row picked, or all of them.

All rows of a batch run in one batched call, whichever adapters they picked. Adapters and heads are opened when a row
needs them, so that a library may be larger than the memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from cl import Backbone, Samples, Tensors, builds
from cl.adapters import lowrank
from cl.models.backbone import BATCH, batches, on_device, real_passes
from cl.models.heads import cosine

SHARPNESS = 16.0  # factor of a cosine to a class mean before the softmax
FLOOR = 1e-12  # smallest probability whose logarithm is a score


class ShardLibrary(TypedDict):
    """Adapters and heads by shard, in one order, opened when a row needs them."""

    adapters: Mapping[str, Tensors]
    heads: Mapping[str, Tensors]


@dataclass(frozen=True)
class Answers:
    """Over how many classes the heads answer together, and whether they take normalised features."""

    classes: int
    normalise: bool


@builds("cache")
def mixed_scores(
    samples: Samples,
    routing: Tensors,
    library: ShardLibrary,
    bare: Tensors | None,
    *,
    backbone: Backbone,
    columns: list[list[int]],
    answers: Answers,
    mixing: Literal["outputs", "weights"],
) -> Tensors:
    """log p(c | x), `(n, classes)`.

    routing: see `retrieval.route`; its picks count in the library. columns: where the classes of each head stand, see
    `Classifier`. bare: log p of the backbone alone, mixed in half where a row is far from everything.
    """
    mixture = Mixture(library, Classifier(library["heads"], columns, answers), backbone)
    answer = mixture.by_weights if mixing == "weights" else mixture.by_outputs
    found = []
    for number, (real, images) in enumerate(batches(samples, "scores")):
        rows = torch.arange(BATCH).clamp(max=real - 1) + number * BATCH
        pick, weight = (routing[name][rows].to(backbone.device) for name in ("pick", "weight"))  # (BATCH, t)
        with torch.no_grad(), real_passes(backbone, real):
            found.append(answer(images, pick, weight)[:real].cpu())
    p = torch.cat(found)  # (n, classes)
    if bare is not None:
        p = torch.where(routing["far"][:, None], (p + bare["scores"].exp()) / 2, p)
    return {"scores": p.clamp(min=FLOOR).log()}


class Mixture:
    """p `(BATCH, classes)` of a batch of images by the adapters that each row picked.

    pick, weight: `(BATCH, t)`, which of the library's shards, and in which shares.
    """

    def __init__(self, library: ShardLibrary, classifier: Classifier, backbone: Backbone) -> None:
        self._adapters, self._shards = library["adapters"], list(library["adapters"])
        self._classifier, self._backbone = classifier, backbone

    def by_weights(self, images: Tensor, pick: Tensor, weight: Tensor) -> Tensor:
        """All heads on the features under the weighted sum of the adapters' deltas."""
        opened, place = self._open(pick)
        features = self._features(images, opened, place, weight)
        return self._weigh([features] * pick.shape[1], pick, weight)

    def by_outputs(self, images: Tensor, pick: Tensor, weight: Tensor) -> Tensor:
        """Each head on the features under its own adapter."""
        opened, place = self._open(pick)
        alone = torch.ones_like(weight[:, :1])
        features = [self._features(images, opened, place[:, slot, None], alone) for slot in range(pick.shape[1])]
        return self._weigh(features, pick, weight)

    def _open(self, pick: Tensor) -> tuple[list[Tensors], Tensor]:
        """The adapters that any row picked, and which of these each pick is `(BATCH, t)`."""
        used, place = torch.unique(pick, return_inverse=True)
        return [on_device(self._adapters[self._shards[one]], self._backbone) for one in used.tolist()], place

    def _features(self, images: Tensor, opened: Sequence[Tensors], place: Tensor, weight: Tensor) -> Tensor:
        """Features `(BATCH, d)` of each row under the weighted sum of its own adapters."""
        return self._backbone.changed(images, lowrank.layers(opened[0]), lowrank.mixed(opened, place, weight))

    def _weigh(self, features: Sequence[Tensor], pick: Tensor, weight: Tensor) -> Tensor:
        """The heads' answers, one of the features for each pick, in the shares of their weights."""
        p = [weight[:, slot, None] * self._classifier(one, pick[:, slot]) for slot, one in enumerate(features)]
        return torch.stack(p).sum(0)  # (t, BATCH, classes) -> (BATCH, classes)


class Classifier:
    """The heads of many shards, each over its own classes: a row's probabilities over all classes.

    columns: of each head, in their order, where its classes stand among all; filled up with `classes` to one width for
    all, as a row's bits must not depend on its neighbours.
    """

    def __init__(self, heads: Mapping[str, Tensors], columns: Sequence[Sequence[int]], answers: Answers) -> None:
        self._heads, self._shards, self._columns = heads, list(heads), torch.tensor(columns)
        self._total, self._normalise = answers.classes, answers.normalise

    def __call__(self, features: Tensor, pick: Tensor) -> Tensor:
        """p `(n, classes)` of the features `(n, d)`, each under the head `pick` `(n,)`."""
        used, place = torch.unique(pick, return_inverse=True)
        loaded = [self._head(number) for number in used.tolist()]
        # weight (n, width, d), bias (n, width)
        weight, bias = (torch.stack(parts).to(features.device)[place] for parts in zip(*loaded, strict=True))
        column = self._columns[pick.cpu()].to(features.device)
        rows = F.normalize(features, dim=-1) if self._normalise else features
        p = torch.softmax(torch.bmm(weight, rows[:, :, None])[:, :, 0] + bias, 1)  # (n, width)
        every = p.new_zeros(len(p), self._total + 1)  # the last column takes what pads the narrower heads
        return every.scatter_add_(1, column, p)[:, :-1]

    def _head(self, number: int) -> tuple[Tensor, Tensor]:
        head = self._heads[self._shards[number]]
        missing = self._columns.shape[1] - len(head["bias"])
        return F.pad(head["weight"], (0, 0, 0, missing)), F.pad(head["bias"], (0, missing), value=-torch.inf)


@builds("cache")
def class_totals(sums: Mapping[str, Tensors], *, backbone: Backbone, columns: list[list[int]], classes: int) -> Tensors:
    """The sums `(classes, d)` of each class over all shards. columns: see `Classifier`."""
    total = torch.zeros(classes, backbone.dim, dtype=torch.int64)
    for own, one in zip(columns, sums.values(), strict=True):
        total.index_add_(0, torch.tensor(own[: len(one["sum"])]), one["sum"])
    return {"sum": total}


@builds("cache")
def bare_scores(features: Tensors, sums: Tensors) -> Tensors:
    """log p `(n, classes)` of the backbone alone: a softmax over cosines to the class means of all shards together."""
    return {"scores": torch.log_softmax(SHARPNESS * cosine(features["features"], sums["sum"].float()), 1)}


@builds("cache")
def uniform_scores(
    samples: Samples, library: ShardLibrary, *, backbone: Backbone, columns: list[list[int]], answers: Answers
) -> Tensors:
    """log p `(n, classes)` under the mean of all adapters' deltas, the mean of all heads."""
    opened = list(library["adapters"].values())
    merged = on_device(lowrank.concat(opened, [1 / len(opened)] * len(opened)), backbone)
    classifier = Classifier(library["heads"], columns, answers)
    found = []
    for real, images in batches(samples, "uniform"):
        with torch.no_grad(), real_passes(backbone, real):
            features = backbone.changed(images, lowrank.layers(merged), lowrank.change(merged))
            every = [classifier(features, torch.full((BATCH,), number)) for number in range(len(opened))]
        # (shards, BATCH, classes) -> (BATCH, classes)
        found.append(torch.stack(every).mean(0)[:real].cpu())
    return {"scores": torch.cat(found).clamp(min=FLOOR).log()}
