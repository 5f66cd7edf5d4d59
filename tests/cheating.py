"""Strategies and streams that cheat, each in one way, and an honest one: what the conformance suite must find."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cl.components.builder import builds
from cl.components.handles import Handle
from cl.data.samples import ArrayPixels, Samples
from cl.data.stream import Stream, Task
from cl.digests import digest_bytes
from cl.home.store import Tensors
from cl.learning.strategy import Model, Strategy
from cl.testing import tiny_stream

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
