"""CIFAR-10-C and ImageNet-C from tiny files in the published layouts, and files that are wrong."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cl.data.recipes import content_digest, resolve_stream
from cl.data.stream import Recipe, Stream
from cl.errors import BadInput
from cl.testing import StreamConformance
from tests.image_folder import CLASSES, folder
from tests.palimpsest import palimpsest
from tests.public_sets import CIFAR10, write_cifar10, write_cifar100

PICTURES = 10


def planted(corruption: int, severity: int, row: int) -> np.ndarray:
    """A picture that says where it belongs."""
    image = np.random.default_rng(row).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    image[0, 0] = corruption, severity, row
    return image


def cifar_c(root: Path, name: str = "CIFAR-10-C") -> Path:
    """CIFAR-10-C of ten pictures beside CIFAR-10 in torchvision's format, and a TOML file of two segments."""
    data = root / name
    data.mkdir()
    for number, corruption in enumerate(("gaussian_noise", "snow")):
        rows = [planted(number, severity, row) for severity in range(1, 6) for row in range(PICTURES)]
        np.save(data / f"{corruption}.npy", np.stack(rows))
    np.save(data / "labels.npy", np.tile(np.arange(PICTURES), 5))
    write_cifar10(root / "torchvision")
    return toml(root)


BASE = {
    "kind": '"test-time"',
    "data": '"CIFAR-10-C"',
    "layout": '"cifar-c"',
    "segments": '["gaussian_noise/5", "snow/2"]',
    "batch_size": "4",
    "source": '"split-cifar10"',
    "source_data": '"torchvision"',
}


def toml(root: Path, base: dict[str, str] = BASE, **changes: str | None) -> Path:
    path = root / "drift.toml"
    lines = [f"{key} = {value}" for key, value in {**base, **changes}.items() if value is not None]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


IMAGENET = {**BASE, "data": '"ImageNet-C"', "layout": '"imagenet-c"', "source": '"source.toml"', "batch_size": "3"}


def imagenet_c(root: Path) -> Path:
    """ImageNet-C of eight pictures of four classes, and a labelled source split of the same classes in a folder."""
    for number, leaf in enumerate(("gaussian_noise/5", "snow/2")):
        for row in range(8):
            place = root / "ImageNet-C" / leaf / CLASSES[row % 4]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((24, 24, 3), 60 * number + 10 * row, np.uint8)).save(
                place / f"ILSVRC2012_val_{row:08d}.JPEG", quality=85
            )
    folder(root)
    lines = ['kind = "class-incremental"', 'data = "images"', "tasks = [2, 2]", "image_size = 24"]
    (root / "source.toml").write_text("\n".join(lines))
    return toml(root, IMAGENET, source_data=None)


def seen(stream: Stream) -> dict[str, torch.Tensor]:
    return {
        sample: image
        for segment in stream.segments
        for batch in segment.batches.values()
        for sample, image in zip(batch.ids, batch.images(), strict=True)
    }


def test_cifar_c_is_severity_major_and_in_the_sets_order(tmp_path: Path) -> None:
    """The protocol's T11: slice offsets, repeated labels, ids."""
    stream = resolve_stream(cifar_c(tmp_path))
    assert [segment.id for segment in stream.segments] == ["r00/GN/5", "r00/SW/2"]
    assert list(stream.segments[0].batches) == [f"r00/GN/5/b{number:04d}" for number in range(3)]
    images = seen(stream)
    assert set(images) == {f"cifar10-test/{row:05d}|{c}|r00" for row in range(PICTURES) for c in ("GN/5", "SW/2")}
    for sample, image in images.items():
        expected = planted(int("SW" in sample), 5 if "GN" in sample else 2, int(sample[13:18]))
        assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)
    for segment in stream.segments:
        assert all(
            label == CIFAR10[int(s[13:18])]
            for s, label in zip(segment.samples.ids, segment.samples.labels, strict=True)
        )


