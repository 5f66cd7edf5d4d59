"""Descriptors of a distribution: small linear autoencoders, and z-scores of their reconstruction errors.

A descriptor maps d to k and back: encode.weight `(k, d)`, encode.bias `(k)`, decode.weight `(d, k)`, decode.bias `(d)`.
The error of a vector x is the mean over its d entries of (AE(x) - x)^2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.seeds import Seeds

Descriptor = dict[str, Tensor]

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
