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
from typing_extensions import TypeVar

from cl import (
    AdapterTraining,
    Backbone,
    Checkpoint,
    Handle,
    Model,
    Optimisation,
    Samples,
    Seeds,
    Strategy,
    Tensors,
    Tuner,
    Tuning,
    builds,
    hyperparameters,
    setting,
)
from cl.data.samples import concat
from cl.learning.train import Batch, augmented, fit
from cl.models.backbone import batches, on_device
from cl.models.heads import linear, linear_head, uniform_rows


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
    tuning: Tuning,
) -> dict[str, Tensors]:
    """Adapter and head after training on `shards`, from `before` or afresh. Head: rows `(classes, d)` and bias."""
    samples, start = concat(shards), before["adapter"] if before else None
    rows = linear_head(before["head"] if before else None, classes, backbone.dim, seeds, uniform_rows)
    targets = samples.targets(classes).to(backbone.device)

    def loss(features: Tensor, live: Tensors, batch: Batch) -> Tensor:
        return F.cross_entropy(linear(features, live), targets[batch.rows])

    adapter, head = Tuner(samples, tuning, backbone, seeds).tune(start, rows, loss, checkpoint)
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
        features = backbone.with_parameters(weights, augmented(samples, batch, seeds))  # (batch, d)
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


AnyTuning = TypeVar("AnyTuning", bound=TuningHyper, default=TuningHyper)


class OneNetwork(Strategy[AnyTuning]):
    """What `finetune` and `joint` share: the network, and how it scores."""

    Hyper = TuningHyper
    presets = {"quick": {"epochs": 2}}

    def network(self, name: str, shards: list[Samples], before: Handle | None, classes: list[str]) -> Handle:
        """The network called `name` after training on `shards`, from `before` or afresh."""
        parts = before.parts if before is not None else None
        if self.hyper.tune == "full":
            how = self.hyper.optimisation
            return self.component(name, tuned_network, shards, parts, classes=classes, how=how)
        return self.component(name, tuned_adapter, shards, parts, classes=classes, tuning=self.hyper.tuning)

    def scores(self, model: Model, samples: Samples) -> Handle:
        network = model["network"]
        if self.hyper.tune == "full":
            features = self.component("features", network_features, samples.plain, network["network"])
        else:
            features = self.features(samples, network["adapter"], self.hyper.scale)
        return self.component("scores", linear_scores, features, network["head"])
