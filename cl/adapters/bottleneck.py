"""The parallel bottleneck adapter (AdaptFormer, Chen et al., NeurIPS 2022), one in every transformer block.

With h the residual stream after attention,  block(x) = h + MLP(LN(h)) + s * (W_up relu(W_down h + b_down) + b_up).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.home.store import Tensors
from cl.models.backbone import Attach, Backbone

KIND = "bottleneck adapters"  # as they are called where a backbone has no sites for them


@dataclass(frozen=True)
class Shape:
    """An adapter's hidden width r, the factor s of its branch, and dropout of its hidden units while it is trained."""

    bottleneck: int
    scale: float
    dropout: float


def init(backbone: Backbone, bottleneck: int, generator: torch.Generator, only: int | None = None) -> Tensors:
    """A new adapter: W_down Kaiming-uniform (a = sqrt 5), all else zero, so that it starts as the identity.

    only: for so many blocks, else for every one of the backbone. Returns down.weight `(blocks, r, d)`, down.bias
    `(blocks, r)`, up.weight `(blocks, d, r)`, up.bias `(blocks, d)`.
    """
    every, width = backbone.require_sites(KIND)
    blocks = every if only is None else only
    bound = 1 / math.sqrt(width)  # Kaiming-uniform with a = sqrt 5 over fan-in d
    return {
        "down.weight": (2 * torch.rand(blocks, bottleneck, width, generator=generator) - 1) * bound,
        "down.bias": torch.zeros(blocks, bottleneck),
        "up.weight": torch.zeros(blocks, width, bottleneck),
        "up.bias": torch.zeros(blocks, width),
    }


def attach(adapter: Mapping[str, Tensor], scale: float, keep: Tensor | None = None) -> Attach:
    """The adapter's function of (block, h `(batch, tokens, d)`), of the shape of h.

    keep: dropout's multiplier of the hidden units, `(blocks, batch, tokens, r)`: 0 or 1/(1-p); None without dropout.
    """
    down_weight, down_bias = adapter["down.weight"].unbind(), adapter["down.bias"].unbind()
    up_weight, up_bias = (scale * adapter["up.weight"]).unbind(), (scale * adapter["up.bias"]).unbind()

    def branch(block: int, h: Tensor) -> Tensor:
        hidden = F.relu(F.linear(h, down_weight[block], down_bias[block]))  # (batch, tokens, r)
        if keep is not None:
            hidden = hidden * keep[block][:, : h.shape[1]]
        return F.linear(hidden, up_weight[block], up_bias[block])

    return branch


def dropout(rate: float, shape: tuple[int, ...], uniform: Callable[[tuple[int, ...]], Tensor]) -> Tensor | None:
    """Dropout's multiplier from draws of one batch: `uniform(shape)` gives `(batch, *shape)`, seeded by sample.

    shape: (blocks, tokens, r). Returns `(blocks, batch, tokens, r)`, or None for rate 0.
    """
    if rate == 0:
        return None
    keep = (uniform(shape) >= rate).float() / (1 - rate)
    return keep.transpose(0, 1)
