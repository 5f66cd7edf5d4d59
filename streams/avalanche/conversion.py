"""A benchmark of Avalanche's as a stream: names of samples, classes and tasks."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cl import Samples, Stream, Task
from cl.digests import digest_bytes
from cl.errors import BadInput
from streams.avalanche.pixels import BenchmarkPixels, ImageOrigin, origin_of, undisturbed
from streams.naming import ordinal

SHARED = "one test set for all tasks: an image counts for the first task that has its class"
SUFFIX = 8  # hexadecimal digits of a content digest in an id


def from_avalanche(benchmark: Any, name: str = "avalanche", image_size: int | None = None) -> BenchmarkStream:
    """The stream of an Avalanche benchmark: class-, domain- or task-incremental, classic or new style.

    A data attribute `sample_id`, attached before splitting, names the samples; else the row in the data set below, such
    as `cifar100/train/004217`. Classes are those of that data set, by its own names, whatever numbers the benchmark
    gives them. image_size: brings every image to this height and width; needed where they differ. A stream made from
    an object has no recipe: it trains, but no deletion of it can be verified. Raises BadInput with one line.
    """
    return _Conversion(benchmark, image_size).stream(name)


@dataclass(frozen=True)
class ExperienceShard:
    """One experience's data. order: ids as Avalanche's data set has its rows. names: Avalanche's label -> class."""

    samples: Samples
    order: tuple[str, ...]
    names: Mapping[int, str]


@dataclass(frozen=True)
class BenchmarkStream(Stream):
    """A stream that remembers its experiences: (stream name, number) -> shard. Our strategies need them in Avalanche's
    loop."""

    experiences: Mapping[tuple[str, int], ExperienceShard] = field(default_factory=dict)


