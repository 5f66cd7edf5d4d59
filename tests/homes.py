"""What lies in a home."""

from __future__ import annotations

from pathlib import Path

from cl.home.records import Manifest
from cl.home.runs import read_manifest


def manifest(home: Path) -> Manifest:
    """The manifest of the only run in `home`."""
    (path,) = home.glob("runs/*/manifest.json")
    return read_manifest(path, "run it again")


def key_of(home: Path, name: str) -> str:
    """The key of the component that the only run in `home` built as `name`."""
    (key,) = (use.key for use in manifest(home).uses if use.name == name)
    return key


def files(home: Path) -> dict[str, bytes]:
    """Every file's bytes, by its path in the home."""
    found = {path.relative_to(home).as_posix(): path for path in sorted(home.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items()}


def unlocked(home: Path) -> dict[str, bytes]:
    """Every file's bytes but those of locks, which also come and go where nothing is changed."""
    return {name: data for name, data in files(home).items() if not name.startswith("locks/")}
