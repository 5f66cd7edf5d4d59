"""The conformance suite finds what it is there to find: strategies that cheat, each in one way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pytest import Pytester

from cl.components.builder import builds
from cl.components.handles import Handle
from cl.data.samples import ArrayPixels, Samples
from cl.data.stream import Stream, Task
from cl.digests import digest_bytes
from cl.home.store import Tensors
from cl.learning.strategy import Model, Strategy
from cl.testing import tiny_stream

pytest_plugins = ["pytester"]
last_seen: list[torch.Tensor] = []


@builds("prototype")
def plain_mean(samples: Samples) -> Tensors:
    return {"mean": samples.images().float().mean((0, 2, 3))}


@builds("prototype")
def remembering_mean(samples: Samples) -> Tensors:
    mean = samples.images().float().mean((0, 2, 3))
    last_seen.append(mean)
    return {"mean": mean + last_seen[-2 if len(last_seen) > 1 else -1]}


@builds("prototype")
def drifting_mean(samples: Samples) -> Tensors:
    return {"mean": samples.images().float().mean((0, 2, 3)) + torch.rand(3)}


@builds("cache")
def flat_scores(samples: Samples, means: list[Tensors], *, columns: int) -> Tensors:
    return {"scores": samples.images().float().mean((1, 2, 3))[:, None].repeat(1, columns)}


@builds("cache")
def peeking_scores(samples: Samples, means: list[Tensors], *, columns: int) -> Tensors:
    return {"scores": torch.tensor([[float(len(label))] * columns for label in samples.labels])}


@builds("cache")
def spoiling_scores(samples: Samples, means: list[Tensors], *, columns: int) -> Tensors:
    means[0]["mean"].add_(1)
    return {"scores": torch.zeros(len(samples), columns)}


class Honest(Strategy):
    """Nothing wrong with it but its accuracy."""

    mean: Any = staticmethod(plain_mean)
    score: Any = staticmethod(flat_scores)

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        return {f"{task.id}/mean": self.component(f"{task.id}/mean", self.mean, task.train)}

    def scores(self, model: Model, samples: Samples) -> Handle:
        return self.component("scores", self.score, samples, list(model.entries.values()), columns=len(model.classes))


class Remembering(Honest):
    mean = staticmethod(remembering_mean)


class Drifting(Honest):
    mean = staticmethod(drifting_mean)


class Peeking(Honest):
    score = staticmethod(peeking_scores)


class Spoiling(Honest):
    score = staticmethod(spoiling_scores)

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        if model.tasks:
            self.scores(model, task.test)
        return super().learn(task, model)


def outcomes(pytester: Pytester, base: str, body: str, only: str = "test") -> set[str]:
    """The names of the suite's tests, of those whose name holds `only`, that fail for `body`."""
    source = f"from cl.testing import {base}\nfrom tests.cl import test_testing\nclass TestIt({base}):\n    {body}\n"
    pytester.makepyfile(source)
    result = pytester.inline_run("-p", "no:cacheprovider", "-k", only)
    return {report.nodeid.rpartition("::")[2] for report in result.getfailures()}


@pytest.mark.parametrize(
    ("strategy", "found_by"),
    [
        ("Honest", None),
        ("Remembering", "test_nothing_is_read_that_is_not_declared"),
        ("Drifting", "test_no_global_generator_is_moved"),
        ("Peeking", "test_a_visitors_images_get_the_same_scores_and_leave_no_trace"),
        ("Spoiling", "test_a_learnt_entry_never_changes"),
    ],
)
def test_a_cheating_strategy_is_found(pytester: Pytester, strategy: str, found_by: str | None) -> None:
    failed = outcomes(pytester, "StrategyConformance", f"strategy = test_testing.{strategy}", found_by or "test")
    assert found_by in failed if found_by else failed == set()


def unsteady() -> Stream:
    """Task names that depend on the process."""
    stream = tiny_stream()
    return Stream(f"tiny-{id(stream)}", stream.tasks, stream.recipe)


class BlindPixels(ArrayPixels):
    def digest(self, sample: str) -> str:
        return digest_bytes(b"always the same")


def blind() -> Stream:
    """Pixels that are not in the digest."""
    images = np.arange(4 * 32 * 32, dtype=np.uint32).reshape(4, 32, 32).astype(np.uint8)
    images[2:] = 255 - images[2:]
    pixels = BlindPixels(["a", "b", "c", "d"], images)
    task = Task("one", ("x",), Samples.of({"a": "x", "b": "x"}, pixels), Samples.of({"c": "x", "d": "x"}, pixels))
    return Stream("blind", (task,))


@pytest.mark.parametrize(
    ("factory", "found_by"),
    [("unsteady", "test_it_resolves_to_the_same_stream_twice"), ("blind", "test_another_process_replays_its_recipe")],
)
def test_a_faulty_stream_is_found(pytester: Pytester, factory: str, found_by: str) -> None:
    body = f"stream = staticmethod(test_testing.{factory})"
    assert found_by in outcomes(pytester, "StreamConformance", body, found_by)