def test_the_source_is_the_set_and_its_pictures_are_subjects(tmp_path: Path) -> None:
    stream = resolve_stream(cifar_c(tmp_path))
    (source,) = stream.tasks
    assert source.classes == CIFAR10 and len(source.train) == 50 and len(source.test) == 10
    mine = {sample for sample, who in stream.subjects.items() if who == "cifar10-test/00003"}
    assert mine == {"cifar10/test/000003", "cifar10-test/00003|GN/5|r00", "cifar10-test/00003|SW/2|r00"}
    rest = stream.without(mine)
    assert len(rest.ids) == len(stream.ids) - 3 and len(rest.tasks[0].test) == 9


def test_rounds_order_and_few_batches(tmp_path: Path) -> None:
    cifar_c(tmp_path)
    stream = resolve_stream(toml(tmp_path, rounds="3", batches="1", official_order="true"))
    assert [segment.id for segment in stream.segments][::2] == ["r00/GN/5", "r01/GN/5", "r02/GN/5"]
    assert [s[13:18] for s in stream.segments[3].samples.ids] == ["00000", "00001", "00002", "00003"]
    one, again = (stream.segments[at].samples for at in (0, 2))
    assert one.contents == again.contents and one.digest != again.digest
    other = resolve_stream(toml(tmp_path, batches="1", seed="1"))
    assert {s[:18] for s in other.segments[0].samples.ids} != {s[:18] for s in one.ids}


def test_cifar_100_c(tmp_path: Path) -> None:
    data = tmp_path / "CIFAR-100-C"
    data.mkdir()
    np.save(data / "fog.npy", np.zeros((500, 32, 32, 3), np.uint8))
    np.save(data / "labels.npy", np.tile(np.arange(100, dtype=np.uint8), 5))
    write_cifar100(tmp_path / "torchvision")
    stream = resolve_stream(toml(tmp_path, data='"CIFAR-100-C"', segments='["fog/1"]', source='"split-cifar100"'))
    assert stream.segments[0].samples.labels[7] == "class 07" and len(stream.classes) == 100
    assert stream.segments[0].samples.ids[7] == "cifar100-test/00007|FG/1|r00"


def test_imagenet_c_folders_are_classes_and_pictures_are_not_cropped_again(tmp_path: Path) -> None:
    stream = resolve_stream(imagenet_c(tmp_path))
    images = seen(stream)
    assert len(images) == 16 and stream.classes == ("cat", "ibex", "newt", "owl")
    for number, segment in enumerate(stream.segments):
        for sample, label in zip(segment.samples.ids, segment.samples.labels, strict=True):
            row = int(sample.split("|")[0][-8:])
            assert label == CLASSES[row % 4] and sample.startswith("imagenet-val/ILSVRC2012_val_")
            assert images[sample].shape == (3, 24, 24)
            assert (images[sample].float() - (60 * number + 10 * row)).abs().max() <= 1  # JPEG of a flat picture
    assert stream.subjects[next(iter(images))] == next(iter(images)).split("|")[0]


def test_without_a_source_a_model_must_be_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar_c(tmp_path)
    names = [f"label {number}" for number in range(10)]
    path = toml(tmp_path, source=None, source_data=None, classes=str(names).replace("'", '"'))
    stream = resolve_stream(path)
    assert stream.classes == tuple(names) and not len(stream.tasks[0].train) and not len(stream.tasks[0].test)
    assert all(
        label == f"label {int(sample[13:18])}"
        for segment in stream.segments
        for sample, label in zip(segment.samples.ids, segment.samples.labels, strict=True)
    )
    rest = stream.without(stream.segments[0].samples.ids[:2])
    assert rest.classes == stream.classes and len(rest.ids) == len(stream.ids) - 2
    code, _, err = palimpsest(capsys, monkeypatch, "run", str(path), "simplecil", "--home", str(tmp_path / "home"))
    assert code == 2 and "no labelled source split" in err and err.count("\n") == 1


