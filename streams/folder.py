"""Your own images: class-incremental streams described by a TOML file (`docs/streams.md` has the contract)."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cl import Policy, Recipe, Samples, Stream, Task
from cl.data.augment import crop_flip
from cl.data.images import FilePixels
from cl.data.names import composed, normalised
from cl.data.stream import Fault
from cl.errors import BadInput, UnknownName, shown
from cl.home.files import Files
from cl.seeds import class_order
from cl.tables import Table, check_table
from streams.naming import ordinal

SPLITS = ("train", "test")
MEND = "make data/train/CLASS and data/test/CLASS, or list the images in a CSV file (samples = ...)"
NEEDED, OPTIONAL = ("sample", "class", "split"), ("subject", "labels")

Name = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
Count = Annotated[int, Field(ge=1)]
# A name that no path, table or command line takes for something else.
StreamName = Annotated[str, Field(pattern=r"^[^\x00-\x1f/:]+$", max_length=100)]
Share = Annotated[float, Field(gt=0, le=1)]


class Access(Table):
    """Who may read what: the `[access]` table."""

    policy: Literal["any", "all"] = "any"
    users: dict[Name, list[Name]] = {}
    capacity: Count | None = None


class NamedTask(Table):
    """One task of a stream that names its tasks."""

    name: Name
    classes: list[Name]


class ClassIncremental(Table):
    """What a TOML file of kind `class-incremental` holds."""

    kind: Literal["class-incremental"]
    data: Name
    name: StreamName | None = None
    tasks: list[Annotated[int, Field(ge=0)]] | list[NamedTask] | None = None
    first: Count | None = None
    next: Count | None = None
    classes: list[str] | None = None
    class_order_seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    image_size: Annotated[int, Field(ge=1, le=4096)]
    augment: Literal["none", "crop-flip"] = "none"
    augment_scale: Annotated[list[Share], Field(min_length=2, max_length=2)] | None = None
    samples: Name | None = None
    access: Access | None = None

    @model_validator(mode="after")
    def _consistent(self) -> ClassIncremental:
        if (self.tasks is None) == (self.first is None) or (self.first is None) != (self.next is None):
            raise ValueError("say how many classes each task has: tasks = [...], or first = ... and next = ...")
        if self.tasks is not None and not any(self.sizes):
            raise ValueError("tasks is empty; give the number of classes of each task")
        if self.named and (self.classes is not None or self.class_order_seed is not None):
            raise ValueError("tasks name their classes already; leave classes and class_order_seed out")
        twice = sorted({task.name for task in self.named if [one.name for one in self.named].count(task.name) > 1})
        if twice:
            raise ValueError(f"two tasks are called '{twice[0]}'; give each a name of its own")
        if self.classes is not None and self.class_order_seed is not None:
            raise ValueError("classes and class_order_seed both give an order; keep one of them")
        if self.access is not None and self.samples is None:
            raise ValueError("access needs labels: list the images in a CSV file with a column of them (samples = ...)")
        if self.augment_scale is not None and self.augment == "none":
            raise ValueError('augment_scale needs augment = "crop-flip"')
        if self.augment_scale is not None and self.augment_scale[0] > self.augment_scale[1]:
            raise ValueError("augment_scale is [smallest, largest] share of the area; the first is the larger one")
        return self

    @property
    def named(self) -> list[NamedTask]:
        """The tasks, where the file names them."""
        return [task for task in self.tasks or () if isinstance(task, NamedTask)]

    @property
    def sizes(self) -> list[int]:
        """How many classes each task was declared to have; none with `first` and `next`."""
        return [len(task.classes) if isinstance(task, NamedTask) else task for task in self.tasks or ()]

    @property
    def declared(self) -> dict[str, Any]:
        """What stays true while tasks are appended, and says nothing of what the images hold: part of a run's name."""
        kept = {"kind", "image_size", "augment", "augment_scale", "class_order_seed", "first", "next"}
        return self.model_dump(include=kept, exclude_none=True)

    @property
    def granted(self) -> Policy:
        """The declared policy; without one nobody has a view."""
        told = self.access or Access()
        return Policy(told.policy, {user: tuple(sorted(set(labels))) for user, labels in told.users.items()})

    @property
    def augmentation(self) -> str:
        """The name of the training augmentation; 0.05 to 1 is what the released codes of the field crop."""
        low, high = self.augment_scale or (0.05, 1.0)
        return crop_flip((low, high)) if self.augment == "crop-flip" else "none"


@dataclass(frozen=True)
class ImageRow:
    """One image: where it lies, and what is said about it."""

    sample: str
    path: Path
    label: str
    split: str
    subject: str = ""
    labels: tuple[str, ...] = ()
    fault: Fault | None = None


