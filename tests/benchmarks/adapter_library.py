"""A library of many adapters: time per query, peak memory, the share of reading adapters, and one shard more or less.

    python -m tests.benchmarks.adapter_library [ADAPTERS...]

Embeddings are of 384 dimensions; adapters and statistics are drawn, stored and read as AdapterSwap's are, and queries
run through its own `scores`. Each size has a store that is thrown away (8 GB for 10,000): one process fills it, another
asks it, a third one adds a shard and takes one away; the last two tell their peak memory. Asserts nothing.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

from cl.components.builder import Builder, builds
from cl.components.handles import Handle
from cl.data.samples import Samples
from cl.home.store import Record, Store, Tensors
from cl.learning.hyper import resolve
from cl.learning.strategy import Model, PastTask
from cl.models.backbone import BATCH
from cl.models.vit import TimmBackbone
from cl.numerics import configure
from cl.parts.statistics import embedding_sums
from cl.seeds import Seeds
from strategies.adapterswap import AdapterSwap

SIZES = (10, 100, 1_000, 10_000)
DIM, DEPTH, RANK, HELD, CLASSES, ROUNDS = 384, 2, 8, 20, 10, 5
HEAD = ("adapters", "first s", "ms/query", "one ms", "reading", "peak MB")
HEAD = (*HEAD, "add s", "built", "remove s", "built", "peak MB")


def backbone() -> TimmBackbone:
    """Two blocks of width 384 on small images, with random weights."""
    with Seeds("library").forked("init"):
        network = VisionTransformer(img_size=32, patch_size=8, embed_dim=DIM, depth=DEPTH, num_heads=6, num_classes=0)
    return TimmBackbone("library", network, 32, (0.5,) * 3, (0.5,) * 3)


@builds(adapter="adapter", head="head")
def drawn_adapter(*, seeds: Seeds, classes: list[str]) -> dict[str, Tensors]:
    """A shard's adapter and head, of the shapes of trained ones."""
    draws = seeds.generator("adapter")
    shapes = {"attn.proj": (DIM, DIM), "attn.qkv": (DIM, 3 * DIM)}
    adapter = {}
    for name, (inputs, outputs) in shapes.items():
        adapter[f"{name}.down"] = torch.randn(DEPTH, RANK, inputs, generator=draws) / DIM**0.5
        adapter[f"{name}.up"] = torch.randn(DEPTH, outputs, RANK, generator=draws) / 100
    weight = torch.randn(len(classes), DIM, generator=draws)
    return {"adapter": adapter, "head": {"weight": weight, "bias": torch.zeros(len(classes))}}


@builds("prototype")
def drawn_sums(*, seeds: Seeds) -> Tensors:
    """Sums of a shard's classes, of the shape of counted ones."""
    draws = seeds.generator("sums")
    return {"count": torch.full((2,), HELD), "sum": torch.randint(-(2**20), 2**20, (2, DIM), generator=draws)}


@builds("cache")
def drawn_features(*, seeds: Seeds) -> Tensors:
    """Embeddings of a shard's held-out part, around a mean of its own."""
    draws = seeds.generator("features")
    return {"features": torch.randn(1, DIM, generator=draws) + torch.randn(HELD, DIM, generator=draws)}


def shard(strategy: AdapterSwap, number: int) -> dict[str, Handle]:
    """What a shard leaves in the model."""
    name = f"task/ward/{number}"
    classes = [f"class-{(number + step) % CLASSES}" for step in range(2)]
    features = strategy.component(f"{name}/features", drawn_features)
    return {
        f"{name}/lora": strategy.component(f"{name}/lora", drawn_adapter, classes=classes),
        f"{name}/prototypes": strategy.component(f"{name}/prototypes", drawn_sums),
        f"{name}/statistics": strategy.component(f"{name}/statistics", embedding_sums, features),
    }


def fitted(strategy: AdapterSwap, entries: dict[str, Handle], changed: list[str]) -> dict[str, Handle]:
    """All entries, with totals and retriever."""
    return {**entries, **strategy.retriever(entries, changed)}


