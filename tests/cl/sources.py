"""Modules written for a test, each in a package of its own so that nothing is remembered from the one before."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

Write = Callable[..., Any]

_numbers = itertools.count()


def write_package(folder: Path, main: str, **others: str) -> ModuleType:
    """A fresh package of these modules below `folder`, which is on the path: its imported `main`.

    In the sources `HERE` stands for the package's name; `front` is its `__init__`.
    """
    name = f"written_{next(_numbers):04d}"
    (folder / name).mkdir()
    (folder / name / "__init__.py").touch()
    for module, source in {"main": main, **others}.items():
        text = dedent(source).replace("HERE", name)
        (folder / name / ("__init__.py" if module == "front" else f"{module}.py")).write_text(text)
    importlib.invalidate_caches()
    return importlib.import_module(f"{name}.main")
