"""Small files in the real formats of public image sets."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def idx(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes (yann.lecun.com/exdb/mnist)."""
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(root: Path, kind: str = "MNIST", train: int = 30, test: int = 20) -> Path:
    generator, raw = np.random.default_rng(0), root / kind / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", train), ("t10k", test)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8) % 10))
    return root


def write_cifar10(root: Path, each: int = 10) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(batch(each, name, labels=[row % 10 for row in range(each)]))
    meta = {"label_names": list(CIFAR10), "num_cases_per_batch": each, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return root


def write_cifar100(root: Path) -> Path:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for name in ("train", "test"):
        labels = [row % 100 for row in range(100)]
        (folder / name).write_bytes(batch(100, name, fine_labels=labels, coarse_labels=[0] * 100))
    meta = {"fine_label_names": [f"class {number:02d}" for number in range(100)], "coarse_label_names": []}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    return root


def batch(count: int, name: str, **labels: list[int]) -> bytes:
    data = np.random.default_rng(len(name)).integers(0, 256, (count, 3072), dtype=np.uint8)
    return pickle.dumps({"batch_label": name, "data": data, "filenames": ["x.png"] * count, **labels}, protocol=2)


def write_public(name: str, root: Path) -> Path:
    """The files behind the stream `name`, in the folder that is returned."""
    writers = {
        "split-mnist": write_mnist,
        "split-fashion-mnist": lambda place: write_mnist(place, "FashionMNIST"),
        "split-cifar10": write_cifar10,
        "split-cifar100": write_cifar100,
    }
    return writers[name](root / name)
