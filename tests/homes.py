"""What lies in a home."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def manifest(home: Path) -> Mapping[str, Any]:
    """The manifest of the only run in `home`."""
    (path,) = home.glob("runs/*/manifest.json")
    content: Mapping[str, Any] = json.loads(path.read_bytes())
    return content


def files(home: Path) -> dict[str, bytes]:
    """Every file's bytes, by its path in the home."""
    found = {path.relative_to(home).as_posix(): path for path in sorted(home.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items()}


def unlocked(home: Path) -> dict[str, bytes]:
    """Every file's bytes but those of locks, which also come and go where nothing is changed."""
    return {name: data for name, data in files(home).items() if not name.startswith("locks/")}
