"""Frozen networks: their normalisation, their digest, and the sites where adapters attach.

`Backbone` is the small protocol that strategies see; `TimmBackbone` is its implementation over any timm network. Vision
transformers of pre-norm blocks have sites; other networks give features only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from cl.data.samples import Samples
from cl.progress import track

# Every frozen pass runs in this one shape, padded with zeros: then a row's bits do not depend on its neighbours.
BATCH = 50

Attach = Callable[[int, Tensor], Tensor]
Change = Callable[[str, int, Tensor, Tensor], Tensor]
Prefix = tuple[Tensor, Tensor]


class Backbone(Protocol):
    """A frozen network.

    digest: of weights, preprocessing and code. dim: features of one image. blocks: transformer blocks, 0 without sites.
    network: its modules, to be looked at and not changed.
    passes: images run so far; one that ran through some of the blocks counts as their share.
    """

    name: str
    digest: str
    dim: int
    blocks: int
    tokens: int
    device: torch.device
    passes: float
    network: nn.Module

    def require_sites(self, what: str) -> tuple[int, int]:
        """(blocks, width) of the adapter sites. Raises BadInput naming `what` if the network has none."""

    def prepare(self, images: Tensor) -> Tensor:
        """Raw uint8 images `(n, 3, height, width)` as the network's input, float32 on its device."""

    def features(self, images: Tensor, attach: Attach | None = None) -> Tensor:
        """Features `(n, dim)` of raw images, with an adapter's branch added to every block if given."""

    def enter(self, images: Tensor) -> Tensor:
        """The stream `(n, tokens, dim)` that enters block 0."""

    def through(self, x: Tensor, attach: Attach, start: int, stop: int) -> Tensor:
        """The stream that enters block `stop`, from the one that enters `start`; an adapter's branch in each block."""

    def site(self, block: int, x: Tensor) -> Prefix:
        """What no adapter of `block` or above changes: (stream after its attention, output of the frozen block)."""

    def finish(self, prefix: Prefix, attach: Attach, first: int = 0) -> Tensor:
        """Features `(n, dim)` from the site of block `first`, the adapter's branch added there and in all blocks above.

        What the pooled feature does not depend on is left out: most of the last block where the class token is pooled.
        """

    def linears(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of linear layers that every block has, by name, such as `attn.qkv`. Raises BadInput."""

    def changed(self, images: Tensor, names: Sequence[str], change: Change) -> Tensor:
        """Features `(n, dim)` of raw images, with `change(name, block, x, y)` in place of the output y of each of these
        linear layers; x is its input, `(n, tokens, inputs)`."""

    def fresh(self) -> nn.Module:
        """A module tree of its own on the same tensors, for code that edits modules: from the stream that enters block
        0 to features. Replacing its parameters leaves the backbone as it is; writing into them does not."""

    def parameters(self) -> dict[str, Tensor]:
        """The frozen weights by name; read-only."""

    def with_parameters(self, parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        """Features `(n, dim)` of raw images with some weights replaced."""

    def pixels(self, images: Tensor) -> Tensor:
        """Raw images at the network's size, float32 `(n, 3, side, side)` in [0, 1] on its device, not normalised."""

    def from_pixels(self, parameters: dict[str, Tensor], pixels: Tensor) -> Tensor:
        """Features `(n, dim)` of what `pixels` gives, with some weights replaced."""


def batches(samples: Samples, label: str) -> Iterator[tuple[int, Tensor]]:
    """Raw images in id order, in the one padded shape: (real rows, uint8 `(BATCH, 3, height, width)`)."""
    starts = range(0, len(samples), BATCH)
    for start in track(starts, label) if len(starts) > 1 else starts:
        images = samples.images(slice(start, start + BATCH))
        padding = images.new_zeros((BATCH - len(images), *images.shape[1:]))
        yield len(images), torch.cat([images, padding])


@torch.no_grad()
def rows(backbone: Backbone, padded: Iterable[tuple[int, Tensor]], function: Callable[[Tensor], Tensor]) -> Tensor:
    """`function` over padded batches: its real rows, joined, on the CPU."""
    found = []
    for real, inputs in padded:
        with real_passes(backbone, real):
            found.append(function(inputs)[:real].cpu())
    return torch.cat(found)


@contextmanager
def real_passes(backbone: Backbone, real: int) -> Iterator[None]:
    """Of the padded batches that run inside, count the `real` rows only."""
    before = backbone.passes
    yield
    backbone.passes -= (backbone.passes - before) * (BATCH - real) / BATCH


def on_device(tensors: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """The tensors where the backbone runs."""
    return {name: value.to(backbone.device) for name, value in tensors.items()}


def embed(backbone: Backbone, samples: Samples, attach: Attach | None = None) -> Tensor:
    """Features `(n, dim)` float32 of a shard, on the CPU, in id order."""
    return rows(backbone, batches(samples, "features"), lambda images: backbone.features(images, attach))
