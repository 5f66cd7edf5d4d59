"""Packages of one strategy or stream that work as they are: the files beside this one, with the names filled in."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Literal

from cl.errors import BadInput, shown
from cl.models.cards import shipped
from cl.registry import strategies, streams

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)


@dataclass(frozen=True)
class Skeleton:
    """A package to be written. name: what it is called in the registry; its module has underscores for hyphens."""

    what: Literal["strategy", "stream"]
    name: str

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")

    @property
    def command(self) -> str:
        """What runs it, once it is installed."""
        pair = f"split-digits {self.name}" if self.what == "strategy" else f"{self.name} simplecil"
        return f"palimpsest run {pair}"

    def files(self) -> dict[str, str]:
        """Path in the package -> text."""
        kind = "".join(part.capitalize() for part in self.name.split("-"))
        names = {
            "what": self.what,
            "name": self.name,
            "module": self.module,
            "kind": kind,
            "target": kind if self.what == "strategy" else self.module,
            "group": "strategies" if self.what == "strategy" else "streams",
            "command": self.command,
        }
        templates = {
            "pyproject.toml": "pyproject.toml",
            "README.md": "README.md",
            f"{self.module}.py": f"{self.what}.py",
            "tests/test_conformance.py": f"test_{self.what}.py",
        }
        folder = resources.files(__name__)
        texts = {path: folder.joinpath(f"{one}.txt").read_text(encoding="utf-8") for path, one in templates.items()}
        return {path: Template(text).substitute(names) for path, text in texts.items()}


def write(skeleton: Skeleton, parent: Path) -> Path:
    """The folder that now holds the package, in `parent`. Raises BadInput for a name or place that is taken."""
    _check(skeleton)
    folder = parent / skeleton.name
    if folder.exists():
        raise BadInput(f"{shown(folder)} is there already, and nothing is overwritten; choose another name or --out")
    for path, text in skeleton.files().items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder


def _check(skeleton: Skeleton) -> None:
    name, module = skeleton.name, skeleton.module
    if not NAME.fullmatch(name) or keyword.iskeyword(module):
        raise BadInput(
            f"'{shown(name)}' is no name for it; use lower-case words and hyphens, such as my-{skeleton.what}"
        )
    if name in {*strategies.names(), *streams.names(), *shipped()}:
        raise BadInput(f"the name '{name}' is taken; palimpsest list shows all that are, choose another")
    if find_spec(module) is not None:
        raise BadInput(
            f"a module '{module}' can be imported already, which the new one would hide; choose another name"
        )