def timed(builder: Builder, work: Callable[[], object]) -> tuple[float, int]:
    """Seconds, and components built."""
    before, start = len(builder.uses), time.perf_counter()
    work()
    return time.perf_counter() - start, sum(use.built for use in builder.uses[before:])


def library(strategy: AdapterSwap, size: int) -> dict[str, Handle]:
    """So many shards, totals and retriever: built, or found in the store."""
    entries: dict[str, Handle] = {}
    for number in range(size):
        entries |= shard(strategy, number)
    return fitted(strategy, entries, [])


def filled(size: int, home: Path) -> list[object]:
    library(opened(home), size)
    return []


def asked(size: int, home: Path) -> list[object]:
    """The columns of queries."""
    strategy = opened(home)
    task = PastTask("task", tuple(f"class-{number}" for number in range(CLASSES)), None)
    first, batch, alone, reading = queries(strategy, Model(library(strategy, size), (task,)))
    return [f"{size:,}", f"{first:.2f}", f"{1e3 * batch:.2f}", f"{1e3 * alone:.1f}", f"{reading:.0%}", peak()]


def changed(size: int, home: Path) -> list[object]:
    """The columns of one shard more, and of one less."""
    strategy = opened(home)
    entries = library(strategy, size)
    more = {**entries, **shard(strategy, size)}
    middle = f"task/ward/{size // 2}"
    less = {name: handle for name, handle in entries.items() if not name.startswith(f"{middle}/")}
    builder = strategy._builder
    added, built = timed(builder, lambda: fitted(strategy, more, [f"task/ward/{size}"]))
    removed, rebuilt = timed(builder, lambda: fitted(strategy, less, [middle]))
    return [f"{added:.2f}", built, f"{removed:.2f}", rebuilt, peak()]


def peak() -> str:
    """Most memory that this process has held, MB."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}"


def opened(home: Path) -> AdapterSwap:
    """The strategy on the store of `home`."""
    hyper = resolve(AdapterSwap.Hyper, AdapterSwap.presets, [], {})
    return AdapterSwap(hyper, Builder(Store(home), backbone(), configure("cpu"), 0))


def queries(strategy: AdapterSwap, model: Model) -> tuple[float, float, float, float]:
    """Seconds of the first batch, which reads the retriever and adds up class sums, of a query in batches of BATCH, and
    of one alone; the share of the batches' time that goes to reading."""
    spent: list[float] = []
    read = Store.load

    def clocked(self: Store, record: Record, part: str) -> Tensors:
        start = time.perf_counter()
        found = read(self, record, part)
        if part in ("adapter", "head"):
            spent.append(time.perf_counter() - start)
        return found

    draws = np.random.default_rng(0)
    images = [draws.integers(0, 256, (BATCH, 32, 32, 3), dtype=np.uint8) for _ in range(ROUNDS + 1)]
    start = time.perf_counter()
    strategy.scores(model, Samples.visiting(images.pop()))
    first = time.perf_counter() - start
    Store.load = clocked  # type: ignore[method-assign]
    start = time.perf_counter()
    for pictures in images:
        strategy.scores(model, Samples.visiting(pictures))
    total, reading = time.perf_counter() - start, sum(spent)
    Store.load = read  # type: ignore[method-assign]
    start = time.perf_counter()
    for pictures in images:
        strategy.scores(model, Samples.visiting(pictures[:1]))
    return first, total / ROUNDS / BATCH, (time.perf_counter() - start) / ROUNDS, reading / total


PARTS = {"fill": filled, "ask": asked, "change": changed}


def main(*words: str) -> None:
    """Print the table, each size from processes of its own."""
    if words[:1] and words[0] in PARTS:
        part, size, home = words
        print(*(f"{value:>9}" for value in PARTS[part](int(size), Path(home))), end=" ", flush=True)
        return
    print(*(f"{title:>9}" for title in HEAD), flush=True)
    for size in words or map(str, SIZES):
        with tempfile.TemporaryDirectory() as home:
            for part in PARTS:
                command = [sys.executable, "-m", "tests.benchmarks.adapter_library", part, size, home]
                subprocess.run(command, check=True)
        print(flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
