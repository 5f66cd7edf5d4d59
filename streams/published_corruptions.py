"""CIFAR-10-C, CIFAR-100-C and ImageNet-C as they are published (`docs/streams.md` has the contract).

Layout `cifar-c`: `CORRUPTION.npy`, uint8 `(5 n, 32, 32, 3)`, all n pictures at severity 1, then at 2, and so on, and
`labels.npy`, the n labels five times. Layout `imagenet-c`: `CORRUPTION/SEVERITY/CLASS/*.JPEG`, cropped already. A label
is the rank of its class name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from cl import ArrayPixels, Recipe, Samples, Stream, Task
from cl.data.augment import Crop
from cl.data.images import FilePixels, side_of
from cl.data.recipes import TOML, resolve_stream
from cl.data.samples import Pixels, marks_of, pixels_digest, prepare
from cl.digests import digest_bytes
from cl.errors import BadInput, shown
from cl.home.files import Files
from cl.tables import Table, check_table, read_toml
from streams.corruptions import LEVELS, code_of, parsed, spelled
from streams.drift import Arrangement, segment_of, source_task, test_time_stream
from streams.folder import StreamName, class_incremental, entries
from streams.schedules import visits

Text = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
SmallCount = Annotated[int, Field(ge=1, le=1_000_000)]


class PublishedSet(Table):
    """What a TOML file of kind `test-time` holds."""

    kind: Literal["test-time"]
    name: StreamName | None = None
    data: Text
    layout: Literal["cifar-c", "imagenet-c"]
    segments: Annotated[list[str], Field(min_length=1)]
    source: Text | None = None
    source_data: Text | None = None
    classes: list[Text] | None = None
    batch_size: SmallCount = 50
    batches: SmallCount | None = None
    rounds: Annotated[int, Field(ge=1, le=100)] = 1
    official_order: bool = False
    seed: int = 0

    @model_validator(mode="after")
    def _consistent(self) -> PublishedSet:
        if self.source is not None and self.classes is not None:
            raise ValueError("the source names the classes; leave classes out")
        if self.source is None and self.classes is None and self.layout == "cifar-c":
            raise ValueError("name a source, or the classes in the order of their labels (classes = [...])")
        if self.source is None and self.source_data is not None:
            raise ValueError("source_data belongs to a source; name it, or leave source_data out")
        twice = sorted({name for name in self.classes or () if (self.classes or []).count(name) > 1})
        if twice or self.classes == []:
            raise ValueError(f"class '{twice[0]}' is listed twice" if twice else "classes is empty; leave it out")
        return self


@dataclass(frozen=True)
class SetOnDisk:
    """What lies on disk. classes: in the order of their labels. labels: condition -> picture -> class name."""

    classes: Sequence[str]
    labels: Mapping[str, Mapping[str, str]]
    pixels: Pixels


def test_time(path: Path, table: dict[str, Any], files: Files) -> Stream:
    """The stream that the TOML file at `path` describes; `table` is its content. Raises BadInput for any fault."""
    told = check_table(PublishedSet, table, path)
    data = path.parent / told.data
    if not os.path.isdir(data):
        raise BadInput(f"{shown(path)}: folder {shown(data)} is missing; set data to the folder that holds the set")
    conditions = [_condition(text, path) for text in told.segments]
    labelled = _labelled(told, path, files)
    reader = _cifar_c if told.layout == "cifar-c" else _imagenet_c
    found = reader(data, conditions, sorted(labelled.classes) if labelled else told.classes, files)
    nothing = Samples((), (), found.pixels)
    source = source_task(labelled) if labelled else Task("source", tuple(found.classes), nothing, nothing)
    people = _same_pictures(told, found, source)
    plan = Arrangement(told.batch_size, told.batches, told.seed, told.official_order)
    course = visits(conditions * told.rounds)
    name = told.name or path.stem
    declared = {**told.model_dump(exclude={"data", "source", "source_data", "name"}), "source": _identity(labelled)}
    return test_time_stream(
        name,
        source,
        [segment_of(visit, plan, found.labels[visit.domain], (), found.pixels) for visit in course],
        people,
        Recipe(name, declared=declared, place={"file": os.path.abspath(path)}),
        (),
    )


def _condition(text: str, path: Path) -> str:
    """`gaussian_noise/5` as `GN/5`. Raises BadInput or UnknownName."""
    name, _, severity = text.partition("/")
    code = code_of(name)
    if not re.fullmatch(rf"[1-{LEVELS}]", severity):
        raise BadInput(
            f"{shown(path)}: segment '{shown(text)}' must be CORRUPTION/SEVERITY, with a severity of 1 to {LEVELS}"
        )
    return spelled(code, int(severity))


def _labelled(told: PublishedSet, path: Path, files: Files) -> Stream | None:
    """The stream of the labelled source split and the clean test set; None where a model will be given."""
    if told.source is None:
        return None
    if not told.source.endswith(TOML):
        data = None if told.source_data is None else str(path.parent / Path(told.source_data).expanduser())
        return resolve_stream(told.source, data)
    if told.source_data is not None:
        raise BadInput(f"{shown(path)}: {shown(told.source)} names its own data; leave source_data out")
    place = path.parent / told.source
    source = class_incremental(place, read_toml(place), files)
    source.check()
    return source


def _identity(labelled: Stream | None) -> dict[str, Any] | None:
    return labelled.recipe.as_json() if labelled and labelled.recipe else None


def _same_pictures(told: PublishedSet, found: SetOnDisk, source: Task) -> dict[str, str]:
    """Clean test image -> the picture that it is, where the source is the set that was corrupted, in its own order.

    Raises BadInput where the labels say that it is not in that order.
    """
    pictures = next(iter(found.labels.values()))
    if (
        told.layout != "cifar-c"
        or told.source is None
        or told.source.endswith(TOML)
        or len(pictures) != len(source.test)
    ):
        return {}
    if list(pictures.values()) != list(source.test.labels):
        pairs = enumerate(zip(pictures.values(), source.test.labels, strict=True))
        row = next(number for number, (mine, its) in pairs if mine != its)
        raise BadInput(
            f"{shown(told.data)}/labels.npy: label {row} is not that of test image {row} of {told.source}; "
            "the files are not in the order of the set, or of another one"
        )
    return dict(zip(source.test.ids, pictures, strict=True))


# CIFAR-C: arrays, mapped and never unpickled.


class _MappedPixels:
    """Rows of arrays on disk. arrays: corruption's code -> uint8 `(5 n, 32, 32, 3)`."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays

    def digest(self, sample: str) -> str:
        return digest_bytes(np.ascontiguousarray(self._row(sample)).data)

    def marks(self, sample: str) -> tuple[str, ...]:
        return (pixels_digest(self._row(sample)),)

    def read(self, samples: Sequence[str], crops: Sequence[Crop] | None = None) -> Tensor:
        return ArrayPixels(samples, np.stack([self._row(sample) for sample in samples])).read(samples, crops)

    def _row(self, sample: str) -> NDArray[np.uint8]:
        picture, condition, _ = sample.rsplit("|", 2)
        ((corruption, severity),) = parsed(condition)
        array = self._arrays[corruption.code]
        image: NDArray[np.uint8] = array[(int(severity) - 1) * (len(array) // LEVELS) + int(picture.rpartition("/")[2])]
        return image


def _cifar_c(data: Path, conditions: Sequence[str], classes: Sequence[str] | None, files: Files) -> SetOnDisk:
    assert classes is not None  # checked with the table
    names = {parsed(condition)[0][0].code: parsed(condition)[0][0].name for condition in conditions}
    labels = _labels(data / "labels.npy", len(classes))
    arrays = {code: _array(data / f"{name}.npy", LEVELS * len(labels)) for code, name in names.items()}
    base = _base(data)
    pictures = {f"{base}/{row:05d}": classes[label] for row, label in enumerate(labels.tolist())}
    return SetOnDisk(classes, dict.fromkeys(conditions, pictures), _MappedPixels(arrays))


def _base(data: Path) -> str:
    """What pictures are called: `cifar10-test` for CIFAR-10-C."""
    published = re.fullmatch(r"cifar-?(\d+)-c", data.resolve().name.lower())
    return f"cifar{published[1]}-test" if published else f"{data.resolve().name}-test"


def _labels(path: Path, classes: int) -> NDArray[np.integer[Any]]:
    """The labels of the n pictures, from five times as many."""
    found = _mapped(path)
    if found.ndim != 1 or found.dtype.kind not in "iu" or not len(found) or len(found) % LEVELS:
        raise BadInput(f"{shown(path)} holds {_shape(found)}; it must be five times the same whole numbers")
    levels = np.asarray(found).reshape(LEVELS, -1)
    if (levels != levels[0]).any():
        level = int((levels != levels[0]).any(1).argmax()) + 1
        raise BadInput(f"{shown(path)}: the labels of severity {level} are not those of severity 1; get it anew")
    wrong = levels[0][(levels[0] < 0) | (levels[0] >= classes)]
    if len(wrong):
        raise BadInput(f"{shown(path)} holds label {wrong[0]}, but there are {classes} classes; is it another set?")
    labels: NDArray[np.integer[Any]] = levels[0]
    return labels


def _array(path: Path, rows: int) -> np.ndarray:
    found = _mapped(path)
    if found.dtype != np.uint8 or found.shape != (rows, 32, 32, 3):
        raise BadInput(f"{shown(path)} holds {_shape(found)}; beside these labels it must be ({rows}, 32, 32, 3) uint8")
    return found


def _mapped(path: Path) -> np.ndarray:
    """The array in an npy file, mapped into memory. Raises BadInput; a pickle is never run."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise BadInput(f"{shown(path)} is missing; get it from the published set") from None
    except Exception as error:  # damaged headers fail in many ways
        told = f"{shown(path)} is not a plain npy array ({_line(error)})"
        raise BadInput(f"{told}; nothing of it was run, get it anew") from None
    if not isinstance(found, np.ndarray):
        raise BadInput(f"{shown(path)} is an archive, not one npy array; get it anew")
    return found


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:80]


def _shape(found: np.ndarray) -> str:
    return f"{found.shape} {found.dtype}"


# ImageNet-C: folders of pictures that are cropped already.


class _VisitedPixels:
    """Files by picture and condition, the same on every visit."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels

    def digest(self, sample: str) -> str:
        return self._pixels.digest(sample.rpartition("|")[0])

    def marks(self, sample: str) -> tuple[str, ...]:
        return marks_of(self._pixels, sample.rpartition("|")[0])

    def prepare(self, samples: Sequence[str]) -> None:
        prepare(self._pixels, [sample.rpartition("|")[0] for sample in samples])

    def read(self, samples: Sequence[str], crops: Sequence[Crop] | None = None) -> Tensor:
        return self._pixels.read([sample.rpartition("|")[0] for sample in samples], crops)


def _imagenet_c(data: Path, conditions: Sequence[str], classes: Sequence[str] | None, files: Files) -> SetOnDisk:
    labels: dict[str, dict[str, str]] = {}
    paths: dict[str, Path] = {}
    for condition in dict.fromkeys(conditions):
        ((corruption, severity),) = parsed(condition)
        leaf = data / corruption.name / str(int(severity))
        labels[condition] = {}
        for picture, path in _pictures(leaf, classes):
            labels[condition][picture] = path.parent.name
            paths[f"{picture}|{condition}"] = path
    pixels = FilePixels(paths, side_of(next(iter(paths.values()))), files, exact=True)
    met = sorted({name for found in labels.values() for name in found.values()})
    return SetOnDisk(met if classes is None else classes, labels, _VisitedPixels(pixels))


def _pictures(leaf: Path, classes: Sequence[str] | None) -> list[tuple[str, Path]]:
    """(picture, file) of one severity of one corruption. Raises BadInput where there is none, or one of no class."""
    found: dict[str, Path] = {}
    for folder in entries(leaf, "get it from the published set, or take the segment off the stream"):
        if classes is not None and folder.name not in classes:
            raise BadInput(f"{shown(folder)} is not the folder of one of the classes; is it another set?")
        for path in entries(folder, "check the folder"):
            picture = f"imagenet-val/{path.stem}"
            if picture in found:
                raise BadInput(f"{shown(path)} has the name of {shown(found[picture])}; a picture has one class")
            found[picture] = path
    if not found:
        raise BadInput(f"{shown(leaf)} holds no pictures; get it anew, or take the segment off the stream")
    return list(found.items())
