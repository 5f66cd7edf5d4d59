"""Avalanche, both ways: its benchmarks as streams, and our streams as its benchmarks.

For avalanche-lib 0.6 (Carta et al., "Avalanche: A PyTorch Library for Deep Continual Learning", JMLR 24, 2023), which
is imported only inside functions here: that takes seconds. It chooses neither pixels nor names. A sample is called
after its row in the data set that the benchmark was cut from, so its id depends on no order, seed or position; its
image is that data set's own, without the augmentation and normalisation that benchmarks bake in.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import itertools
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from cl.data.augment import Crop
from cl.data.images import whole
from cl.data.samples import ArrayPixels, Samples
from cl.data.stream import Recipe, Stream, Task
from cl.digests import digest_bytes, digest_json
from cl.errors import BadInput
from cl.progress import track
from cl.registry import Family
from cl.seeds import Seeds
from streams.naming import task_id

SHARED = "one test set for all tasks: an image counts for the first task that has its class"
SUFFIX = 8  # hexadecimal digits of a content digest in an id


def from_avalanche(benchmark: Any, name: str = "avalanche", image_size: int | None = None) -> Stream:
    """The stream of an Avalanche benchmark: class-, domain- or task-incremental, classic or new style.

    A data attribute `sample_id`, attached before splitting, names the samples; else the row in the data set below, such
    as `cifar100/train/004217`. Classes are those of that data set, by its own names, whatever numbers the benchmark
    gives them. image_size: brings every image to this height and width; needed where they differ. A stream made from
    an object has no recipe: it trains, but no deletion of it can be verified. Raises BadInput with one line.
    """
    return Benchmark(name, **_Conversion(benchmark, image_size).content())


@dataclass(frozen=True)
class Shard:
    """One experience's data. order: ids as Avalanche's data set has its rows. names: Avalanche's label -> class."""

    samples: Samples
    order: tuple[str, ...]
    names: Mapping[int, str]


@dataclass(frozen=True)
class Benchmark(Stream):
    """A stream that remembers its experiences: (stream name, number) -> shard. Our strategies need them in Avalanche's
    loop."""

    experiences: Mapping[tuple[str, int], Shard] = field(default_factory=dict)


# An image, from the data set at the bottom of Avalanche's layers.


@dataclass(frozen=True)
class _Source:
    """A row of a data set, and the transformations that are part of the benchmark (a permutation, a rotation)."""

    data: Any
    row: int
    frozen: tuple[Any, ...] = ()

    def image(self) -> np.ndarray:
        """uint8 `(height, width, 3)`. Raises BadInput for pixels that were normalised."""
        element = _bare(self.data)[self.row]
        for groups in reversed(self.frozen):
            element = groups(element, group_name="eval")
        return _bytes_of(element[0])


def _source(data: Any, row: int) -> _Source:
    """Where row `row` of an Avalanche data set comes from: its layers are subsets and unions of others."""
    frozen: list[Any] = []
    while True:
        if hasattr(data, "_flat_data"):
            data = data._flat_data
        elif hasattr(data, "_get_idx"):
            groups = getattr(data, "_frozen_transform_groups", None)
            if groups is not None and _changes_images(groups["eval"]):
                frozen.append(groups)
            place, row = data._get_idx(row)
            data = data._datasets[place]
        elif isinstance(data, Subset):
            data, row = data.dataset, int(data.indices[row])
        else:
            return _Source(data, row, tuple(frozen))


def _changes_images(transform: Any) -> bool:
    """Whether a frozen transformation does anything to images: classic benchmarks freeze those of their labels too."""
    if transform is None or not hasattr(transform, "flat_transforms"):
        return transform is not None
    return any(one is not None for one in transform.flat_transforms(0))


def _undisturbed() -> contextlib.AbstractContextManager[None]:
    """torchvision's transformations draw even where there is nothing to choose."""
    return Seeds("avalanche").forked("frozen")


def _bare(data: Any) -> Any:
    """The data set without transformations of its own."""
    own = [name for name in ("transform", "transforms") if getattr(data, name, None) is not None]
    if not own:
        return data
    bare = copy.copy(data)
    for name in own:
        setattr(bare, name, None)
    return bare


