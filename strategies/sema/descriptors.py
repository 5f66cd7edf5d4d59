"""Representation descriptors: small linear autoencoders of m, and the z-scores of their reconstruction errors.

A descriptor maps d to k and back: encode.weight `(k, d)`, encode.bias `(k)`, decode.weight `(d, k)`, decode.bias `(d)`.
The error of a vector x is the mean over its d entries of (AE(x) - x)^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cl import Backbone, Checkpoint, Optimisation, Samples, Seeds, Tensors, builds
from cl.learning.train import Batch, fit
from cl.models.backbone import on_device
from strategies.sema.ablations import principal
from strategies.sema.passes import AdapterReads, Passes
from strategies.sema.released import Ring

Activation = Literal["none", "leaky_relu"]

FEWEST = 3  # errors below which a statistic says nothing
_HELD_OUT = 5  # one sample in so many


@dataclass(frozen=True)
class Descriptor:
    """What a descriptor is and how it is fitted. Values are those of the settings `rd`, `rd_act` and `stats`.

    share: hidden width over d. adapter_epochs: those of the adapters' training, whose errors a ring takes too.
    """

    kind: Literal["sgd", "pca"]
    share: float
    activation: Activation
    statistics: Literal["ring500", "heldout"]
    how: Optimisation
    adapter_epochs: int

    def hidden(self, dim: int) -> int:
        """The hidden width k for vectors of width `dim`."""
        return max(1, round(self.share * dim))

    def rows(self, ids: Sequence[str]) -> tuple[list[int], list[int]]:
        """The rows to fit the descriptor on, and those that are held out for its statistics; all of a shard that would
        be held out as a whole."""
        reserved = [row for row, one in enumerate(ids) if self.statistics == "heldout" and held_out(one)]
        return sorted(set(range(len(ids))) - set(reserved)) or reserved, reserved


@builds(descriptor="descriptor", statistics="statistics")
def train_descriptor(
    samples: Samples,
    adapters: AdapterReads,
    plain: Tensors,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    block: int,
    descriptor: Descriptor,
) -> dict[str, Tensors]:
    """The descriptor of m in `block`, with mean, deviation and number of the errors that z-scores refer to.

    plain: m `(n, d)` of the images without augmentation.
    """
    m, ids, how, activation = plain["m"], samples.ids, descriptor.how, descriptor.activation
    fitted, reserved = descriptor.rows(ids)
    hidden = descriptor.hidden(backbone.dim)
    if descriptor.kind == "pca":
        trained = principal(m[fitted], hidden)
        return {"descriptor": trained, "statistics": statistics(errors(trained, m[reserved].double(), activation))}
    inputs = _inputs(samples, adapters, m, backbone, seeds, block)
    start = on_device(new(backbone.dim, hidden, seeds), backbone)
    ring = None
    if descriptor.statistics == "ring500":
        ring = Ring.before(
            lambda batch: errors(start, inputs(batch), activation), ids, how, seeds, descriptor.adapter_epochs
        )

    def loss(live: Tensors, batch: Batch) -> Tensor:
        x = inputs(replace(batch, rows=[fitted[row] for row in batch.rows]))  # (batch, d)
        found = errors(live, x, activation)  # (batch,)
        if ring is not None:
            ring.add(found)
        return found.mean()

    kept = {"ring": ring.slots} if ring is not None else None
    trained = fit(start, loss, [ids[row] for row in fitted], how, seeds, checkpoint, kept=kept)
    seen = ring.errors if ring is not None else errors(trained, m[reserved].double(), activation)
    return {"descriptor": trained, "statistics": statistics(seen)}


def _inputs(
    samples: Samples, adapters: AdapterReads, plain: Tensor, backbone: Backbone, seeds: Seeds, block: int
) -> Callable[[Batch], Tensor]:
    """m of training batches in `block`: read back where no augmentation stands in front, else computed each time."""
    if samples.augment == "none":
        known = plain.to(backbone.device)
        return lambda batch: known[batch.rows]
    pooled = Passes(samples, adapters, backbone, seeds).pooled(block)
    return lambda batch: pooled(batch)[0]


def new(dim: int, hidden: int, seeds: Seeds) -> Tensors:
    """Weights Kaiming-uniform (a = sqrt 5, so within 1/sqrt(fan-in)), biases zero."""
    draw = seeds.generator("descriptor")
    return {
        "encode.weight": (2 * torch.rand(hidden, dim, generator=draw) - 1) / math.sqrt(dim),
        "decode.weight": (2 * torch.rand(dim, hidden, generator=draw) - 1) / math.sqrt(hidden),
        "encode.bias": torch.zeros(hidden),
        "decode.bias": torch.zeros(dim),
    }


def errors(descriptor: Mapping[str, Tensor], x: Tensor, activation: Activation = "none") -> Tensor:
    """Mean squared reconstruction error of each row of x `(n, d)`: `(n,)`, in the precision of x."""
    weights = {name: value.to(x.dtype) for name, value in descriptor.items()}
    code = F.linear(x, weights["encode.weight"], weights["encode.bias"])  # (n, k)
    if activation == "leaky_relu":
        code = F.leaky_relu(code)
    return (F.linear(code, weights["decode.weight"], weights["decode.bias"]) - x).square().mean(1)


def statistics(errors: Tensor) -> Tensors:
    """mu, sigma (unbiased) and count of the errors `(n,)`; zeros where fewer than 3 were seen."""
    enough = len(errors) >= FEWEST
    values = errors if enough else errors.new_zeros(2)
    return {"mu": values.mean(), "sigma": values.std(), "count": torch.tensor(len(errors))}


def z_scores(errors: Tensor, stats: Mapping[str, Tensor], signed: bool, floor: bool) -> Tensor:
    """(error - mu) / sigma of each error `(n,)`, or its absolute value; 0 where a statistic is of too few errors.

    floor: sigma is at least 1e-6 mu + 1e-12. Without it a deviation of zero gives NaN, or infinity where error != mu.
    """
    if stats["count"] < FEWEST:
        return torch.zeros_like(errors)
    mu, sigma = stats["mu"].to(errors.dtype), stats["sigma"].to(errors.dtype)
    if floor:
        sigma = torch.maximum(sigma, 1e-6 * mu + 1e-12)
    z = (errors - mu) / sigma
    return z if signed else z.abs()


def held_out(sample: str) -> bool:
    """Whether this sample is one of the fifth that statistics are taken on; it depends on its id alone."""
    return Seeds("held out").integer("sample", sample) % _HELD_OUT == 0