def _unusable(what: str, where: str = "", labels: tuple[str, ...] = (), label: str = "") -> ImageRow:
    """A row that no image of the stream comes from. Its class has a place in the order all the same."""
    return ImageRow("", Path(), label, "", labels=labels, fault=Fault(what, labels, where))


def class_incremental(path: Path, table: dict[str, Any], files: Files) -> Stream:
    """The stream that the TOML file at `path` describes; `table` is its content. Raises BadInput for what nobody could
    use; what is wrong with single images is among the stream's faults."""
    told = check_table(ClassIncremental, table, path)
    data = path.parent / told.data
    if not os.path.isdir(data):  # unlike Path.is_dir, False for a name that no file can have
        raise BadInput(f"{shown(path)}: folder {shown(data)} is missing; set data to the folder that holds the images")
    listed = list(_from_csv(path.parent / told.samples, data) if told.samples is not None else _from_folders(data))
    order = _class_order(told, listed, path)
    faults = [row.fault for row in listed if row.fault is not None]
    bare = dict(_without_training(order, listed, path))
    groups = _groups(told, order, bare, path)
    left_out = sorted({row.label for row in listed} - {*order, ""})
    rows = [row for row in listed if row.fault is None and row.label in order and row.label not in bare]
    pixels = FilePixels({row.sample: row.path for row in rows}, told.image_size, files)
    capacity = told.access.capacity if told.access is not None else None
    made = [_task(name, group, rows, pixels, told.augmentation) for name, group in groups.items()]
    name = told.name or path.stem
    return Stream(
        name,
        tuple(replace(task, capacity=capacity) for task in made),
        Recipe(name, declared=told.declared, place={"file": os.path.abspath(path)}),
        subjects={row.sample: row.subject for row in rows if row.subject},
        access={row.sample: row.labels for row in rows if row.labels},
        notes=(f"not in the stream, though there are images: {', '.join(left_out)}",) if left_out else (),
        policy=told.granted,
        faults=(*faults, *bare.values()),
    )


def _task(name: str, classes: list[str], rows: list[ImageRow], pixels: FilePixels, augment: str) -> Task:
    mine = [row for row in rows if row.label in classes]
    train = {row.sample: row.label for row in mine if row.split == "train"}
    test = {row.sample: row.label for row in mine if row.split == "test"}
    return Task(name, tuple(classes), Samples.of(train, pixels, augment), Samples.of(test, pixels))


# Classes: their order, and which go together.


def _groups(told: ClassIncremental, order: list[str], bare: Collection[str], path: Path) -> dict[str, list[str]]:
    """The classes of each task but `bare` ones, by the task's name: its own, or its place in the declaration. A task
    without classes keeps its place, so that those behind it keep their names."""
    sizes = told.sizes or _sizes(told, order, path)
    if sum(sizes) != len(order):
        mend = "make them equal, or name the classes of the stream (classes = [...])"
        raise BadInput(f"{shown(path)}: tasks add up to {sum(sizes)} classes, but there are {len(order)}; {mend}")
    names = iter(order)
    groups = [[name for name in islice(names, size) if name not in bare] for size in sizes]
    called = [normalised(task.name) for task in told.named] or [ordinal(place) for place in range(len(groups))]
    return {name: group for name, group in zip(called, groups, strict=True) if group}


def _class_order(told: ClassIncremental, rows: list[ImageRow], path: Path) -> list[str]:
    listed = [name for task in told.named for name in task.classes] or told.classes
    order = [normalised(name) for name in listed or sorted({row.label for row in rows} - {""})]
    if told.class_order_seed is not None:
        order = [order[place] for place in class_order(len(order), told.class_order_seed)]
    twice = sorted({name for name in order if order.count(name) > 1})
    if twice:
        raise BadInput(f"{shown(path)}: class '{shown(twice[0])}' is listed twice; name it once")
    if not order:
        raise BadInput(f"{shown(path)}: {shown(told.data)} holds no classes; put images into train/CLASS, test/CLASS")
    return order


def _without_training(order: list[str], rows: list[ImageRow], path: Path) -> Iterator[tuple[str, Fault]]:
    """The classes that cannot be learnt. Whose images would be missing is nobody's view, so no user is told."""
    usable = [row for row in rows if row.fault is None]
    trained = {row.label for row in usable if row.split == "train"}
    tested = {row.label for row in usable if row.split == "test"}
    for name in order:
        if name not in trained:
            found = "has test images but no training images" if name in tested else "has no images"
            yield (
                name,
                Fault(f"class '{shown(name)}' {found}; add some, or take it off the stream", where=shown(path)),
            )


