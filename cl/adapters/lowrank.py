"""Low-rank adapters of the linear layers of every block: y = W x + b + B A x, the scale folded into B.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, arXiv 2106.09685. Parameters by layer name:
`attn.qkv.down` is A `(blocks, r, inputs)`, `attn.qkv.up` is B `(blocks, outputs, r)`. DoRA (arXiv 2402.09353) also has
`attn.qkv.gain` g and `attn.qkv.shift` `(blocks, outputs)`: y = g W x + b + B A x, where the shift is (1 - g) b.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cl.home.store import Tensors
from cl.models.backbone import Change


def layers(adapter: Tensors) -> list[str]:
    """The names of the layers that the adapter changes."""
    return [name.removesuffix(".down") for name in adapter if name.endswith(".down")]


def change(adapter: Tensors) -> Change:
    """One adapter's effect, the same for every row."""

    def changed(name: str, block: int, x: Tensor, y: Tensor) -> Tensor:
        if f"{name}.gain" in adapter:
            y = y * adapter[f"{name}.gain"][block] + adapter[f"{name}.shift"][block]
        return y + x @ adapter[f"{name}.down"][block].T @ adapter[f"{name}.up"][block].T

    return changed


def concat(adapters: Sequence[Tensors], weights: Sequence[float]) -> Tensors:
    """The adapter whose delta is the weighted sum of the deltas, exactly: ranks side by side (PEFT's `cat`)."""
    found: Tensors = {}
    for name in layers(adapters[0]):
        found[f"{name}.down"] = torch.cat([one[f"{name}.down"] for one in adapters], dim=1)
        ups = [w * one[f"{name}.up"] for w, one in zip(weights, adapters, strict=True)]
        found[f"{name}.up"] = torch.cat(ups, dim=2)
    return found


def mixed(adapters: Sequence[Tensors], picks: Tensor, weights: Tensor) -> Change:
    """For each row of a batch the weighted sum of the deltas of its own picks, all rows in one batched product.

    picks: which of `adapters`, int64 `(n, t)`. weights: `(n, t)`. Adapters of DoRA cannot be summed: t must be 1.
    """
    stacks = {name: torch.stack([one[name] for one in adapters]) for name in adapters[0]}  # (adapters, blocks, ...)

    def changed(name: str, block: int, x: Tensor, y: Tensor) -> Tensor:
        down = stacks[f"{name}.down"][:, block][picks].flatten(1, 2)  # (n, t r, inputs)
        up = weights[:, :, None, None] * stacks[f"{name}.up"][:, block][picks]  # (n, t, outputs, r)
        if f"{name}.gain" in stacks:
            gain, shift = (stacks[f"{name}.{kind}"][:, block][picks[:, :1]] for kind in ("gain", "shift"))
            y = y * gain + shift
        return y + torch.bmm(torch.bmm(x, down.mT), up.transpose(2, 3).flatten(1, 2))

    return changed
