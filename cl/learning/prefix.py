"""The frozen prefix: what the blocks below the first one that may still grow make of an image.

Those blocks, with the adapters in them, never change again. Their output is computed once an image, kept as an
evictable component, and read back wherever no random augmentation stands in front: in training, scanning, evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cl.adapters import bottleneck
from cl.components.builder import builds
from cl.data.samples import Samples
from cl.home.store import Tensors
from cl.models.backbone import BATCH, Attach, Backbone, batches, real_passes, rows

# Kept of one shard, in memory through the epochs or in the store, up to this size; computed when needed beyond it.
PREFIX_BYTES = 256 << 20


def fits(samples: Samples, tokens: int, dim: int) -> bool:
    """Whether the float32 stream of a whole shard is small enough to be kept."""
    return 4 * tokens * dim * len(samples) <= PREFIX_BYTES


@builds("cache")
def frozen_prefix(samples: Samples, adapter: Tensors, *, backbone: Backbone, block: int) -> Tensors:
    """The stream `(n, tokens, d)` that enters `block`, under a bottleneck adapter (scale 1) in the blocks below."""
    below = bottleneck.attach({name: value.to(backbone.device) for name, value in adapter.items()}, 1.0)
    images = batches(samples, "prefixes")
    return {"stream": rows(backbone, images, lambda batch: enter(backbone, batch, block, below))}


def enter(backbone: Backbone, images: Tensor, block: int, below: Attach | None) -> Tensor:
    """The stream `(n, tokens, d)` of raw images that enters `block`; block 0 has nothing below."""
    x = backbone.enter(images)
    return backbone.through(x, below, 0, block) if below is not None else x


def entering(
    samples: Samples, backbone: Backbone, block: int, below: Attach | None, stored: Tensor | None
) -> Iterator[tuple[int, Tensor]]:
    """The stream that enters `block`, shard by padded batches: read back from `stored`, or computed from the images."""
    if stored is None:
        for real, images in batches(samples, "prefixes"):
            with torch.no_grad(), real_passes(backbone, real):
                x = enter(backbone, images, block, below)
            yield real, x
        return
    for start in range(0, len(stored), BATCH):
        part = stored[start : start + BATCH].to(backbone.device)
        yield len(part), torch.cat([part, part.new_zeros((BATCH - len(part), *part.shape[1:]))])