def test_imagenet_c_without_a_source_has_the_classes_of_its_folders(tmp_path: Path) -> None:
    imagenet_c(tmp_path)
    stream = resolve_stream(toml(tmp_path, IMAGENET, source=None, source_data=None))
    assert stream.classes == ("cat", "ibex", "newt", "owl") and len(seen(stream)) == 16


def test_the_same_files_elsewhere_are_the_same_stream(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
    first, second = (resolve_stream(cifar_c(tmp_path / place)) for place in ("one", "two"))
    assert first.recipe and second.recipe and first.recipe.as_json() == second.recipe.as_json()
    again = resolve_stream(Recipe(**{**first.recipe.as_json(), "place": dict(first.recipe.place)}))
    assert content_digest(again) == content_digest(first) == content_digest(second)
    smaller = resolve_stream(toml(tmp_path / "one", batch_size="5"))
    assert smaller.recipe and smaller.recipe.as_json() != first.recipe.as_json()


class TestCifarC(StreamConformance):
    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def files(cls, tmp_path_factory: pytest.TempPathFactory) -> None:
        path = str(cifar_c(tmp_path_factory.mktemp("cifar-c")))
        cls.stream = staticmethod(lambda: resolve_stream(path))


class _Runs:
    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


def objects(path: Path) -> None:
    """An npy file whose array is a pickle that would make a folder beside it."""
    array = np.empty(50, object)
    array[:] = [_Runs(str(path.parent / "pwned"))] * 50
    np.save(path, array, allow_pickle=True)


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Runs(str(path.parent / "pwned"))))


def saved(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, array)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def labels(*changes: tuple[int, int], dtype: type = np.int64) -> np.ndarray:
    found = np.tile(np.arange(PICTURES, dtype=dtype), 5)
    for row, label in changes:
        found[row] = label
    return found


SWAPPED = tuple((10 * level + row, other) for level in range(5) for row, other in ((2, 3), (3, 2)))