def _bytes_of(image: Any) -> np.ndarray:
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    array = np.asarray(image)
    if isinstance(image, Tensor) and array.ndim == 3 and array.shape[0] in (1, 3):
        array = array.transpose(1, 2, 0)
    if array.dtype != np.uint8:
        low, high = float(array.min()), float(array.max())
        if low < 0 or high > 1:
            raise BadInput(
                f"images hold values from {low:.3g} to {high:.3g}; give Avalanche the data set without Normalize, "
                f"in [0, 1] or as bytes: the backbone normalises"
            )
        array = np.round(array * 255).astype(np.uint8)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise BadInput(f"an image has the shape {array.shape}; images of one or three channels are needed")
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


class _SourcePixels:
    """The images of a benchmark, read when they are asked for."""

    def __init__(self, sources: Mapping[str, _Source], image_size: int | None) -> None:
        self._sources, self._size = sources, image_size
        self._digests: dict[str, str] = {}

    def digest(self, sample: str) -> str:
        if sample not in self._digests:
            alike = [name for name, one in self._sources.items() if one.frozen == self._sources[sample].frozen]
            with _undisturbed():  # costly, hence once for many
                for name in track(alike, "images"):
                    image = self._image(name)
                    self._digests[name] = digest_bytes(f"{image.shape}".encode() + image.tobytes())
        return self._digests[sample]

    def read(self, samples: Sequence[str], crops: Sequence[Crop] | None = None) -> Tensor:
        with _undisturbed():
            images = [self._image(sample) for sample in samples]
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            sizes = " and ".join(f"{wide} x {high}" for high, wide, _ in sorted(shapes)[:2])
            raise BadInput(f"images of {sizes} in one stream; bring them to one size with image_size")
        return ArrayPixels(samples, np.stack(images)).read(samples, crops)

    def _image(self, sample: str) -> np.ndarray:
        image = self._sources[sample].image()
        if self._size is None:
            return image
        return np.asarray(whole(Image.fromarray(image), self._size))


# Names: of samples, of classes, of tasks.


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
        self._rows = {place: [_source(one, row) for row in range(len(one))] for place, one in self._sets.items()}
        with _undisturbed():  # what cannot be used is told now
            for found in self._rows.values():
                found[0].image()
        self._sources: dict[str, _Source] = {}
        self._pixels = _SourcePixels(self._sources, image_size)
        self.subjects: dict[str, str] = {}
        self.shards = {place: self._shard(place) for place in self._sets}

    def content(self) -> dict[str, Any]:
        """What a stream of it is made from: tasks, subjects, notes."""
        numbers = [number for split, number in self.shards if split == "train"]
        shared = ("test", 1) not in self.shards and len(numbers) > 1
        if not shared and len(self.shards) != 2 * len(numbers):
            raise BadInput(f"{len(numbers)} training experiences, but {len(self.shards) - len(numbers)} for testing")
        ids = self._task_ids(numbers)
        tasks = tuple(Task(ids[n], self._classes(n), self._train(n), self._test(n, shared)) for n in numbers)
        notes = (SHARED,) if shared else ()
        return {"tasks": tasks, "subjects": self.subjects, "notes": notes, "experiences": self.shards}

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

    def _task_ids(self, numbers: Sequence[int]) -> list[str]:
        ids = [task_id(self._classes(number)) for number in numbers]
        return ids if len(set(ids)) == len(ids) else [f"experience-{number}" for number in numbers]

    def _shard(self, place: tuple[str, int]) -> Shard:
        labels = [int(label) for label in self._sets[place].targets]
        names = self._class_names(place, labels)
        order = tuple(self._unused(sample, place, row) for row, sample in enumerate(self._sample_ids(place)))
        self._sources.update(zip(order, self._rows[place], strict=True))
        labelled = {sample: names[label] for sample, label in zip(order, labels, strict=True)}
        return Shard(Samples.of(labelled, self._pixels), order, names)

    def _unused(self, sample: str, place: tuple[str, int], row: int) -> str:
        """`sample`, or with a suffix where the benchmark shows the same row again: one subject, another sample."""
        altered = self._rows[place][row].frozen and not hasattr(self._sets[place], "sample_id")
        name = f"{sample}/{self._look[place]}" if altered else sample
        found = name
        for number in itertools.count(2):
            if found not in self._sources:
                break
            found = f"{name}~{number}"
        if found != sample:
            self.subjects[found] = sample
        return found

    @cached_property
    def _look(self) -> dict[tuple[str, int], str]:
        """What an experience's transformations make of its lowest row: tells apart permutations of one data set."""
        lowest = {place: min(rows, key=lambda source: source.row) for place, rows in self._rows.items() if rows}
        with _undisturbed():
            return {place: digest_bytes(source.image().tobytes())[:SUFFIX] for place, source in lowest.items()}

    def _sample_ids(self, place: tuple[str, int]) -> Iterator[str]:
        given = getattr(self._sets[place], "sample_id", None)
        if given is not None:
            yield from map(str, given)
            return
        for source in self._rows[place]:
            folder = _folder(source.data, place[0])
            if self._owners[folder] == 1:
                yield f"{folder}/{source.row:06d}"
            else:  # several data sets of one name: their rows tell nothing
                yield f"{folder}/{digest_bytes(source.image().tobytes())[: 2 * SUFFIX]}"

    @cached_property
    def _owners(self) -> Counter[str]:
        """How many data sets there are of each name."""
        found = {(id(s.data), _folder(s.data, place[0])) for place, rows in self._rows.items() for s in rows}
        return Counter(folder for _, folder in found)

    def _class_names(self, place: tuple[str, int], labels: Sequence[int]) -> dict[int, str]:
        """By the benchmark's label: the data set's own name of the class, if the two agree; else the label."""
        pairs = {(label, _own_name(source)) for label, source in zip(labels, self._rows[place], strict=True)}
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


