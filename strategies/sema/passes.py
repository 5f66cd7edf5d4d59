"""Frozen passes under mixtures of adapters: features, what routers and descriptors see, and what routers make of it.

Builds read the mixtures as `cl.adapters.mixture.Mixtures.of` takes them, and the shard's stream at the first block that
has a router (`cl.learning.prefix`) where it is stored; else they compute it from the images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from cl.adapters.mixture import Mixtures
from cl.components.builder import builds
from cl.data.samples import Samples
from cl.home.store import Tensors
from cl.learning.prefix import entering
from cl.learning.train import Batch, Frozen
from cl.models.backbone import BATCH, Attach, Backbone, rows
from cl.seeds import Seeds

After = Callable[[Tensor, Attach], tuple[Tensor, ...]]  # of a stream and of the branch that adapters add to it


@builds("cache")
def mixture_features(
    samples: Samples, stored: Tensors | None, mixtures: Mapping[str, Any], *, backbone: Backbone, start: int
) -> Tensors:
    """Features `(n, d)` of a shard under the mixtures of all blocks."""
    branch = Mixtures.of(mixtures, start, backbone.device).branch
    streams = entering(samples, backbone, start, branch, stored["stream"] if stored else None)
    return {
        "features": rows(backbone, streams, lambda x: backbone.finish(backbone.site(start, x), branch, first=start))
    }


@builds("cache")
def pooled_inputs(
    samples: Samples,
    stored: Tensors | None,
    mixtures: Mapping[str, Any],
    *,
    backbone: Backbone,
    seeds: Seeds,
    start: int,
    block: int,
    view: int,
) -> Tensors:
    """m `(n, d)` of `block`, what its router and its descriptors see; images as in epoch `view`."""
    opened = Mixtures.of(mixtures, start, backbone.device)
    pooled = frozen(samples, stored, opened, backbone, seeds, start, pooling(backbone, start, block))
    places = [range(first, min(first + BATCH, len(samples))) for first in range(0, len(samples), BATCH)]
    batches = [Batch(list(place), [samples.ids[row] for row in place], view) for place in places]
    return {"m": torch.cat([pooled(batch)[0].cpu() for batch in batches])}


def frozen(
    samples: Samples,
    stored: Tensors | None,
    mixtures: Mixtures,
    backbone: Backbone,
    seeds: Seeds,
    start: int,
    after: After,
) -> Frozen:
    """`after`, a function of the stream that enters block `start`, for training batches."""
    branch, stream = mixtures.branch, stored["stream"] if stored else None
    return Frozen(samples, backbone, seeds, lambda x: after(x, branch), block=start, below=branch, stored=stream)


def pooling(backbone: Backbone, start: int, block: int) -> After:
    """m `(n, d)` of `block`, from the stream that enters `start`: the mean over the tokens after its attention."""

    def pooled(x: Tensor, branch: Attach) -> tuple[Tensor, ...]:
        h, _ = backbone.site(block, backbone.through(x, branch, start, block))
        return (h.mean(1),)

    return pooled


@builds(routing="evidence")
def mean_weights(pooled: list[Tensors], mixtures: Mapping[str, Any], *, start: int) -> dict[str, Tensors]:
    """Each router's mean weights on a shard: weights `(blocks, K)`, NaN where a block has fewer adapters.

    pooled: m of the shard in each block from `start` on.
    """
    stacks = Mixtures.of(mixtures, start).stacks
    means = [stack.weights(m["m"]).mean(0) for stack, m in zip(stacks.values(), pooled, strict=True)]
    return {"routing": {"blocks": torch.tensor(list(stacks)), "weights": ragged(means)}}


def ragged(uneven: list[Tensor]) -> Tensor:
    """Rows of unequal length as `(rows, longest)`, filled up with NaN."""
    return torch.nn.utils.rnn.pad_sequence(uneven, batch_first=True, padding_value=torch.nan)
