"""A mixture of bottleneck adapters in one block, weighted by a router, as one stacked call.

With h `(batch, tokens, d)` the stream after attention and m its mean over the tokens, K adapters add

    sum over k of w_k (U_k relu(D_k h + b_k) + c_k),  w = softmax(W m + b)

which is two matrix products: the hidden units of all adapters side by side, weighted, then mapped up together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.adapters import bottleneck
from cl.home.store import Tensors
from cl.models.backbone import Attach


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


class MixtureReads(TypedDict):
    """What a build reads to open the mixtures of all blocks.

    adapter: of every block, stacked. columns: of the last blocks, which have a router. grown: block (as text) -> pairs
    of adapter and column that came later, oldest first.
    """

    adapter: Tensors
    columns: Tensors
    grown: Mapping[str, Sequence[Sequence[Tensors]]]


Members = tuple[list[Tensors], list[Tensors]]  # adapters and router columns of one block, oldest first


@dataclass(frozen=True)
class Mixtures:
    """Every block's adapters: one of `adapter` (all blocks stacked) in the blocks without a router, else `members`."""

    adapter: Tensors
    members: Mapping[int, Members]

    @classmethod
    def of(cls, read: MixtureReads, device: torch.device | str = "cpu") -> Mixtures:
        """The mixtures that a build has read, on `device`."""
        adapter, columns = _on(read["adapter"], device), _on(read["columns"], device)
        start = len(adapter["down.bias"]) - len(columns["bias"])
        members: dict[int, Members] = {}
        for place in range(len(columns["bias"])):
            block = start + place
            grown = [(_on(one, device), _on(column, device)) for one, column in read["grown"].get(str(block), [])]
            members[block] = (
                [_slice(adapter, block), *(one for one, _ in grown)],
                [_slice(columns, place), *(column for _, column in grown)],
            )
        return cls(adapter, members)

    @property
    def start(self) -> int:
        """The first block that has a router."""
        return min(self.members)

    @cached_property
    def stacks(self) -> dict[int, Stack]:
        """A stack for each block with a router."""
        return {block: Stack.of(*members) for block, members in self.members.items()}

    @property
    def branch(self) -> Attach:
        """What all these adapters add in each block."""
        return self.with_stacks({})

    def with_addition(self, block: int, adapter: Tensors, column: Tensors) -> Attach:
        """The branch if `block` had this adapter and router column besides."""
        adapters, columns = self.members[block]
        return self.with_stacks({block: Stack.of([*adapters, adapter], [*columns, column])})

    def with_stacks(self, changed: Mapping[int, Stack]) -> Attach:
        """The branch with other stacks in some blocks."""
        plain, stacks = bottleneck.attach(self.adapter, 1.0), {**self.stacks, **changed}
        return lambda block, h: stacks[block].branch(h) if block in stacks else plain(block, h)


def _slice(tensors: Tensors, place: int) -> Tensors:
    return {name: value[place : place + 1] for name, value in tensors.items()}


def _on(tensors: Tensors, device: torch.device | str) -> Tensors:
    return {name: value.to(device) for name, value in tensors.items()}
