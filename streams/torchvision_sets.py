"""Public image sets in torchvision's own format on disk, split into tasks.

Each takes `data`, torchvision's root folder; what is not there is downloaded by torchvision.

MNIST: LeCun, Cortes, Burges 1998. Fashion-MNIST: Xiao, Rasul, Vollgraf, arXiv 1708.07747. CIFAR: Krizhevsky 2009.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cl import ArrayPixels, Recipe, Samples, Stream, Task
from cl.errors import BadInput, shown
from cl.seeds import class_order
from streams.batches import images_of, read_batch, read_idx
from streams.naming import ordinal
from streams.subjects import NOTE, synthetic_subjects

PEOPLE = 50


def split_mnist(data: str | None = None) -> Stream:
    """MNIST from --data, 60,000 + 10,000 scans, 5 tasks of 2 digits, 28 pixels padded to 32."""
    return _stream("mnist", "MNIST", _mnist, data, per_task=2)


def split_fashion_mnist(data: str | None = None) -> Stream:
    """Fashion-MNIST from --data, 60,000 + 10,000 articles, 5 tasks of 2, 28 pixels padded to 32."""
    return _stream("fashion-mnist", "FashionMNIST", _mnist, data, per_task=2)


def split_cifar10(data: str | None = None) -> Stream:
    """CIFAR-10 from --data, 50,000 + 10,000 photographs, 5 tasks of 2 classes."""
    return _stream("cifar10", "CIFAR10", _cifar10, data, per_task=2)


def split_cifar100(data: str | None = None) -> Stream:
    """CIFAR-100 from --data, 50,000 + 10,000 photographs, 10 tasks of 10 classes in the usual order of seed 1993."""
    return _stream("cifar100", "CIFAR100", _cifar100, data, per_task=10, order_seed=1993)


@dataclass(frozen=True)
class _Folder:
    """The files of one set."""

    root: Path

    def read(self, name: str, parse: Callable[[bytes], Any]) -> Any:
        """One file, parsed. Raises BadInput naming it."""
        path = self.root / name
        try:
            return parse(path.read_bytes())
        except OSError as error:
            raise BadInput(f"{shown(path)} cannot be read ({error.strerror}); get it anew") from error
        except BadInput as error:
            raise BadInput(f"{shown(path)} {error}") from error


@dataclass(frozen=True)
class _Split:
    images: np.ndarray  # uint8 (n, height, width[, 3])
    labels: Sequence[int]


@dataclass(frozen=True)
class _Set:
    names: Sequence[str]
    train: _Split
    test: _Split


def _stream(
    source: str,
    kind: str,
    read: Callable[[_Folder, Any], _Set],
    data: str | None,
    per_task: int,
    order_seed: int | None = None,
) -> Stream:
    from torchvision import datasets

    name = f"split-{source}"
    if data is None:
        raise BadInput(f"stream '{name}' needs --data DIR, the folder that holds {kind} in torchvision's format")
    about = getattr(datasets, kind)
    folder = _Folder(_present(Path(data), kind, about))
    found = read(folder, about)
    order = class_order(len(found.names), order_seed) if order_seed is not None else range(len(found.names))
    names = [found.names[place] for place in order]
    train, test = _shards(source, "train", found.train, found.names), _shards(source, "test", found.test, found.names)
    groups = [names[start : start + per_task] for start in range(0, len(names), per_task)]
    tasks = tuple(
        Task(ordinal(place), tuple(group), _of(train, group), _of(test, group)) for place, group in enumerate(groups)
    )
    ids = (*train.ids, *test.ids)
    recipe = Recipe(name, place={"data": os.path.abspath(data)})
    return Stream(name, tasks, recipe, synthetic_subjects(ids, PEOPLE, source), notes=(NOTE,))


def _shards(source: str, split: str, found: _Split, names: Sequence[str]) -> Samples:
    if len(found.labels) != len(found.images):
        raise BadInput(f"{source}: {len(found.images)} {split} images, but {len(found.labels)} labels; get it anew")
    ids = [f"{source}/{split}/{row:06d}" for row in range(len(found.images))]
    wrong = [label for label in found.labels if not 0 <= label < len(names)]
    if wrong:
        raise BadInput(f"{source}: label {wrong[0]} in {split}, but there are {len(names)} classes; get it anew")
    labels = {sample: names[label] for sample, label in zip(ids, found.labels, strict=True)}
    return Samples.of(labels, ArrayPixels(ids, found.images))


def _of(shard: Samples, classes: Sequence[str]) -> Samples:
    wanted = set(classes)
    return shard.keep([sample for sample, label in zip(shard.ids, shard.labels, strict=True) if label in wanted])


# Where the files are, and how they are read.


def _present(root: Path, kind: str, about: Any) -> Path:
    """The set's own folder under torchvision's `root`, downloaded if it is not there."""
    place: Path
    if hasattr(about, "base_folder"):
        place, names = root / about.base_folder, [name for name, _ in (*about.train_list, *about.test_list)]
    else:
        place, names = root / kind / "raw", [Path(url).stem for url, _ in about.resources]
    if all((place / name).exists() for name in names):
        return place
    try:
        about(root, download=True)
    except Exception as error:  # mirrors fail in many ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1][:100]
        raise BadInput(
            f"{kind} is not in {shown(root)} and cannot be downloaded ({reason}); put its files into {shown(place)}"
        ) from error
    return place


def _mnist(folder: _Folder, about: Any) -> _Set:
    return _Set(about.classes, _idx_split(folder, "train"), _idx_split(folder, "t10k"))


def _idx_split(folder: _Folder, prefix: str) -> _Split:
    images = folder.read(f"{prefix}-images-idx3-ubyte", lambda content: _shaped(read_idx(content), 28, 28))
    labels = folder.read(f"{prefix}-labels-idx1-ubyte", lambda content: _shaped(read_idx(content)))
    return _Split(np.pad(images, ((0, 0), (2, 2), (2, 2))), labels.tolist())


def _shaped(array: np.ndarray, *shape: int) -> np.ndarray:
    """The array, if it holds things of this shape."""
    if array.shape[1:] != shape or not array.ndim:
        wanted = " x ".join(["n", *map(str, shape)])
        raise BadInput(f"holds an array of shape {array.shape}, where {wanted} belongs; get it anew")
    return array


def _cifar10(folder: _Folder, about: Any) -> _Set:
    batches = [_batch_split(folder, f"data_batch_{number}", "labels") for number in range(1, 6)]
    train = _Split(
        np.concatenate([batch.images for batch in batches]), [label for batch in batches for label in batch.labels]
    )
    return _Set(_names(folder, about), train, _batch_split(folder, "test_batch", "labels"))


def _cifar100(folder: _Folder, about: Any) -> _Set:
    train, test = (_batch_split(folder, name, "fine_labels") for name in ("train", "test"))
    return _Set(_names(folder, about), train, test)


def _batch_split(folder: _Folder, name: str, labels: str) -> _Split:
    def parse(content: bytes) -> _Split:
        batch = read_batch(content)
        return _Split(images_of(batch), _list_of(batch, labels, int))

    split: _Split = folder.read(name, parse)
    return split


def _names(folder: _Folder, about: Any) -> list[str]:
    def parse(content: bytes) -> list[str]:
        names = _list_of(read_batch(content), about.meta["key"], str)
        if len(set(names)) != len(names):
            raise BadInput("names a class twice; get it anew")
        return names

    found: list[str] = folder.read(about.meta["filename"], parse)
    return found


def _list_of(batch: dict[str, Any], key: str, kind: type) -> list[Any]:
    found = batch.get(key)
    if not isinstance(found, list) or not all(type(value) is kind for value in found):
        raise BadInput(f"has no list '{key}' of {kind.__name__}; get it anew")
    return found
