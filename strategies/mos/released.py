"""What MOS's released code does besides: its forward passes write to stored adapters, and dropout stays on.

Ours computes what is left of an adapter then, for the one build that asks, and changes nothing. For explaining gaps
between the method and the released code's results only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from cl import Backbone, Samples, Seeds, Tensors, builds
from cl.adapters import bottleneck
from cl.models.backbone import batches, embed, on_device


def adapter_in_pass(adapter: Tensors, mean: Tensors, momentum: float, forwards: int) -> Tensors:
    """What is left of the adapter in a forward pass of the released code that `forwards` others came before.

    Each pass pulls all blocks once per block, so block l runs after (blocks * forwards + l + 1) pulls.
    """
    blocks = len(adapter["up.bias"])
    left = (1 - momentum) ** torch.arange(blocks * forwards + 1, blocks * (forwards + 1) + 1, dtype=torch.float64)
    shares = {name: left.float().reshape(-1, *[1] * (value.ndim - 1)) for name, value in adapter.items()}
    return {name: mean[name] + shares[name] * (adapter[name] - mean[name]) for name in adapter}


@builds("cache")
@torch.no_grad()
def pulled_features(
    samples: Samples, adapter: Tensors, mean: Tensors, *, backbone: Backbone, scale: float, momentum: float, batch: int
) -> Tensors:
    """Features `(n, d)` as the released statistics pass measures them: class after class, `batch` images a pass."""
    found = torch.zeros(len(samples), backbone.dim)
    groups = [torch.nonzero(samples.targets([name]) == 0)[:, 0] for name in samples.classes]
    for number, rows in enumerate(chunk for group in groups for chunk in group.split(batch)):
        attach = bottleneck.attach(on_device(adapter_in_pass(adapter, mean, momentum, number), backbone), scale)
        found[rows] = embed(backbone, samples.keep({samples.ids[row] for row in rows.tolist()}), attach)
    return {"features": found}


@builds("cache")
@torch.no_grad()
def dropout_features(
    samples: Samples, adapter: Tensors, *, backbone: Backbone, seeds: Seeds, scale: float, rate: float
) -> Tensors:
    """Features `(n, d)` with the adapter's dropout on."""
    shape = (len(adapter["up.bias"]), backbone.tokens, adapter["down.bias"].shape[1])
    live, rows = on_device(adapter, backbone), list[Tensor]()
    for real, images in batches(samples, "features"):
        ids = list(samples.ids[len(rows) :][:real])
        draws = partial(_draws, backbone, seeds, [*ids, *[""] * (len(images) - real)])
        keep = bottleneck.dropout(rate, shape, draws)  # (blocks, batch, tokens, r)
        rows += list(backbone.features(images, bottleneck.attach(live, scale, keep))[:real].cpu())
        backbone.passes -= len(images) - real
    return {"features": torch.stack(rows)}


def _draws(backbone: Backbone, seeds: Seeds, ids: Sequence[str], size: tuple[int, ...]) -> Tensor:
    return seeds.uniform(ids, size, "dropout").to(backbone.device)
