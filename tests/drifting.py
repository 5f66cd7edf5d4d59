"""A tiny stream that goes on at test time, for tests of test-time adaptation: whole runs take a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cl.seeds import Seeds
from cl.stream import ArrayPixels, Recipe, Samples, Segment, Stream, Task
from cl.testing import tiny_stream

CONDITIONS = ("noise", "dark", "blur")


def drifting(rounds: int = 1, batches: int = 2, size: int = 4, conditions: Sequence[str] = CONDITIONS) -> Stream:
    """The one-task tiny stream as source split, and `rounds` times a segment of each condition on new images."""
    source = tiny_stream(1, 12, 6)
    segments = [
        segment(source.tasks[0], f"r{number:02d}/{name}/5", name, batches, size)
        for number in range(rounds)
        for name in conditions
    ]
    arguments = {"rounds": rounds, "batches": batches, "size": size, "conditions": list(conditions)}
    subjects = {s: f"person-{row % 4}" for row, s in enumerate(sorted(x for seg in segments for x in seg.samples.ids))}
    return Stream(
        "drifting-tiny",
        source.tasks,
        Recipe("tests.drifting:drifting", arguments),
        {**source.subjects, **subjects},
        segments=tuple(segments),
    )


def segment(task: Task, name: str, domain: str, batches: int = 2, size: int = 4) -> Segment:
    """Corrupted copies of the task's test images, dealt out to batches."""
    ids = [f"{name}/{row:03d}" for row in range(batches * size)]
    clean = task.test.images().permute(0, 2, 3, 1).numpy()
    images = np.stack([corrupted(clean[row % len(clean)], domain, sample) for row, sample in enumerate(ids)])
    labels = {sample: task.test.labels[row % len(clean)] for row, sample in enumerate(ids)}
    pixels = ArrayPixels(ids, images)
    chunks = {f"{name}/b{n:04d}": ids[n::batches] for n in range(batches)}
    return Segment(
        name, domain, {key: Samples.of({s: labels[s] for s in chunk}, pixels) for key, chunk in chunks.items()}
    )


def corrupted(image: np.ndarray, domain: str, sample: str) -> np.ndarray:
    draws = np.random.default_rng(Seeds("drifting").integer(domain, sample))
    if domain == "noise":
        image = image + draws.normal(0, 60, image.shape)
    elif domain == "dark":
        image = 0.3 * image
    else:
        image = (image + np.roll(image, 2, 0) + np.roll(image, 2, 1) + np.roll(image, -2, 0)) / 4
    return np.asarray(image).clip(0, 255).astype(np.uint8)


FAST: Mapping[str, Any] = {"source_epochs": 2, "source_batch_size": 8}
