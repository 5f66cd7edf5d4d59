"""A tiny backbone and a tiny stream, so that whole runs take a second."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

import cl
from cl.components.builder import Builder
from cl.data.samples import ArrayPixels, Samples
from cl.data.stream import Stream, Task
from cl.home.results import Result
from cl.home.store import Store
from cl.learning.hyper import resolve
from cl.learning.strategy import Model, Strategy
from cl.models.vit import TimmBackbone
from cl.numerics import configure
from cl.seeds import Seeds

QUICK = {"epochs": 2, "batch_size": 8, "bottleneck": 4}


@cache
def tiny_backbone(depth: int = 2) -> TimmBackbone:
    """A vision transformer of 16 pixels, width 32 and random weights."""
    with Seeds("tiny").forked("network"):
        network = VisionTransformer(img_size=16, patch_size=8, embed_dim=32, depth=depth, num_heads=2, num_classes=0)
    return TimmBackbone("tiny", network, 16, (0.5,) * 3, (0.5,) * 3)


def picture(label: str, row: int) -> np.ndarray:
    """A 16-pixel picture whose pattern belongs to the label and whose noise belongs to the row."""
    pattern = np.random.default_rng(Seeds("pattern").integer("label", label)).integers(0, 256, (4, 4, 3))
    noise = np.random.default_rng(Seeds("noise").integer("row", label, row)).integers(-40, 41, (16, 16, 3))
    return np.clip(np.kron(pattern, np.ones((4, 4, 1), int)) + noise, 0, 255).astype(np.uint8)


def tiny_stream(tasks: int = 3, classes: int = 2, train: int = 6, test: int = 3) -> Stream:
    """`tasks` tasks t0, t1, ... of `classes` classes each; sample ids like `t0-a/train/00`."""
    return Stream("tiny", tuple(_task(f"t{number}", classes, train, test) for number in range(tasks)))


def _task(name: str, classes: int, train: int, test: int) -> Task:
    names = tuple(f"{name}-{'abcdefgh'[number]}" for number in range(classes))
    return Task(name, names, _shard(names, "train", range(train)), _shard(names, "test", range(100, 100 + test)))


def _shard(names: tuple[str, ...], split: str, rows: range) -> Samples:
    labels = {f"{label}/{split}/{row:03d}": label for label in names for row in rows}
    images = np.stack([picture(label, int(sample[-3:])) for sample, label in labels.items()])
    return Samples.of(labels, ArrayPixels(list(labels), images))


def run_tiny(home: Path, strategy: str, stream: Stream | None = None, seed: int = 0, **settings: Any) -> Result:
    """A run on the tiny backbone."""
    trains = {} if strategy in ("simplecil", "slda") else QUICK
    return cl.run(
        stream or tiny_stream(),
        strategy,
        backbone=tiny_backbone(),
        seed=seed,
        settings={**trains, **settings},
        home=home,
    )


def builder(home: Path, seed: int = 0) -> Builder:
    """A builder on an own store."""
    return Builder(Store(home), tiny_backbone(), configure("cpu"), seed)


def learn(strategy: type[Strategy], home: Path, stream: Stream, **settings: Any) -> tuple[Strategy, list[Model]]:
    """The strategy after the stream, and its model after each task."""
    made = strategy(resolve(strategy.Hyper, strategy.presets, [], settings), builder(home))
    models = [Model()]
    for task in stream.tasks:
        models.append(models[-1].after(task, made.learn(task, models[-1]), made.rehearsal))
    return made, models[1:]


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Equal bits."""
    return torch.equal(first, second)
