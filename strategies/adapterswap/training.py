"""What trains on one shard and nothing else: its adapter and its classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cl import Backbone, Checkpoint, Handle, Optimisation, Samples, Seeds, Tensors, builds
from cl.adapters import lowrank
from cl.adapters.peft_lora import Grown, Kind
from cl.learning.train import Batch, Frozen, fit
from cl.models.backbone import batches, on_device, real_passes
from cl.models.heads import cosine, uniform_rows
from strategies.adapterswap.composition import SHARPNESS


@dataclass(frozen=True)
class Lora:
    """A low-rank adapter. layers: of every block. peft: the release of PEFT, which decides what is trained."""

    kind: Kind
    rank: int
    alpha: float
    layers: tuple[str, ...]
    peft: str


@builds(adapter="adapter", head="head")
def train_shard(
    samples: Samples,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    classes: list[str],
    lora: Lora,
    head: Literal["linear", "cosine"],
    how: Optimisation,
) -> dict[str, Tensors]:
    """Adapter and classifier of one shard. Cosine heads train their scale too, which their rows then hold."""
    network = Grown(backbone, seeds, lora.layers, lora.rank, lora.alpha, lora.kind)
    frozen = Frozen(samples, backbone, seeds, lambda stream: (stream,))
    targets = samples.targets(classes).to(backbone.device)
    linear = head == "linear"
    own = {"head": uniform_rows(classes, backbone.dim, seeds)}
    own |= {"bias": torch.zeros(len(classes))} if linear else {"sigma": torch.ones(())}

    def loss(live: Tensors, batch: Batch) -> Tensor:
        (stream,) = frozen(batch)  # (batch, tokens, d)
        features = network.features(live, stream)  # (batch, d)
        backbone.passes += len(features)
        if linear:
            return F.cross_entropy(features @ live["head"].T + live["bias"], targets[batch.rows])
        return F.cross_entropy(live["sigma"] * SHARPNESS * cosine(features, live["head"]), targets[batch.rows])

    start = {name: value.to(backbone.device) for name, value in (network.start | own).items()}
    trained = fit(start, loss, samples.ids, how, seeds, checkpoint)
    weight = trained["head"] if linear else trained["sigma"] * SHARPNESS * F.normalize(trained["head"], dim=-1)
    bias = trained.get("bias", torch.zeros(len(classes)))
    return {"adapter": network.extracted(trained), "head": {"weight": weight, "bias": bias}}


def classes_of(trained: Handle) -> list[str]:
    """The classes of the rows of what `train_shard` has built."""
    return list(trained.record.arguments["classes"])


@builds("cache")
def adapted_features(samples: Samples, adapter: Tensors, *, backbone: Backbone) -> Tensors:
    """Features `(n, d)` of a shard under its own adapter."""
    change = lowrank.change(on_device(adapter, backbone))
    found = []
    for real, images in batches(samples, "features"):
        with torch.no_grad(), real_passes(backbone, real):
            found.append(backbone.changed(images, lowrank.layers(adapter), change)[:real].cpu())
    return {"features": torch.cat(found)}


@builds("head")
def mean_head(sums: Tensors) -> Tensors:
    """A classifier by cosine to class means, from exactly removable sums."""
    return {
        "weight": SHARPNESS * F.normalize(sums["sum"].double(), dim=-1).float(),
        "bias": torch.zeros(len(sums["count"])),
    }
