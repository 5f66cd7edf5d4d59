"""Streams from torchvision's own files, as small ones in the real format."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl.data.recipes import resolve_stream
from cl.data.stream import Recipe
from cl.errors import BadInput
from streams.batches import read_batch, read_idx
from tests.palimpsest import palimpsest
from tests.public_sets import CIFAR10, batch, idx, write_cifar10, write_cifar100, write_mnist
from tests.tiny import run_tiny

# numpy's uint8 as Python 2 pickled it: short byte strings (U) where Python 3 has text.
STRING_DTYPE = b"cnumpy\ndtype\n(U\x02u1I0\nI1\ntR(I3\nU\x01|NNNI-1\nI-1\nI0\ntb"


def test_mnist(tmp_path: Path) -> None:
    stream = resolve_stream("split-mnist", write_mnist(tmp_path))
    assert [len(task.classes) for task in stream.tasks] == [2] * 5 and stream.classes[0] == "0 - zero"
    assert stream.tasks[0].train.ids[0] == "mnist/train/000000" and len(stream.ids) == 50
    assert stream.tasks[0].train.images().shape == (6, 3, 32, 32)


def test_fashion_mnist(tmp_path: Path) -> None:
    stream = resolve_stream("split-fashion-mnist", write_mnist(tmp_path, "FashionMNIST"))
    assert stream.tasks[0].id == "task-00" and stream.classes[-1] == "Ankle boot"


def test_cifar10(tmp_path: Path) -> None:
    stream = resolve_stream("split-cifar10", write_cifar10(tmp_path))
    assert stream.classes == CIFAR10 and len(stream.tasks) == 5
    assert [len(task.train) for task in stream.tasks] == [10] * 5 and stream.tasks[0].test.ids[
        0
    ] == "cifar10/test/000000"
    content = (tmp_path / "cifar-10-batches-py" / "test_batch").read_bytes()
    pixels = read_batch(content)["data"][0].reshape(3, 32, 32)
    assert np.array_equal(stream.tasks[0].test.images()[0].numpy(), pixels)


def test_cifar100_in_the_usual_order(tmp_path: Path) -> None:
    stream = resolve_stream("split-cifar100", write_cifar100(tmp_path))
    order = np.random.RandomState(1993).permutation(100)
    assert list(stream.classes) == [f"class {number:02d}" for number in order]
    assert len(stream.tasks) == 10 and stream.tasks[0].train.ids[0].startswith("cifar100/train/")


def test_a_name_says_neither_where_the_files_lie_nor_what_they_hold(tmp_path: Path) -> None:
    first = resolve_stream("split-cifar10", write_cifar10(tmp_path / "here"))
    second = resolve_stream("split-cifar10", write_cifar10(tmp_path / "there"))
    third = resolve_stream("split-cifar10", write_cifar10(tmp_path / "other", each=20))
    recipes = [stream.recipe for stream in (first, second, third)]
    assert recipes[0] and recipes[1] and recipes[2]
    assert recipes[0].as_json() == recipes[1].as_json() == recipes[2].as_json()
    again = resolve_stream(Recipe(**{**recipes[0].as_json(), "place": dict(recipes[0].place)}))
    assert again.resolution() == first.resolution()
    run_tiny(tmp_path / "home", "simplecil", first)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_batches_of_every_protocol(protocol: int) -> None:
    content = pickle.dumps({"data": np.zeros((2, 3072), np.uint8)}, protocol=protocol)
    assert read_batch(content)["data"].shape == (2, 3072)


def test_batches_as_python_2_wrote_them() -> None:
    state = (
        b"(I1\n(I1\nI3072\nt" + STRING_DTYPE + b"I00\n" + b"T" + struct.pack("<I", 3072) + bytes(range(256)) * 12 + b"t"
    )
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR" + state + b"b"
    content = b"\x80\x02}(U\x04data" + array + b"U\x06labels](K\x07eu."
    found = read_batch(content)
    assert found["labels"] == [7] and found["data"][0, :300].tolist() == [row % 256 for row in range(300)]


class _Runs:
    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


def test_a_batch_runs_nothing(tmp_path: Path) -> None:
    content = pickle.dumps({"data": _Runs(str(tmp_path / "pwned"))})
    with pytest.raises(BadInput, match="mkdir, which is no plain array; it was not run"):
        read_batch(content)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX"),
        (b"hello", "not an IDX"),
        (b"\0\0\x08\x03\0\0", "truncated"),
        (idx(np.zeros((2, 28, 28), np.uint8))[:-1], "1,567 bytes, its header says 1,568"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "its header says"),
    ],
)
def test_idx_files_that_are_wrong(content: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_idx(content)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("t10k-images-idx3-ubyte", np.zeros((20, 20, 20), np.uint8)),
        ("train-labels-idx1-ubyte", np.zeros((30, 1), np.uint8)),
        ("train-labels-idx1-ubyte", np.zeros((), np.uint8)),
    ],
)
def test_idx_files_of_another_shape(tmp_path: Path, name: str, array: np.ndarray) -> None:
    (write_mnist(tmp_path) / "MNIST" / "raw" / name).write_bytes(idx(array))
    with pytest.raises(BadInput, match=f"{name} holds an array of shape"):
        resolve_stream("split-mnist", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test_batch", b"", "test_batch is damaged"),
        ("test_batch", batch(3, "x", labels=[0, 1, 2])[:-50], "test_batch is damaged"),
        ("test_batch", pickle.dumps([1, 2], protocol=2), "not a CIFAR batch"),
        ("test_batch", batch(3, "x", fine_labels=[0, 1, 2]), "no list 'labels'"),
        ("test_batch", batch(3, "x", labels=[0, 1]), "3 test images, but 2 labels"),
        ("test_batch", batch(3, "x", labels=[0, 1, 99]), "label 99 in test"),
        ("test_batch", pickle.dumps({"data": np.zeros((2, 9))}, protocol=2), "no images of 3 x 32 x 32"),
        ("batches.meta", pickle.dumps({}, protocol=2), "batches.meta has no list 'label_names'"),
        ("batches.meta", pickle.dumps({"label_names": ["cat"] * 10}, protocol=2), "batches.meta names a class twice"),
    ],
)
def test_cifar_files_that_are_wrong(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        resolve_stream("split-cifar10", tmp_path)


def test_absent_data_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", offline)
    words = ["run", "split-mnist", "simplecil", "--home", str(tmp_path / "home")]
    code, out, err = palimpsest(capsys, monkeypatch, *words, "--data", str(tmp_path / "data"))
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "cannot be downloaded (no route to host); put its files into" in err
    code, _, err = palimpsest(capsys, monkeypatch, *words)
    assert code == 2 and "needs --data DIR" in err
    code, _, err = palimpsest(capsys, monkeypatch, "run", "split-digits", "simplecil", "--data", "x")
    assert code == 2 and "takes no data" in err
