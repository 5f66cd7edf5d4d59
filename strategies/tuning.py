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

from cl.adapters import bottleneck as adapters
from cl.backbone import Backbone, batches
from cl.build import Checkpoint, Handle, builds
from cl.heads import uniform_rows
from cl.hyper import AdapterTraining, hyperparameters, setting
from cl.seeds import Seeds
from cl.store import Tensors
from cl.strategy import Model, Strategy
from cl.stream import Samples, concat
from cl.train import Batch, Optimisation, Tuner, augmented, fit


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
    bottleneck: int,
    scale: float,
    dropout: float,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
) -> dict[str, Tensors]:
    """Adapter and head after training on `shards`, from `before` or afresh. Head: rows `(classes, d)` and bias."""
    samples = concat(shards)
    start = before["adapter"] if before else adapters.init(backbone, bottleneck, seeds.generator("init"))
    head = _head(before["head"] if before else None, classes, backbone.dim, seeds)
    targets = samples.targets(classes).to(backbone.device)
    tuner = Tuner(samples, backbone, seeds, scale, dropout)

    def loss(live: Tensors, batch: Batch) -> Tensor:
        return F.cross_entropy(_logits(tuner.features(live, batch), live), targets[batch.rows])

    how = Optimisation(epochs, batch_size, lr, weight_decay)
    trained = fit(_on({**start, **head}, backbone), loss, samples.ids, how, seeds, checkpoint)
    return {"adapter": {name: trained[name] for name in start}, "head": {name: trained[name] for name in head}}


@builds(network="state", head="head")
def tuned_network(
    shards: list[Samples],
    before: dict[str, Tensors] | None,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    classes: list[str],
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
) -> dict[str, Tensors]:
    """All weights and the head after training on `shards`, from `before` or from the pretrained weights."""
    samples = concat(shards)
    start = before["network"] if before else {name: value.detach() for name, value in backbone.parameters().items()}
    head = _head(before["head"] if before else None, classes, backbone.dim, seeds)
    targets = samples.targets(classes).to(backbone.device)

    def loss(live: Tensors, batch: Batch) -> Tensor:
        weights = {name: live[name] for name in start}
        features = backbone.with_parameters(weights, augmented(samples, batch, seeds))
        return F.cross_entropy(_logits(features, live), targets[batch.rows])

    how = Optimisation(epochs, batch_size, lr, weight_decay)
    trained = fit(_on({**start, **head}, backbone), loss, samples.ids, how, seeds, checkpoint)
    return {"network": {name: trained[name] for name in start}, "head": {name: trained[name] for name in head}}


@builds("cache")
@torch.no_grad()
def network_features(samples: Samples, network: Tensors, *, backbone: Backbone) -> Tensors:
    """Features `(n, d)` under tuned weights."""
    weights = _on(network, backbone)
    rows = []
    for real, images in batches(samples, "features"):
        rows.append(backbone.with_parameters(weights, images)[:real].cpu())
        backbone.passes -= len(images) - real
    return {"features": torch.cat(rows)}


@builds("cache")
def linear_scores(features: Tensors, head: Tensors) -> Tensors:
    """Logits `(n, classes)` of the linear head."""
    return {"scores": _logits(features["features"], head)}


class Tuned(Strategy):
    """What `finetune` and `joint` share: the network, and how it scores."""

    Hyper = TuningHyper
    presets = {"quick": {"epochs": 2}}

    def tuned(self, name: str, shards: list[Samples], before: Handle | None, classes: list[str]) -> Handle:
        """The network called `name` after training on `shards`."""
        h = self.hyper
        how = {"epochs": h.epochs, "batch_size": h.batch_size, "lr": h.lr, "weight_decay": h.weight_decay}
        parts = before.parts if before is not None else None
        if h.tune == "full":
            return self.component(name, tuned_network, shards, parts, classes=classes, **how)
        shape = {"bottleneck": h.bottleneck, "scale": h.scale, "dropout": h.dropout}
        return self.component(name, tuned_adapter, shards, parts, classes=classes, **shape, **how)

    def scores(self, model: Model, samples: Samples) -> Handle:
        network = model["network"]
        if self.hyper.tune == "full":
            features = self.component("features", network_features, samples.plain, network["network"])
        else:
            features = self.features(samples, network["adapter"], self.hyper.scale)
        return self.component("scores", linear_scores, features, network["head"])


def _head(before: Tensors | None, classes: list[str], dim: int, seeds: Seeds) -> Tensors:
    """The head's rows for `classes`: those of `before` first, new ones seeded by class name."""
    old = len(before["head.weight"]) if before else 0
    rows, bias = [before["head.weight"]] if before else [], [before["head.bias"]] if before else []
    if old < len(classes):
        rows.append(uniform_rows(classes[old:], dim, seeds))
        bias.append(torch.zeros(len(classes) - old))
    return {"head.weight": torch.cat(rows), "head.bias": torch.cat(bias)}


def _logits(features: Tensor, head: Tensors) -> Tensor:
    return F.linear(features, head["head.weight"], head["head.bias"])


def _on(tensors: Tensors, backbone: Backbone) -> Tensors:
    return {name: value.to(backbone.device) for name, value in tensors.items()}
