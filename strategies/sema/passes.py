"""Frozen passes under mixtures of adapters: features, what routers and descriptors see, and what routers make of it.

They begin with the shard's stream at the first block that has a router (`cl.learning.prefix`): read back where it is
stored, else computed from the images.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cl import Backbone, Samples, Seeds, Tensors, builds
from cl.adapters.mixture import MixtureReads, Mixtures
from cl.learning.prefix import entering
from cl.learning.train import Batch, Frozen
from cl.models.backbone import BATCH, rows


class AdapterReads(MixtureReads):
    """The mixtures of all blocks. prefix: `stream` `(n, tokens, d)` of the shard at the first block with a router."""

    prefix: Tensors | None


class Passes:
    """What the frozen network gives for training batches of one shard, under the mixtures that a build has read."""

    def __init__(self, samples: Samples, adapters: AdapterReads, backbone: Backbone, seeds: Seeds) -> None:
        self.mixtures = Mixtures.of(adapters, backbone.device)
        self._samples, self._backbone, self._seeds = samples, backbone, seeds
        self._start, self._branch, self._stored = self.mixtures.start, self.mixtures.branch, _stored(adapters)

    def sites(self, block: int) -> Frozen:
        """The two tensors of `Backbone.site` in `block`, `(batch, tokens, d)`."""
        return self._frozen(lambda x: self._site(block, x))

    def pooled(self, block: int) -> Frozen:
        """m `(batch, d)` of `block`: the mean over the tokens after its attention."""
        return self._frozen(lambda x: (self._site(block, x)[0].mean(1),))

    def features(self) -> Frozen:
        """Features `(batch, d)`."""
        start, branch = self._start, self._branch
        return self._frozen(lambda x: (self._backbone.finish(self._site(start, x), branch, first=start),))

    def _site(self, block: int, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._backbone.site(block, self._backbone.through(x, self._branch, self._start, block))

    def _frozen(self, after: Callable[[Tensor], tuple[Tensor, ...]]) -> Frozen:
        return Frozen(
            self._samples,
            self._backbone,
            self._seeds,
            after,
            block=self._start,
            below=self._branch,
            stored=self._stored,
        )


@builds("cache")
def mixture_features(samples: Samples, adapters: AdapterReads, *, backbone: Backbone) -> Tensors:
    """Features `(n, d)` of a shard under the mixtures of all blocks."""
    mixtures = Mixtures.of(adapters, backbone.device)
    start, branch = mixtures.start, mixtures.branch
    streams = entering(samples, backbone, start, branch, _stored(adapters))
    return {
        "features": rows(backbone, streams, lambda x: backbone.finish(backbone.site(start, x), branch, first=start))
    }


@builds("cache")
def pooled_inputs(
    samples: Samples, adapters: AdapterReads, *, backbone: Backbone, seeds: Seeds, block: int, view: int
) -> Tensors:
    """m `(n, d)` of `block`, what its router and its descriptors see; images as in epoch `view`."""
    pooled = Passes(samples, adapters, backbone, seeds).pooled(block)
    places = [range(first, min(first + BATCH, len(samples))) for first in range(0, len(samples), BATCH)]
    batches = [Batch(list(place), [samples.ids[row] for row in place], view) for place in places]
    return {"m": torch.cat([pooled(batch)[0].cpu() for batch in batches])}


@builds(routing="evidence")
def mean_weights(pooled: list[Tensors], adapters: AdapterReads) -> dict[str, Tensors]:
    """Each router's mean weights on a shard: weights `(blocks, K)`, NaN where a block has fewer adapters.

    pooled: m of the shard in each block that has a router.
    """
    stacks = Mixtures.of(adapters).stacks
    means = [stack.weights(m["m"]).mean(0) for stack, m in zip(stacks.values(), pooled, strict=True)]
    return {"routing": {"blocks": torch.tensor(list(stacks)), "weights": as_matrix(means)}}


def as_matrix(uneven: list[Tensor]) -> Tensor:
    """Rows of unequal length as `(rows, longest)`, filled up with NaN."""
    return torch.nn.utils.rnn.pad_sequence(uneven, batch_first=True, padding_value=torch.nan)


def _stored(adapters: AdapterReads) -> Tensor | None:
    return adapters["prefix"]["stream"] if adapters["prefix"] is not None else None
