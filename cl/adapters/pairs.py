"""Pairs of linear bottlenecks beside linear layers: y = W x + b + l_low U_low D_low x + l_high U_high D_high x.

No nonlinearity and no bias, so that a pair with constant factors is one more weight:
W' = W + l_low U_low D_low + l_high U_high D_high. A pair is called after its layer; its tensors are
`LAYER.low.down (r, in)`, `LAYER.low.up (out, r)` and likewise `high`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from cl.errors import BadInput
from cl.models.backbone import Backbone
from cl.seeds import Seeds

Pairs = Mapping[str, Tensor]
Factor = float | Tensor  # one for the batch, or one an image `(n, 1, 1)`
BRANCHES = ("low", "high")
Where = Literal["attention", "all"]
LAYERS: Mapping[Where, tuple[str, ...]] = {
    "attention": ("attn.qkv", "attn.proj"),
    "all": ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"),
}


@dataclass(frozen=True)
class PairShape:
    """Which layers of a block get a pair, the ranks r of its branches, and how D begins."""

    where: Where
    low: int
    high: int
    init: Literal["fan_in", "code"]


def layers(backbone: Backbone, where: Where) -> dict[str, nn.Linear]:
    """The linear layers of every block that get a pair, by name. Raises BadInput where a block lacks one."""
    blocks, _ = backbone.require_sites("pairs of bottlenecks")
    found = {}
    for name in (f"blocks.{block}.{layer}" for block in range(blocks) for layer in LAYERS[where]):
        layer = backbone.network.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            raise BadInput(f"layer '{name}' of backbone '{backbone.name}' is not linear; use another backbone")
        found[name] = layer
    return found


def init(backbone: Backbone, shape: PairShape, seeds: Seeds) -> dict[str, Tensor]:
    """Fresh pairs: U = 0; D normal with standard deviation in^-1/2 (`fan_in`) or 1/r^2 (`code`)."""
    tensors = {}
    for name, layer in layers(backbone, shape.where).items():
        for branch, rank in zip(BRANCHES, (shape.low, shape.high), strict=True):
            std = layer.in_features**-0.5 if shape.init == "fan_in" else rank**-2
            generator = seeds.generator("init", name, branch)
            tensors[f"{name}.{branch}.down"] = std * torch.randn(rank, layer.in_features, generator=generator)
            tensors[f"{name}.{branch}.up"] = torch.zeros(layer.out_features, rank)
    return tensors


def sites(pairs: Pairs) -> list[str]:
    """The layers that have a pair."""
    return [name.removesuffix(".low.down") for name in pairs if name.endswith(".low.down")]


def is_pair(name: str) -> bool:
    """Whether a tensor of this name belongs to a pair."""
    return name.endswith((".down", ".up"))


def merged(weights: Mapping[str, Tensor], pairs: Pairs, low: Factor, high: Factor) -> dict[str, Tensor]:
    """W' of every layer with a pair, differentiable. weights: W by name of weight. low, high: one for all images."""
    found = {}
    for site in sites(pairs):
        delta = low * (pairs[f"{site}.low.up"] @ pairs[f"{site}.low.down"])  # (out, r) @ (r, in)
        delta = delta + high * (pairs[f"{site}.high.up"] @ pairs[f"{site}.high.down"])
        found[f"{site}.weight"] = weights[f"{site}.weight"] + delta
    return found


@contextmanager
def attached(
    backbone: Backbone, pairs: Pairs, low: Factor, high: Factor, keep: Mapping[str, Tensor] | None = None
) -> Iterator[None]:
    """Inside, the layers of the backbone have their pairs beside them.

    keep: factors `(n, 1, r)` on the hidden vectors, by `LAYER.low` and `LAYER.high`: a dropout mask.
    """

    def hook(site: str) -> RemovableHandle:
        def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            for branch, factor in (("low", low), ("high", high)):
                hidden = F.linear(inputs[0], pairs[f"{site}.{branch}.down"])  # (n, tokens, r)
                hidden = hidden if keep is None else hidden * keep[f"{site}.{branch}"]
                output = output + factor * F.linear(hidden, pairs[f"{site}.{branch}.up"])
            return output

        return backbone.network.get_submodule(site).register_forward_hook(add)

    hooks = [hook(site) for site in sites(pairs)]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()
