"""A stream's folder of images, its table of samples and its TOML file."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from cl.testing import tiny_image

CLASSES = ("cat", "owl", "ibex", "newt")
BASE = {
    "kind": '"class-incremental"',
    "data": '"images"',
    "tasks": "[2, 2]",
    "classes": '["owl", "cat", "newt", "ibex"]',
    "image_size": "16",
}


def folder(place: Path, classes: tuple[str, ...] = CLASSES) -> Path:
    """A folder `images` with six pictures a class for training and three for testing."""
    for label in classes:
        for split, count in (("train", 6), ("test", 3)):
            (place / "images" / split / label).mkdir(parents=True, exist_ok=True)
            for row in range(count):
                path = place / "images" / split / label / f"{row}.png"
                Image.fromarray(tiny_image(label, f"{split}/{label}/{row}")).save(path)
                os.utime(path, (1e9, 1e9))
    return place


def toml(place: Path, **changes: str | None) -> Path:
    """my-stream.toml of BASE with changes; None leaves a key out."""
    lines = [f"{key} = {value}" for key, value in {**BASE, **changes}.items() if value is not None]
    path = place / "my-stream.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def listing(*lines: str) -> str:
    rows = [f"{split}/{label}/0.png,{label},{split}" for label in ("cat", "owl") for split in ("train", "test")]
    return "\n".join(["sample,class,split", *rows, *lines])
