"""What MOS's released code does besides: its forward passes write to stored adapters, and dropout stays on.

Ours computes what is left of an adapter then, for the one build that asks, and changes nothing. For explaining gaps
between the method and the released code's results only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cl.adapters import bottleneck as adapters
from cl.components.builder import builds
from cl.data.samples import Samples
from cl.home.store import Tensors
from cl.models.backbone import Backbone, batches, embed, on_device
from cl.seeds import Seeds


def pulled(adapter: Tensors, mean: Tensors, momentum: float, forwards: int) -> Tensors:
    """The adapter as the released code runs it in a forward pass that `forwards` others came before.

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
        attach = adapters.attach(on_device(pulled(adapter, mean, momentum, number), backbone), scale)
        found[rows] = embed(backbone, samples.keep({samples.ids[row] for row in rows.tolist()}), attach)
    return {"features": found}


@builds("cache")
@torch.no_grad()
def dropout_features(
    samples: Samples, adapter: Tensors, *, backbone: Backbone, seeds: Seeds, scale: float, rate: float
) -> Tensors:
    """Features `(n, d)` with the adapter's dropout on."""
    shape = (len(adapter["up.bias"]), backbone.tokens, adapter["down.bias"].shape[1])
    live, rows = on_device(adapter, backbone), []
    for real, images in batches(samples, "features"):
        ids = list(samples.ids[len(rows) :][:real])
        padded = [*ids, *[""] * (len(images) - real)]
        keep = adapters.dropout(rate, shape, lambda size, ids=padded: _draws(backbone, seeds, ids, size))
        rows += list(backbone.features(images, adapters.attach(live, scale, keep))[:real].cpu())
        backbone.passes -= len(images) - real
    return {"features": torch.stack(rows)}


def _draws(backbone: Backbone, seeds: Seeds, ids: Sequence[str], size: tuple[int, ...]) -> Tensor:
    return seeds.uniform(ids, size, "dropout").to(backbone.device)
