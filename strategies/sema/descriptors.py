"""Descriptors of a distribution: small linear autoencoders, and z-scores of their reconstruction errors.

A descriptor maps d to k and back: encode.weight `(k, d)`, encode.bias `(k)`, decode.weight `(d, k)`, decode.bias `(d)`.
The error of a vector x is the mean over its d entries of (AE(x) - x)^2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.components.checkpoint import Checkpoint
from cl.learning.train import Batch, Optimisation, epoch_batches, fit
from cl.seeds import Seeds

Descriptor = dict[str, Tensor]
Inputs = Callable[[Batch], Tensor]  # x `(batch, d)` of a batch of training images

RING = 500  # how many errors the ring of the released code holds
FEWEST = 3  # errors below which a statistic says nothing
_HELD_OUT = 5  # one sample in so many


def new(dim: int, hidden: int, seeds: Seeds) -> Descriptor:
    """Weights Kaiming-uniform (a = sqrt 5, so within 1/sqrt(fan-in)), biases zero."""
    draw = seeds.generator("descriptor")
    encode = (2 * torch.rand(hidden, dim, generator=draw) - 1) / math.sqrt(dim)
    decode = (2 * torch.rand(dim, hidden, generator=draw) - 1) / math.sqrt(hidden)
    return _descriptor(encode, torch.zeros(hidden), decode, torch.zeros(dim))


def principal(x: Tensor, hidden: int) -> Descriptor:
    """The best linear autoencoder of x `(n, d)`: projection on its first `hidden` principal components, by float64."""
    rows = x.double()
    mean = rows.mean(0)
    scatter = (rows - mean).T @ (rows - mean)
    axes = torch.linalg.eigh(scatter).eigenvectors[:, -hidden:].T  # (hidden, d); eigenvalues ascend
    return _descriptor(axes.float(), -(axes @ mean).float(), axes.T.float(), mean.float())


def reconstructing(
    start: Descriptor,
    inputs: Inputs,
    ids: Sequence[str],
    kept: Sequence[int],
    ring: Tensor,
    how: Optimisation,
    seeds: Seeds,
    activation: str,
    checkpoint: Checkpoint,
) -> tuple[Descriptor, Tensor]:
    """`start` after gradient descent on the errors of the rows `kept` of a shard, and the ring once it has met them.

    ids: of all rows of the shard. ring: `(n,)` errors met before, at most RING.
    """
    held = torch.cat([torch.full((RING - len(ring),), torch.nan), ring])  # changed in place, so that a pause saves it

    def loss(live: Descriptor, batch: Batch) -> Tensor:
        found = errors(live, inputs(replace(batch, rows=[kept[row] for row in batch.rows])), activation)
        met = ringed(held[~held.isnan()], found.detach().cpu())
        held[RING - len(met) :] = met
        return found.mean()

    trained = fit(start, loss, [ids[row] for row in kept], how, seeds, checkpoint, kept={"ring": held})
    return trained, held[~held.isnan()]


def ring_before(
    untrained: Descriptor, inputs: Inputs, ids: Sequence[str], how: Optimisation, seeds: Seeds, activation: str
) -> Tensor:
    """The ring after the epochs that train something else: the released code fills it there too."""
    ring = torch.zeros(0)
    for epoch in range(how.epochs):
        for batch in epoch_batches(ids, how.batch_size, epoch, seeds):
            ring = ringed(ring, errors(untrained, inputs(batch), activation).cpu())
    return ring


def ringed(ring: Tensor, new: Tensor, size: int = RING) -> Tensor:
    """The ring with errors of one more batch, oldest first. The batch that fills it loses what does not fit, as in the
    released code; later ones push the oldest out."""
    room = size - len(ring)
    return torch.cat([ring, new[:room]]) if room > 0 else torch.cat([ring, new])[-size:]


def errors(descriptor: Mapping[str, Tensor], x: Tensor, activation: str = "none") -> Tensor:
    """Mean squared reconstruction error of each row of x `(n, d)`: `(n,)`, in the precision of x."""
    weights = {name: value.to(x.dtype) for name, value in descriptor.items()}
    code = F.linear(x, weights["encode.weight"], weights["encode.bias"])
    if activation == "leaky_relu":
        code = F.leaky_relu(code)
    return (F.linear(code, weights["decode.weight"], weights["decode.bias"]) - x).square().mean(1)


def statistics(seen: Tensor) -> dict[str, Tensor]:
    """mu, sigma (unbiased) and count of the errors `(n,)`; zeros where fewer than 3 were seen."""
    enough = len(seen) >= FEWEST
    values = seen if enough else seen.new_zeros(2)
    return {"mu": values.mean(), "sigma": values.std(), "count": torch.tensor(len(seen))}


def z_scores(found: Tensor, stats: Mapping[str, Tensor], signed: bool, floor: bool) -> Tensor:
    """(error - mu) / sigma of each error `(n,)`, or its absolute value; 0 where a statistic is of too few errors.

    floor: sigma is at least 1e-6 mu + 1e-12. Without it a deviation of zero gives NaN, or infinity where error != mu.
    """
    if stats["count"] < FEWEST:
        return torch.zeros_like(found)
    mu, sigma = stats["mu"].to(found.dtype), stats["sigma"].to(found.dtype)
    if floor:
        sigma = torch.maximum(sigma, 1e-6 * mu + 1e-12)
    z = (found - mu) / sigma
    return z if signed else z.abs()


def held_out(sample: str) -> bool:
    """Whether this sample is one of the fifth that statistics are taken on; it depends on its id alone."""
    return Seeds("held out").integer("sample", sample) % _HELD_OUT == 0


def _descriptor(encode: Tensor, encode_bias: Tensor, decode: Tensor, decode_bias: Tensor) -> Descriptor:
    weights = {"encode.weight": encode, "decode.weight": decode}
    return {**weights, "encode.bias": encode_bias, "decode.bias": decode_bias}