@pytest.mark.parametrize(
    ("name", "write", "told"),
    [
        ("gaussian_noise", objects, "is not a plain npy array"),
        ("gaussian_noise", bare_pickle, "is not a plain npy array"),
        ("labels", objects, "is not a plain npy array"),
        ("gaussian_noise", cut, "is not a plain npy array"),
        ("gaussian_noise", lambda path: path.write_bytes(b""), "is not a plain npy array"),
        ("gaussian_noise", Path.unlink, "gaussian_noise.npy is missing"),
        ("labels", Path.unlink, "labels.npy is missing"),
        ("snow", saved(np.zeros((50, 32, 32, 3), np.float32)), r"\(50, 32, 32, 3\) float32; beside these labels"),
        ("snow", saved(np.zeros((40, 32, 32, 3), np.uint8)), r"must be \(50, 32, 32, 3\) uint8"),
        ("snow", saved(np.zeros((50, 3, 32, 32), np.uint8)), r"holds \(50, 3, 32, 32\)"),
        ("labels", saved(np.full(50, np.nan)), "five times the same whole numbers"),
        ("labels", saved(np.zeros((0,), np.int64)), "five times the same whole numbers"),
        ("labels", saved(labels()[:49]), "five times the same whole numbers"),
        ("labels", saved(labels((23, 7))), "labels of severity 3 are not those of severity 1"),
        ("labels", saved(np.repeat(np.arange(PICTURES), 5)), "labels of severity 2"),
        ("labels", saved(labels(*((10 * level, 10) for level in range(5)))), "label 10, but there are 10 classes"),
        ("labels", saved(labels(*((10 * level, -1) for level in range(5)))), "label -1"),
        ("labels", saved(labels(*SWAPPED)), "label 2 is not that of test image 2 of split-cifar10"),
    ],
)
def test_files_of_cifar_c_that_are_wrong(tmp_path: Path, name: str, write: Callable[[Path], None], told: str) -> None:
    path = cifar_c(tmp_path)
    write(tmp_path / "CIFAR-10-C" / f"{name}.npy")
    with pytest.raises(BadInput, match=told) as error:
        resolve_stream(path)
    assert "\n" not in str(error.value) and not (tmp_path / "CIFAR-10-C" / "pwned").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": '"CIFAR-10"'}, "CIFAR-10 is missing; set data"),
        ({"layout": '"cifar"'}, "layout"),
        ({"segments": "[]"}, "segments"),
        ({"segments": '["gausian_noise/5"]'}, "did you mean gaussian_noise"),
        ({"segments": '["gaussian_noise/6"]'}, "with a severity of 1 to 5"),
        ({"segments": '["gaussian_noise/0"]'}, "with a severity of 1 to 5"),
        ({"segments": '["gaussian_noise/2.5"]'}, "with a severity of 1 to 5"),
        ({"segments": '["gaussian_noise"]'}, "must be CORRUPTION/SEVERITY"),
        ({"segments": '["fog/5"]'}, "fog.npy is missing"),
        ({"batch_size": "0"}, "batch_size"),
        ({"rounds": "0"}, "rounds"),
        ({"bach_size": "5"}, "did you mean batch_size"),
        ({"source": None, "source_data": None}, "name a source, or the classes"),
        ({"source": None, "classes": '["a", "b"]'}, "source_data belongs to a source"),
        ({"source": None, "source_data": None, "classes": '["a", "a"]'}, "class 'a' is listed twice"),
        ({"classes": '["a", "b"]'}, "the source names the classes"),
        ({"source": '"split-cifar"'}, "did you mean split-cifar10"),
        ({"source": '"none.toml"', "source_data": None}, "none.toml cannot be read"),
    ],
)
def test_tables_that_are_wrong(tmp_path: Path, changes: dict[str, str | None], told: str) -> None:
    cifar_c(tmp_path)
    with pytest.raises(BadInput, match=told) as error:
        resolve_stream(toml(tmp_path, **changes))
    assert "\n" not in str(error.value)


def test_pictures_of_imagenet_c_that_are_wrong(tmp_path: Path) -> None:
    path = imagenet_c(tmp_path)
    leaf = tmp_path / "ImageNet-C" / "snow" / "2"
    picture = leaf / "cat" / "ILSVRC2012_val_00000000.JPEG"
    content = picture.read_bytes()

    def refused(told: str) -> None:
        with pytest.raises(BadInput, match=told) as error:
            resolve_stream(path).prepare()
        assert "\n" not in str(error.value)

    picture.write_bytes(content[:200])
    refused("ILSVRC2012_val_00000000.JPEG is corrupt or truncated")
    Image.new("RGB", (32, 24)).save(picture)
    refused("is 32 x 24, not 24 x 24 as the others")
    picture.write_bytes(content)
    (leaf / "owl" / picture.name).write_bytes(content)
    refused("a picture has one class")
    (leaf / "owl" / picture.name).unlink()
    (leaf / "dog").mkdir()
    refused("dog is not the folder of one of the classes")
    (leaf / "dog").rmdir()
    resolve_stream(path)
    for file in leaf.glob("*/*"):
        file.unlink()
    refused("snow/2 holds no pictures")
    toml(tmp_path, IMAGENET, source_data=None, segments='["fog/1"]')
    refused("fog/1 cannot be read")


def test_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cifar_c(tmp_path)
    code, out, _ = palimpsest(capsys, monkeypatch, "describe", str(path))
    assert code == 0 and "r00/GN/5" in out
    objects(tmp_path / "CIFAR-10-C" / "snow.npy")
    code, out, err = palimpsest(capsys, monkeypatch, "run", str(path), "simplecil", "--home", str(tmp_path / "home"))
    assert code == 2 and not out and err.count("\n") == 1 and "nothing of it was run" in err
