"""A replayable stream on which SEMA's decisions hang by a sample or by a task: see `test_sema_deletion`."""

from __future__ import annotations

import numpy as np

from cl.data.samples import ArrayPixels, Samples
from cl.data.stream import Recipe, Stream, Task

STREAM = "tests.newness:stream"
DARK, BRIGHT = 60, 190


def stream(levels: str = "dark,bright,bright", odd: bool = False, train: int = 16) -> Stream:
    """A task for each level, of two classes that differ in their stripes; `odd`: t1 has one white image besides."""
    ids, images, label_of = [], [], {}
    for number, level in enumerate(levels.split(",")):
        for label in "ab":
            for row in range(train + 3):
                ids.append(f"t{number}/{label}/{row:02d}")
                label_of[ids[-1]] = f"t{number}-{label}"
                images.append(_striped(BRIGHT if level == "bright" else DARK, label, number, row))
    if odd:
        ids.append("t1/a/odd")
        label_of[ids[-1]] = "t1-a"
        images.append(np.full((32, 32), 255, np.uint8))
    pixels = ArrayPixels(ids, np.stack(images))
    tasks = tuple(_task(number, label_of, train, pixels) for number in range(len(levels.split(","))))
    return Stream("newness", tasks, Recipe(STREAM, {"levels": levels, "odd": odd, "train": train}))


def _striped(level: int, label: str, number: int, row: int) -> np.ndarray:
    noise = np.random.default_rng([number, ord(label), row]).integers(-30, 31, (32, 32))
    stripes = 20 * (np.arange(32) // (4 if label == "a" else 2) % 2)
    return (level + stripes[None, :] + noise).clip(0, 255).astype(np.uint8)


def _task(number: int, label_of: dict[str, str], train: int, pixels: ArrayPixels) -> Task:
    mine = {sample: label for sample, label in label_of.items() if sample.startswith(f"t{number}/")}
    tests = {sample: label for sample, label in mine.items() if sample[-2:].isdigit() and int(sample[-2:]) >= train}
    shards = [Samples.of(part, pixels) for part in ({s: v for s, v in mine.items() if s not in tests}, tests)]
    return Task(f"t{number}", (f"t{number}-a", f"t{number}-b"), *shards)