def _own_name(source: _Source) -> str | None:
    targets, classes = getattr(source.data, "targets", None), getattr(source.data, "classes", None)
    if targets is None or len(targets) <= source.row:
        return None
    label = int(targets[source.row])
    return str(classes[label]) if classes is not None and label < len(classes) else str(label)


# Our streams as benchmarks.


class _Leaf:
    """A shard as the data set below Avalanche's layers: image float32 `(3, height, width)` in [0, 1], class number."""

    def __init__(self, samples: Samples, classes: Sequence[str]) -> None:
        self._samples, self.classes = samples, list(classes)
        self.targets: list[int] = samples.targets(classes).tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self._samples.images([row])[0].float() / 255, self.targets[row]


def to_avalanche(stream: Stream) -> Any:
    """The stream as an Avalanche benchmark with a training and a test experience for each task.

    An image is a float32 tensor `(3, height, width)` in [0, 1], a class its place in `stream.classes`; the task label
    is 0 everywhere, as class-incremental strategies expect. Rows keep the order of the ids, which are the data
    attribute `sample_id`. Augmentation is left to Avalanche. Raises BadInput for a task without test images.
    """
    _need_avalanche()
    from avalanche.benchmarks import CLScenario, EagerCLStream, with_classes_timeline, with_task_labels

    empty = next((task.id for task in stream.tasks if not len(task.test)), None)
    if empty is not None:
        raise BadInput(f"task '{empty}' of stream '{stream.name}' has no test images; Avalanche needs some")
    shards = {"train": [task.train.plain for task in stream.tasks], "test": [task.test for task in stream.tasks]}
    made = [
        EagerCLStream(split, [_experience(one, stream.classes) for one in samples]) for split, samples in shards.items()
    ]
    benchmark = with_task_labels(with_classes_timeline(CLScenario(made)))
    firsts = [name for task in stream.tasks for name in task.classes]
    new, start = [], 0
    for task in stream.tasks:
        start, before = start + len(task.classes), set(firsts[:start])
        new.append(len(set(task.classes) - before))
    # What iCaRL asks the benchmark for; deprecated benchmarks have it, new ones do not.
    benchmark.n_classes, benchmark.n_classes_per_exp = len(stream.classes), new
    benchmark.classes_order = list(range(len(stream.classes)))
    for experience in (*benchmark.train_stream, *benchmark.test_stream):
        experience.benchmark = benchmark
    return benchmark


def _experience(samples: Samples, classes: Sequence[str]) -> Any:
    from avalanche.benchmarks import DatasetExperience
    from avalanche.benchmarks.utils import DataAttribute, _make_taskaware_classification_dataset

    class Experience(DatasetExperience):  # type: ignore[misc]
        """An experience whose data set can be replaced, as BiC does."""

        @property
        def dataset(self) -> Any:
            return self._dataset

        @dataset.setter
        def dataset(self, value: Any) -> None:
            self._dataset = value

    # The public `as_classification_dataset` has no task sets, which LwF needs.
    data = _make_taskaware_classification_dataset(_Leaf(samples, classes), task_labels=0)
    names = DataAttribute(list(samples.ids), "sample_id", use_in_getitem=False)
    return Experience(dataset=data.update_data_attribute("sample_id", names))


