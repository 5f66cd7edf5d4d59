"""What the frozen prefix saves where only the last blocks adapt: time without over time with it, in one process.

Each job runs both ways in turn, several times over, and the medians are compared, because machines are noisy. Without:
every epoch and every evaluation goes through all blocks. With: the stream that enters the first block that may grow is
read back, and training starts at the block that grows.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

import cl.learning.train
from cl.adapters import bottleneck, mixture
from cl.components.checkpoint import Checkpoint
from cl.data.samples import ArrayPixels, Samples
from cl.home.store import Tensors
from cl.learning.prefix import frozen_prefix
from cl.learning.train import Optimisation
from cl.models.loading import load_backbone
from cl.models.vit import TimmBackbone
from cl.numerics import configure
from cl.seeds import Seeds
from strategies.sema.passes import AdapterReads, mixture_features, pooled_inputs
from strategies.sema.training import Addition, Objective, train_addition

GROWING = 3
IMAGES = 240
EPOCHS = 20
ROUNDS = 5
FEATURES, POOLED, ADDITION, PREFIX = mixture_features, pooled_inputs, train_addition, frozen_prefix


def pictures(size: int) -> Samples:
    """Random pictures of two classes."""
    ids = [f"{row:05d}" for row in range(IMAGES)]
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, size, size, 3), generator=draw).to(torch.uint8).numpy()
    return Samples.of({sample: str(row % 2) for row, sample in enumerate(ids)}, ArrayPixels(ids, images))


def mixtures(backbone: TimmBackbone, start: int) -> AdapterReads:
    """The first task's adapter and columns, untrained, without a prefix."""
    draw = torch.Generator().manual_seed(0)
    columns = [mixture.column(backbone.dim, draw) for _ in range(start, backbone.blocks)]
    joined = {name: torch.cat([one[name] for one in columns]) for name in columns[0]}
    return {"adapter": bottleneck.init(backbone, 16, draw), "columns": joined, "grown": {}, "prefix": None}


@contextmanager
def remembering(nothing: bool) -> Iterator[None]:
    """Training that keeps no prefix in memory, if `nothing`."""
    before = cl.learning.train.PREFIX_BYTES
    cl.learning.train.PREFIX_BYTES = 0 if nothing else before
    try:
        yield
    finally:
        cl.learning.train.PREFIX_BYTES = before


def jobs(backbone: TimmBackbone) -> dict[str, Callable[[Tensors | None], object]]:
    """Each job as a function of the stored prefix."""
    start = backbone.blocks - GROWING
    samples, mixed = pictures(backbone.image_size), mixtures(backbone, start)
    head = {"weight": torch.zeros(2, backbone.dim), "bias": torch.zeros(2)}
    objective = Objective(("0", "1"), Optimisation(EPOCHS, batch_size=32, lr=0.005, weight_decay=5e-4))
    given = {"backbone": backbone, "seeds": Seeds("benchmark")}

    def reads(prefix: Tensors | None) -> AdapterReads:
        return {**mixed, "prefix": prefix}

    def add(block: int) -> Callable[[Tensors | None], object]:
        how = {**given, "checkpoint": Checkpoint(None), "addition": Addition(block, 16), "objective": objective}
        return lambda prefix: ADDITION(samples, reads(prefix), {"head": head, "column": None}, **how)

    last = backbone.blocks - 1
    return {
        f"addition in block {start + 1}, {EPOCHS} epochs": add(start),
        f"addition in block {last + 1}, {EPOCHS} epochs": add(last),
        f"scan of block {start + 1}": lambda prefix: POOLED(samples, reads(prefix), **given, block=start, view=0),
        "features after a growing task": lambda prefix: FEATURES(samples, reads(prefix), backbone=backbone),
    }


def seconds(job: Callable[[Tensors | None], object], stored: Tensors | None) -> float:
    begin = time.perf_counter()
    with remembering(nothing=stored is None):
        job(stored)
    return time.perf_counter() - begin


def main() -> None:
    """Print for each job the seconds both ways, and their ratio."""
    configure("cpu", threads=1)
    name = sys.argv[1] if len(sys.argv) > 1 else "glyph-vit"
    backbone = load_backbone(name)
    start = backbone.blocks - GROWING
    samples, mixed = pictures(backbone.image_size), mixtures(backbone, start)
    stored = PREFIX(samples, mixed["adapter"], backbone=backbone, block=start)
    for title, job in jobs(backbone).items():
        pairs = [(seconds(job, None), seconds(job, stored)) for _ in range(ROUNDS)]
        ratio = statistics.median(without / with_ for without, with_ in pairs)
        without, with_ = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"{name}: {title}: {without:.3f} s without, {with_:.3f} s with the prefix, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