class _Conversion:
    """A benchmark's streams as shards, by (stream name, number of the experience)."""

    def __init__(self, benchmark: Any, image_size: int | None) -> None:
        self._sets = {
            (split, number): experience.dataset
            for split in ("train", "test")
            for number, experience in enumerate(getattr(benchmark, f"{split}_stream"))
        }
        if not any(split == "train" for split, _ in self._sets):
            raise BadInput("the benchmark has no training experience")
        self._rows = {place: [origin_of(one, row) for row in range(len(one))] for place, one in self._sets.items()}
        with undisturbed():  # what cannot be used is told now
            for origins in self._rows.values():
                origins[0].image()
        named: dict[str, ImageOrigin] = {}
        orders: dict[tuple[str, int], tuple[str, ...]] = {}
        self.subjects: dict[str, str] = {}
        for place, origins in self._rows.items():
            orders[place] = tuple(self._unused(name, place, row, named) for row, name in enumerate(self._ids(place)))
            named.update(zip(orders[place], origins, strict=True))
        pixels = BenchmarkPixels(named, image_size)
        self.shards = {place: self._shard(place, order, pixels) for place, order in orders.items()}

    def stream(self, name: str) -> BenchmarkStream:
        """The stream called `name`, without a recipe."""
        numbers = [number for split, number in self.shards if split == "train"]
        shared = ("test", 1) not in self.shards and len(numbers) > 1
        if not shared and len(self.shards) != 2 * len(numbers):
            raise BadInput(f"{len(numbers)} training experiences, but {len(self.shards) - len(numbers)} for testing")
        tasks = tuple(Task(ordinal(n), self._classes(n), self._train(n), self._test(n, shared)) for n in numbers)
        notes = (SHARED,) if shared else ()
        return BenchmarkStream(name, tasks, subjects=self.subjects, notes=notes, experiences=self.shards)

    def _train(self, number: int) -> Samples:
        return self.shards["train", number].samples

    def _test(self, number: int, shared: bool) -> Samples:
        if not shared:
            return self.shards["test", number].samples
        before = {name for earlier in range(number) for name in self._classes(earlier)}
        mine = set(self._classes(number)) - before
        whole_set = self.shards["test", 0].samples
        return whole_set.keep([s for s, label in zip(whole_set.ids, whole_set.labels, strict=True) if label in mine])

    def _classes(self, number: int) -> tuple[str, ...]:
        names = self.shards["train", number].names
        return tuple(names[label] for label in sorted(names))

    def _shard(self, place: tuple[str, int], order: tuple[str, ...], pixels: BenchmarkPixels) -> ExperienceShard:
        labels = [int(label) for label in self._sets[place].targets]
        names = self._class_names(place, labels)
        labelled = {sample: names[label] for sample, label in zip(order, labels, strict=True)}
        return ExperienceShard(Samples.of(labelled, pixels), order, names)

    def _unused(self, sample: str, place: tuple[str, int], row: int, taken: Collection[str]) -> str:
        """`sample`, or with a suffix where the benchmark shows the same row again: one subject, another sample."""
        altered = self._rows[place][row].frozen and not hasattr(self._sets[place], "sample_id")
        name = f"{sample}/{self._look[place]}" if altered else sample
        suffixed = itertools.chain([name], (f"{name}~{number}" for number in itertools.count(2)))
        unused = next(one for one in suffixed if one not in taken)
        if unused != sample:
            self.subjects[unused] = sample
        return unused

    @cached_property
    def _look(self) -> dict[tuple[str, int], str]:
        """What an experience's transformations make of its lowest row: tells apart permutations of one data set."""
        lowest = {place: min(rows, key=lambda origin: origin.row) for place, rows in self._rows.items() if rows}
        with undisturbed():
            return {place: digest_bytes(origin.image().tobytes())[:SUFFIX] for place, origin in lowest.items()}

    def _ids(self, place: tuple[str, int]) -> Iterator[str]:
        given = getattr(self._sets[place], "sample_id", None)
        if given is not None:
            yield from map(str, given)
            return
        for origin in self._rows[place]:
            folder = _folder(origin.data, place[0])
            if self._owners[folder] == 1:
                yield f"{folder}/{origin.row:06d}"
            else:  # several data sets of one name: their rows tell nothing
                yield f"{folder}/{digest_bytes(origin.image().tobytes())[: 2 * SUFFIX]}"

    @cached_property
    def _owners(self) -> Counter[str]:
        """How many data sets there are of each name."""
        found = {(id(s.data), _folder(s.data, place[0])) for place, rows in self._rows.items() for s in rows}
        return Counter(folder for _, folder in found)

    def _class_names(self, place: tuple[str, int], labels: Sequence[int]) -> dict[int, str]:
        """By the benchmark's label: the data set's own name of the class, if the two agree; else the label."""
        pairs = {(label, _own_name(origin)) for label, origin in zip(labels, self._rows[place], strict=True)}
        names = dict(pairs)
        if None in names.values() or not len(pairs) == len(names) == len(set(names.values())):
            return {label: self._by_number(place, label) for label in names}
        return {label: str(name) for label, name in names.items()}

    def _by_number(self, place: tuple[str, int], label: int) -> str:
        """Under several task labels, equal numbers are different classes: each task has its own head."""
        if len(self._task_labels) < 2:
            return str(label)
        own = next(iter({int(one) for one in self._sets[place].targets_task_labels}))
        return f"{own}/{label}"

    @cached_property
    def _task_labels(self) -> set[int]:
        found = (getattr(one, "targets_task_labels", ()) for one in self._sets.values())
        return {int(label) for labels in found for label in set(labels)}


def _folder(data: Any, split: str) -> str:
    """Name and part of a data set, such as `cifar100/train`."""
    kind = type(data).__name__.removeprefix("Tensor") or "Tensor"
    own = getattr(data, "train", None)
    part = {True: "train", False: "test"}.get(own, split) if isinstance(own, bool) else getattr(data, "split", split)
    return f"{kind.lower()}/{part if isinstance(part, str) else split}"


def _own_name(origin: ImageOrigin) -> str | None:
    targets, classes = getattr(origin.data, "targets", None), getattr(origin.data, "classes", None)
    if targets is None or len(targets) <= origin.row:
        return None
    label = int(targets[origin.row])
    return str(classes[label]) if classes is not None and label < len(classes) else str(label)
