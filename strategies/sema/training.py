"""What trains on a task's images: adapters, router columns and head rows, by cross-entropy among the task's classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from cl import Backbone, Checkpoint, Optimisation, Samples, Seeds, Tensors, builds
from cl.adapters import bottleneck as bottleneck_adapter
from cl.adapters import mixture
from cl.adapters.mixture import MixtureReads, Mixtures
from cl.learning.train import Batch, Frozen, fit, fit_parts
from cl.models.backbone import on_device
from cl.models.heads import linear
from strategies.sema.passes import AdapterReads, Passes


@dataclass(frozen=True)
class Objective:
    """Cross-entropy among a task's own classes, and how it is minimised."""

    classes: tuple[str, ...]
    how: Optimisation


@dataclass(frozen=True)
class Addition:
    """An adapter of hidden width `bottleneck` and a router column, in one block."""

    block: int
    bottleneck: int


class Start(TypedDict):
    """Where the training of an addition starts: the head's rows, and the router column; None for a random one."""

    head: Tensors
    column: Tensors | None


@builds(adapter="adapter", columns="router", head="checkpoint")
def train_first(
    samples: Samples,
    head: Tensors,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    start: int,
    bottleneck: int,
    objective: Objective,
) -> dict[str, Tensors]:
    """An adapter in every block, a router column in each one from `start` on, and the head. A softmax over one logit is
    1, so columns only decay."""
    columns = [mixture.column(backbone.dim, seeds.generator("column", at)) for at in range(start, backbone.blocks)]
    parts = {
        "adapter": bottleneck_adapter.init(backbone, bottleneck, seeds.generator("init")),
        "columns": {name: torch.cat([one[name] for one in columns]) for name in columns[0]},
        "head": head,
    }
    targets = samples.targets(objective.classes).to(backbone.device)
    sites = Frozen(samples, backbone, seeds, lambda x: backbone.site(0, x))

    def loss(live: dict[str, Tensors], batch: Batch) -> Tensor:
        reads: MixtureReads = {"adapter": live["adapter"], "columns": live["columns"], "grown": {}}
        h, y = sites(batch)  # (batch, tokens, d) each
        features = backbone.finish((h, y), Mixtures.of(reads, backbone.device).branch)  # (batch, d)
        return F.cross_entropy(linear(features, live["head"]), targets[batch.rows])

    return fit_parts(_on_device(parts, backbone), loss, samples.ids, objective.how, seeds, checkpoint)


@builds(adapter="adapter", column="router", head="checkpoint")
def train_addition(
    samples: Samples,
    adapters: AdapterReads,
    start: Start,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    addition: Addition,
    objective: Objective,
) -> dict[str, Tensors]:
    """A new adapter and router column in one block, and the head's rows; everything older is frozen."""
    block, passes = addition.block, Passes(samples, adapters, backbone, seeds)
    sites = passes.sites(block)
    parts = {
        "adapter": bottleneck_adapter.init(backbone, addition.bottleneck, seeds.generator("init"), only=1),
        "column": start["column"] or mixture.column(backbone.dim, seeds.generator("column")),
        "head": start["head"],
    }
    targets = samples.targets(objective.classes).to(backbone.device)

    def loss(live: dict[str, Tensors], batch: Batch) -> Tensor:
        branch = passes.mixtures.with_addition(block, live["adapter"], live["column"])
        h, y = sites(batch)  # (batch, tokens, d) each
        features = backbone.finish((h, y), branch, first=block)  # (batch, d)
        return F.cross_entropy(linear(features, live["head"]), targets[batch.rows])

    return fit_parts(_on_device(parts, backbone), loss, samples.ids, objective.how, seeds, checkpoint)


@builds("head")
def train_rows(
    samples: Samples,
    adapters: AdapterReads,
    head: Tensors,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    objective: Objective,
) -> Tensors:
    """The head's rows of a task that added nothing, on frozen features."""
    targets = samples.targets(objective.classes).to(backbone.device)
    features = Passes(samples, adapters, backbone, seeds).features()

    def loss(live: Tensors, batch: Batch) -> Tensor:
        return F.cross_entropy(linear(features(batch)[0], live), targets[batch.rows])

    return fit(on_device(head, backbone), loss, samples.ids, objective.how, seeds, checkpoint)


@builds("head")
def settle(head: Tensors) -> Tensors:
    """The task's rows, as its last addition left them."""
    return dict(head)


def _on_device(parts: Mapping[str, Tensors], backbone: Backbone) -> dict[str, Tensors]:
    return {part: on_device(tensors, backbone) for part, tensors in parts.items()}