# Classic benchmarks by name: `avalanche:SplitMNIST`.

CLASSIC = {
    "SplitMNIST": "MNIST in n_experiences tasks of new digits",
    "SplitFMNIST": "Fashion-MNIST in n_experiences tasks of new classes",
    "SplitCIFAR10": "CIFAR-10 in n_experiences tasks of new classes",
    "SplitCIFAR100": "CIFAR-100 in n_experiences tasks of new classes",
    "SplitCIFAR110": "CIFAR-10, then CIFAR-100 in further tasks",
    "SplitTinyImageNet": "Tiny ImageNet in tasks of new classes",
    "SplitImageNet": "ImageNet in tasks of new classes",
    "SplitCUB200": "CUB-200 birds in tasks of new classes",
    "SplitOmniglot": "Omniglot in n_experiences tasks of new characters",
    "SplitInaturalist": "iNaturalist, a super-category a task",
    "PermutedMNIST": "MNIST again and again, its pixels permuted anew in each task",
    "RotatedMNIST": "MNIST again and again, at another angle in each task",
    "CORe50": "CORe50 objects in new instances, classes or both",
    "CLEAR": "CLEAR's photographs, a span of years a task",
    "OpenLORIS": "OpenLORIS objects under a factor that gets harder",
    "CLStream51": "Stream-51 videos",
}
OURS = ("data", "image_size")


class _Classic:
    """The factory of one classic benchmark. Its arguments are Avalanche's own, and `image_size`."""

    def __init__(self, name: str, about: str) -> None:
        self.name, self.__doc__ = name, about

    def __call__(self, data: str | None = None, image_size: int | None = None, **arguments: Any) -> Stream:
        if data is None:
            raise BadInput(f"stream 'avalanche:{self.name}' needs --data DIR, the folder that holds its files")
        benchmark = self._benchmark(data, arguments)
        content = _Conversion(benchmark, image_size).content()
        shards = [shard.digest for task in content["tasks"] for shard in (task.train, task.test)]
        given = arguments if image_size is None else {**arguments, "image_size": image_size}
        recipe = Recipe(f"avalanche:{self.name}", given, digest_json(shards), {"data": os.path.abspath(data)})
        return Benchmark(f"avalanche:{self.name}", recipe=recipe, **content)

    @property
    def __signature__(self) -> inspect.Signature:
        """Avalanche's arguments beside those that are ours to give."""
        own = inspect.signature(_Classic.__call__, eval_str=True).parameters
        theirs = inspect.signature(self._function()).parameters.values()
        kept = [_typed(one) for one in theirs if not one.name.endswith("_transform") and "_root" not in one.name]
        return inspect.Signature([*kept, *(own[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in OURS)])

    def _function(self) -> Callable[..., Any]:
        _need_avalanche()
        from avalanche.benchmarks import classic

        found: Callable[..., Any] = getattr(classic, self.name)
        return found

    def _benchmark(self, data: str, arguments: Mapping[str, Any]) -> Any:
        """Avalanche's benchmark. What it draws comes from here, even where its own seed is left out."""
        function = self._function()
        roots = [name for name in inspect.signature(function).parameters if name.startswith("dataset_root")]
        with Seeds(f"avalanche|{self.name}").forked("benchmark"), contextlib.redirect_stdout(io.StringIO()):
            try:
                return function(**arguments, **dict.fromkeys(roots, Path(data)))
            except Exception as error:  # a library, its mirrors and foreign files fail in many ways
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
                raise BadInput(f"avalanche:{self.name} cannot be made from {data}: {reason}") from error


def _typed(parameter: inspect.Parameter) -> inspect.Parameter:
    """A keyword with a type, its default's where Avalanche names none."""
    kind: Any = parameter.annotation
    if kind is parameter.empty:
        kind = Any if parameter.default in (None, parameter.empty) else type(parameter.default)
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind)


classic = Family({name: _Classic(name, f"{about} (Avalanche; --data)") for name, about in CLASSIC.items()})


def _need_avalanche() -> None:
    """Import Avalanche, quietly. Raises BadInput where it is not installed."""
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"avalanche\b")
    try:
        import avalanche  # noqa: F401
    except ImportError as error:
        raise BadInput(f"Avalanche cannot be imported ({error}); pip install 'palimpsest-cl[avalanche]'") from error
