"""A mixture of bottleneck adapters in one block, weighted by a router, as one stacked call.

With h `(batch, tokens, d)` the stream after attention and m its mean over the tokens, K adapters add

    sum over k of w_k (U_k relu(D_k h + b_k) + c_k),  w = softmax(W m + b)

which is two matrix products: the hidden units of all adapters side by side, weighted, then mapped up together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.adapters import bottleneck
from cl.backbone import Attach

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Stack:
    """K adapters and their router.

    down `(K r, d)`, down_bias `(K r)`, up `(d, K r)`, up_bias `(K, d)`, columns `(K, d)`, column_bias `(K)`.
    """

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor
    columns: Tensor
    column_bias: Tensor

    @classmethod
    def of(cls, adapters: Sequence[Tensors], columns: Sequence[Tensors]) -> Stack:
        """adapters: of one block each, shaped as by `bottleneck.init`. columns: weight `(1, d)` and bias `(1)` each."""
        joined = {name: torch.cat([one[name] for one in adapters]) for name in adapters[0]}
        return cls(
            joined["down.weight"].flatten(0, 1),
            joined["down.bias"].flatten(),
            joined["up.weight"].transpose(0, 1).flatten(1),
            joined["up.bias"],
            torch.cat([one["weight"] for one in columns]),
            torch.cat([one["bias"] for one in columns]),
        )

    def weights(self, pooled: Tensor) -> Tensor:
        """Router weights `(batch, K)` of pooled inputs `(batch, d)`; rows sum to 1."""
        return torch.softmax(F.linear(pooled, self.columns, self.column_bias), dim=1)

    def branch(self, h: Tensor) -> Tensor:
        """What the mixture adds, of the shape of h."""
        weights = self.weights(h.mean(1))
        width = len(self.down) // len(self.columns)
        hidden = F.relu(F.linear(h, self.down, self.down_bias))  # (batch, tokens, K r)
        weighted = hidden * weights.repeat_interleave(width, dim=1)[:, None]
        return F.linear(weighted, self.up) + (weights @ self.up_bias)[:, None]


def column(dim: int, generator: torch.Generator) -> dict[str, Tensor]:
    """A new router column, as PyTorch's linear layers start: weight `(1, d)` and bias `(1)`, uniform in +-1/sqrt(d)."""
    bound = 1 / math.sqrt(dim)
    draws = (2 * torch.rand(dim + 1, generator=generator) - 1) * bound
    return {"weight": draws[None, :dim], "bias": draws[dim:]}


Grown = tuple[list[Tensors], list[Tensors]]  # adapters and router columns of one block, oldest first


def members(mixtures: Mapping[str, Any], block: int, start: int) -> Grown:
    """The adapters of one block and their router columns.

    mixtures: `adapter`, of every block; `columns`, of the blocks from `start` on; `grown`, block (as text) -> list of
    pairs of adapter and column that came later.
    """
    first = {name: value[block : block + 1] for name, value in mixtures["adapter"].items()}
    column = {name: value[block - start : block - start + 1] for name, value in mixtures["columns"].items()}
    added = mixtures["grown"].get(str(block), [])
    return [first, *(adapter for adapter, _ in added)], [column, *(column for _, column in added)]


def stacks(mixtures: Mapping[str, Any], start: int) -> dict[int, Stack]:
    """A stack for each block from `start` on."""
    blocks = range(start, start + len(mixtures["columns"]["bias"]))
    return {block: Stack.of(*members(mixtures, block, start)) for block in blocks}


def attach(adapter: Tensors, stacked: Mapping[int, Stack]) -> Attach:
    """A mixture in the blocks that have a stack; in the others the plain adapter, all blocks of it stacked."""
    plain = bottleneck.attach(adapter, 1.0)
    return lambda block, h: stacked[block].branch(h) if block in stacked else plain(block, h)