def _sizes(told: ClassIncremental, order: list[str], path: Path) -> list[int]:
    """Of a stream that was declared by `first` and `next`."""
    assert told.first is not None and told.next is not None
    later, over = divmod(len(order) - told.first, told.next)
    if later < 0 or over:
        raise BadInput(
            f"{shown(path)}: first = {told.first} and next = {told.next} do not add up to {len(order)} classes"
        )
    return [told.first, *[told.next] * later]


# Images: from folders that name split and class, or from a table of them.


def _from_folders(data: Path) -> Iterator[ImageRow]:
    seen: set[str] = set()
    for split in SPLITS:
        for folder in entries(data / split, MEND):
            if not folder.is_dir():
                yield _unusable(f"{shown(folder)} lies beside the class folders; move it into one, or away")
                continue
            for path in entries(folder, MEND):
                if not path.is_file():
                    yield _unusable(f"{shown(path)} is not a file; images lie directly in their class folder")
                    continue
                sample = _name(path.relative_to(data))
                if sample in seen:
                    raise BadInput(f"{shown(path)}: another file's name differs in encoding only; rename one")
                seen.add(sample)
                yield ImageRow(sample, path, normalised(_name(Path(folder.name))), split)


def entries(folder: Path, mend: str) -> list[Path]:
    """What lies in `folder`, sorted; hidden files are left out. Raises BadInput with the mend."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise BadInput(f"folder {shown(folder)} cannot be read ({error.strerror}); {mend}") from error


def _name(path: Path) -> str:
    """A path as an id: slashes, and composed letters, so that every file system gives the same. Raises BadInput."""
    name = composed(path.as_posix())
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput(f"file name {shown(path)} is not UTF-8; rename it") from None
    return name


def _from_csv(path: Path, data: Path) -> Iterator[ImageRow]:
    seen: dict[str, tuple[int, tuple[str, ...]]] = {}
    for line, row in _records(path):
        where = f"{shown(path)}, line {line}"
        if isinstance(row, str):
            yield _unusable(row, where)
            continue
        sample, labels = _name(Path(PurePosixPath(row["sample"]))), _labels(row)
        first, told = seen.setdefault(sample, (line, labels))
        if told != labels:  # who may read it? nobody, until that is known
            raise BadInput(f"{where}: sample '{shown(sample)}' has other labels in line {first}; keep one of them")
        wrong = _wrong(row, sample, data)
        if first != line:
            where, wrong = f"{where}, as line {first}", f"sample '{shown(sample)}' is listed twice; keep one of them"
        label, subject = normalised(row["class"]), normalised(row.get("subject", ""))
        yield (
            ImageRow(sample, data / PurePosixPath(row["sample"]), label, row["split"], subject, labels)
            if wrong is None
            else _unusable(wrong, where, labels, label)
        )


def _labels(row: dict[str, str]) -> tuple[str, ...]:
    return tuple(sorted({label.strip() for label in row.get("labels", "").split(";")} - {""}))


def _wrong(row: dict[str, str], sample: str, data: Path) -> str | None:
    """Why no image of the stream can come from this row."""
    inside = PurePosixPath(row["sample"])
    if inside.is_absolute() or ".." in inside.parts or "\0" in row["sample"]:
        return f"sample '{shown(row['sample'])}' must be a path inside the data folder"
    if not os.path.isfile(data / inside):
        return f"sample '{shown(sample)}' is not in {shown(data)}; correct the path or drop the line"
    if row["split"] not in SPLITS:
        return f"sample '{shown(sample)}': split '{shown(row['split'])}' is neither train nor test"
    if not row["class"].strip():
        return f"sample '{shown(sample)}' has no class; fill it in or drop the line"
    return None


def _records(path: Path) -> Iterator[tuple[int, dict[str, str] | str]]:
    """The CSV file's rows as column -> text, or what is wrong with one, with their line numbers."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadInput(f"{shown(path)} cannot be read ({error.strerror}); check samples = ...") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{shown(path)} is not UTF-8 text; save it as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = next(reader, [])
        _check_columns(columns, path)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(columns):
                yield (
                    reader.line_num,
                    f"{len(cells)} cells, but {len(columns)} columns; quote cells that hold commas",
                )
                continue
            yield reader.line_num, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise BadInput(f"{shown(path)}, line {reader.line_num}: {error}; correct the line") from error


def _check_columns(columns: list[str], path: Path) -> None:
    for name in NEEDED:
        if name not in columns:
            raise BadInput(f"{shown(path)} has no column '{name}'; its first line must name {', '.join(NEEDED)}")
    for name in columns:
        if name not in (*NEEDED, *OPTIONAL):
            raise UnknownName("column", name, (*NEEDED, *OPTIONAL), where=shown(path))
        if columns.count(name) > 1:
            raise BadInput(f"{shown(path)} has column '{name}' twice; keep one")
