"""Frozen features: computed once for each (adapter, shard) and kept as evictable components."""

from __future__ import annotations

from cl.adapters import bottleneck
from cl.backbone import Backbone, embed, on_device
from cl.build import builds
from cl.store import Tensors
from cl.stream import Samples


@builds("cache")
def backbone_features(samples: Samples, *, backbone: Backbone) -> Tensors:
    """Features `(n, d)` of the bare backbone."""
    return {"features": embed(backbone, samples)}


@builds("cache")
def adapter_features(samples: Samples, adapter: Tensors, *, backbone: Backbone, scale: float) -> Tensors:
    """Features `(n, d)` under one bottleneck adapter, in evaluation mode."""
    return {"features": embed(backbone, samples, bottleneck.attach(on_device(adapter, backbone), scale))}
