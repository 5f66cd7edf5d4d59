"""Small photographs of people in a folder, with a table that says whose they are."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cl.deletion.execution import execute
from cl.deletion.forget_set import Kind, Selector
from cl.deletion.steps import Outcome
from cl.home.results import Result
from tests.tiny import run_tiny

CLASSES = ("cat", "owl", "ibex", "newt")


@dataclass(frozen=True)
class Photo:
    """One line of the table."""

    sample: str
    label: str
    split: str
    subject: str = ""


def album(classes: Sequence[str] = CLASSES, people: int = 4, train: int = 5, test: int = 2) -> list[Photo]:
    """So many pictures of each class; the n-th ones of all classes are of person n."""
    rows = [(split, row) for split, count in (("train", train), ("test", test)) for row in range(count)]
    return [
        Photo(f"{split}/{label}/{row}.png", label, split, f"person-{row % people}")
        for label in classes
        for split, row in rows
    ]


def take(folder: Path, photos: Iterable[Photo], seed: int = 0, size: int = 20) -> None:
    """Make the picture of each: noise of its own on a brightness of its class."""
    for photo in photos:
        draws = np.random.default_rng([seed, *photo.sample.encode()])
        base = 40 * (1 + sorted(CLASSES).index(photo.label) if photo.label in CLASSES else 1)
        path = folder / "images" / photo.sample
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = draws.integers(0, 60, (size, size, 3), dtype=np.uint8)
        Image.fromarray(noise + np.uint8(base)).save(path)


def describe(folder: Path, photos: Sequence[Photo], name: str = "album", tasks: str = "", size: int = 16) -> Path:
    """The stream's table and TOML file. tasks: its line of tasks; two classes each if left out."""
    with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["sample", "class", "split", "subject"])
        rows.writerows([one.sample, one.label, one.split, one.subject] for one in photos)
    classes = list(dict.fromkeys(one.label for one in photos))
    lines = ['kind = "class-incremental"', 'data = "images"', f'samples = "{name}.csv"', f"image_size = {size}"]
    lines += [tasks or f"tasks = {[2] * (len(classes) // 2)}\nclasses = {classes!r}".replace("'", '"')]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def photographed(folder: Path, photos: Sequence[Photo] | None = None, name: str = "album", seed: int = 0) -> Path:
    """A stream of pictures that were just taken; its TOML file."""
    shown = album() if photos is None else list(photos)
    folder.mkdir(parents=True, exist_ok=True)
    take(folder, shown, seed)
    return describe(folder, shown, name)


def learnt(home: Path, stream: Path, strategy: str = "simplecil") -> Result:
    """A run on the stream of a TOML file."""
    return run_tiny(home, strategy, stream=str(stream))  # type: ignore[arg-type]


def forgotten(home: Path, run: str, *selected: tuple[Kind, str], keep: Sequence[str] = ()) -> Outcome:
    """An exact deletion."""
    return execute(home, run, [Selector(kind, value) for kind, value in selected], keep=keep)


def without(photos: Iterable[Photo], *, subject: str | None = None, samples: Iterable[str] = ()) -> list[Photo]:
    """The album as if these had never been taken."""
    gone = set(samples)
    return [one for one in photos if one.subject != subject and one.sample not in gone]


def everything(home: Path) -> bytes:
    """All that a thief of the home reads: names of files and what they hold, but what lies sealed in the vault."""
    paths = [path for path in sorted(home.rglob("*")) if path.is_file() and "vault" not in path.parts]
    return b"\n".join(path.relative_to(home).as_posix().encode() + b"\n" + path.read_bytes() for path in paths)
