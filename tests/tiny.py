"""Runs and learners on the tiny stream and the tiny backbone of `cl.testing`: a second at most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import cl
from cl import registry
from cl.components.builder import Builder
from cl.data.stream import Stream
from cl.home.results import Result
from cl.home.store import Store
from cl.learning.hyper import resolve
from cl.learning.strategy import Model, Strategy
from cl.numerics import configure
from cl.testing import tiny_backbone, tiny_stream

BACKBONE = "cl.testing:tiny_backbone"
QUICK = {"epochs": 2, "batch_size": 8, "bottleneck": 4}
AT_TEST_TIME = {"source_epochs": 1, "source_batch_size": 8, "passes": 2, "high_rank": 4}


def fast(strategy: str | type[Strategy]) -> dict[str, Any]:
    """The settings of QUICK and AT_TEST_TIME that `strategy` has."""
    method = registry.strategies.get(strategy) if isinstance(strategy, str) else strategy
    known = method.Hyper.__dataclass_fields__
    return {name: value for name, value in {**QUICK, **AT_TEST_TIME}.items() if name in known}


def run_tiny(
    home: Path,
    strategy: str | type[Strategy] = "ease",
    stream: Stream | None = None,
    seed: int = 0,
    user: str | None = None,
    threads: int = 1,
    backbone: str = BACKBONE,
    **settings: Any,
) -> Result:
    """A run at fast settings, by names, so that it can be made again."""
    return cl.run(
        stream or tiny_stream(),
        strategy,
        backbone=backbone,
        seed=seed,
        settings={**fast(strategy), **settings},
        home=home,
        device="cpu",
        threads=threads,
        user=user,
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
