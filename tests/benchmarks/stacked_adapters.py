"""Many adapters on the same images: one stacked call against a loop, in one process and one thread.

Three ways give the same features: a full pass for each adapter; one shared prefix (what no adapter changes) and the
rest for each adapter; one shared prefix and the rest for all adapters side by side, their branches as two batched
products. They take turns, round by round, and the medians of processor time are compared, because machines are noisy.

    stacked_adapters.py [BACKBONE [COUNT...]]

The engine takes the second way for adapters that meet the same shard (`cl.learning.features`): its bits are those of
a pass alone on every machine, which the third way cannot promise.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from cl.adapters import bottleneck
from cl.models.backbone import BATCH, Attach
from cl.models.loading import load_backbone
from cl.models.vit import TimmBackbone
from cl.numerics import configure
from cl.seeds import Seeds

WIDTH = 16  # the adapters' bottleneck
SCALE = 0.1
COUNTS = (2, 5, 10, 20)


def stacked(adapters: list[Mapping[str, Tensor]], scale: float) -> Attach:
    """The adapters' function of (block, h `(adapters * batch, tokens, d)`): each on its own rows."""
    joined = {name: torch.stack([adapter[name] for adapter in adapters]) for name in adapters[0]}
    up_weight, up_bias = scale * joined["up.weight"], scale * joined["up.bias"]

    def branch(block: int, h: Tensor) -> Tensor:
        rows = h.reshape(len(adapters), -1, h.shape[-1])  # (adapters, batch * tokens, d)
        down = joined["down.weight"][:, block].transpose(1, 2)
        hidden = torch.baddbmm(joined["down.bias"][:, block, None], rows, down).relu_()
        return torch.baddbmm(up_bias[:, block, None], hidden, up_weight[:, block].transpose(1, 2)).view_as(h)

    return branch


def ways(backbone: TimmBackbone, count: int, batch: int) -> dict[str, Callable[[], Tensor]]:
    """Features `(count, batch, d)` of random images under random adapters, each way."""
    seeds = Seeds("stacked adapters")
    size = (batch, 3, backbone.image_size, backbone.image_size)
    images = torch.randint(0, 256, size, generator=seeds.generator("images")).to(torch.uint8)
    adapters = [bottleneck.init(backbone, WIDTH, seeds.generator("init", number)) for number in range(count)]
    for number, adapter in enumerate(adapters):
        shape = adapter["up.weight"].shape
        adapter["up.weight"] = 0.02 * torch.randn(shape, generator=seeds.generator("up", number))

    def one_by_one() -> Tensor:
        return torch.stack([backbone.features(images, bottleneck.attach(one, SCALE)) for one in adapters])

    def one_prefix() -> Tensor:
        prefix = backbone.site(0, backbone.enter(images))
        return torch.stack([backbone.finish(prefix, bottleneck.attach(one, SCALE)) for one in adapters])

    def one_call() -> Tensor:
        h, y = (part.repeat(count, 1, 1) for part in backbone.site(0, backbone.enter(images)))
        return backbone.finish((h, y), stacked(adapters, SCALE)).reshape(count, batch, -1)

    return {"loop": one_by_one, "loop, shared prefix": one_prefix, "stacked": one_call}


@torch.no_grad()
def measure(name: str, batch: int, count: int) -> None:
    """Print images a second of the loop, and how many times faster the other ways are."""
    made = ways(load_backbone(name), count, batch)
    found = {way: action() for way, action in made.items()}  # also warms up
    rounds = [{way: _seconds(action) for way, action in made.items()} for _ in range(max(3, 20 // count))]
    typical = {way: statistics.median(one[way] for one in rounds) for way in made}
    apart = (found["stacked"] - found["loop"]).abs().max().item()
    same = "equal bits" if torch.equal(found["stacked"], found["loop"]) else f"other bits (up to {apart:.1e})"
    print(
        f"{name}, {batch} images, {count:2d} adapters: loop {count * batch / typical['loop']:.1f} images/s; "
        f"shared prefix {typical['loop'] / typical['loop, shared prefix']:.2f}x; "
        f"stacked {typical['loop'] / typical['stacked']:.2f}x, {same}",
        flush=True,
    )


def _seconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def main() -> None:
    """The backbone and counts of the command line, else the default one and ViT-B/16 with random weights at 224."""
    configure("cpu", threads=1)
    counts = [int(value) for value in sys.argv[2:]] or COUNTS
    for name in sys.argv[1:2] or ["glyph-vit", "random:vit_base_patch16_224"]:
        batch = BATCH if load_backbone(name).image_size <= 64 else 1
        for count in counts:
            measure(name, batch, count)


if __name__ == "__main__":
    main()
