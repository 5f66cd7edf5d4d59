"""Frozen features: computed once for each (adapter, shard) and kept as evictable components."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from cl.adapters import bottleneck
from cl.components.builder import builds
from cl.data.samples import Samples
from cl.home.store import Tensors
from cl.models.backbone import Backbone, batches, embed, on_device, real_passes


@builds("cache")
def backbone_features(samples: Samples, *, backbone: Backbone) -> Tensors:
    """Features `(n, d)` of the bare backbone."""
    return {"features": embed(backbone, samples)}


@builds("cache")
def adapter_features(samples: Samples, adapter: Tensors, *, backbone: Backbone, scale: float) -> Tensors:
    """Features `(n, d)` under one bottleneck adapter, in evaluation mode."""
    return features_together([(samples, adapter)], backbone=backbone, scale=scale)[0]


@torch.no_grad()
def features_together(
    reads: Sequence[tuple[Samples, Tensors]], *, backbone: Backbone, scale: float
) -> list[dict[str, torch.Tensor]]:
    """`adapter_features` of one shard under each of several adapters.

    What no adapter changes (the way to block 0's site) runs once for all. From there on each adapter runs in the shape
    in which it would run alone: side by side in one product they are a little faster, but the bits of a product may
    depend on its shape, and so on which other adapters happen to be missing.
    """
    branches = [bottleneck.attach(on_device(adapter, backbone), scale) for _, adapter in reads]
    features: list[list[torch.Tensor]] = [[] for _ in branches]
    for real, images in batches(reads[0][0], "features"):
        with real_passes(backbone, real):
            site = backbone.site(0, backbone.enter(images))  # two of (batch, tokens, d)
            for rows, branch in zip(features, branches, strict=True):
                rows.append(backbone.finish(site, branch)[:real].cpu())  # (real, d)
    return [{"features": torch.cat(rows)} for rows in features]
