"""One network tuned with gradient descent on whatever it is handed: the core of the two classical bounds.

`finetune` hands it each task's images and the network it had before, `joint` all images so far and a fresh start. The
network is a bottleneck adapter in every block of the frozen backbone (or, with `tune = full`, all of its weights) under
a linear head with one row a class.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.adapters.bottleneck import Shape
from cl.components.builder import builds
from cl.components.checkpoint import Checkpoint
from cl.components.handles import Handle
from cl.data.samples import Samples, concat
from cl.home.store import Tensors
from cl.learning.hyper import AdapterTraining, hyperparameters, setting
from cl.learning.strategy import Model, Strategy
from cl.learning.train import Batch, Optimisation, augmented, fit, tune_adapter
from cl.models.backbone import Backbone, batches, on_device
from cl.models.heads import linear, linear_head, uniform_rows
from cl.seeds import Seeds


@hyperparameters
class TuningHyper(AdapterTraining):
    """What both bounds take."""

    tune: Literal["adapter", "full"] = setting("adapter", "train an adapter in every block, or every weight", "ours")


@builds(adapter="adapter", head="head")
def tuned_adapter(
    shards: list[Samples],
    before: dict[str, Tensors] | None,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    classes: list[str],
    shape: Shape,
    how: Optimisation,
) -> dict[str, Tensors]:
    """Adapter and head after training on `shards`, from `before` or afresh. Head: rows `(classes, d)` and bias."""
    samples, start = concat(shards), before["adapter"] if before else None
    rows = linear_head(before["head"] if before else None, classes, backbone.dim, seeds, uniform_rows)
    targets = samples.targets(classes).to(backbone.device)

    def loss(features: Tensor, live: Tensors, batch: Batch) -> Tensor:
        return F.cross_entropy(linear(features, live), targets[batch.rows])

    adapter, head = tune_adapter(samples, start, rows, loss, shape, how, backbone, seeds, checkpoint)
    return {"adapter": adapter, "head": head}


@builds(network="state", head="head")
def tuned_network(
    shards: list[Samples],
    before: dict[str, Tensors] | None,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    classes: list[str],
    how: Optimisation,
) -> dict[str, Tensors]:
    """All weights and the head after training on `shards`, from `before` or from the pretrained weights."""
    samples = concat(shards)
    start = before["network"] if before else {name: value.detach() for name, value in backbone.parameters().items()}
    head = linear_head(before["head"] if before else None, classes, backbone.dim, seeds, uniform_rows)
    targets = samples.targets(classes).to(backbone.device)

    def loss(live: Tensors, batch: Batch) -> Tensor:
        weights = {name: live[name] for name in start}
        features = backbone.with_parameters(weights, augmented(samples, batch, seeds))
        return F.cross_entropy(linear(features, live), targets[batch.rows])

    trained = fit(on_device({**start, **head}, backbone), loss, samples.ids, how, seeds, checkpoint)
    return {"network": {name: trained[name] for name in start}, "head": {name: trained[name] for name in head}}


@builds("cache")
@torch.no_grad()
def network_features(samples: Samples, network: Tensors, *, backbone: Backbone) -> Tensors:
    """Features `(n, d)` under tuned weights."""
    weights = on_device(network, backbone)
    rows = []
    for real, images in batches(samples, "features"):
        rows.append(backbone.with_parameters(weights, images)[:real].cpu())
        backbone.passes -= len(images) - real
    return {"features": torch.cat(rows)}


@builds("cache")
def linear_scores(features: Tensors, head: Tensors) -> Tensors:
    """Logits `(n, classes)` of the linear head."""
    return {"scores": linear(features["features"], head)}


class Tuned(Strategy):
    """What `finetune` and `joint` share: the network, and how it scores."""

    Hyper = TuningHyper
    presets = {"quick": {"epochs": 2}}

    def tuned(self, name: str, shards: list[Samples], before: Handle | None, classes: list[str]) -> Handle:
        """The network called `name` after training on `shards`."""
        how, parts = self.hyper.optimisation, before.parts if before is not None else None
        if self.hyper.tune == "full":
            return self.component(name, tuned_network, shards, parts, classes=classes, how=how)
        return self.component(name, tuned_adapter, shards, parts, classes=classes, shape=self.hyper.shape, how=how)

    def scores(self, model: Model, samples: Samples) -> Handle:
        network = model["network"]
        if self.hyper.tune == "full":
            features = self.component("features", network_features, samples.plain, network["network"])
        else:
            features = self.features(samples, network["adapter"], self.hyper.scale)
        return self.component("scores", linear_scores, features, network["head"])
