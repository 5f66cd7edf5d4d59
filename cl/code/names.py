"""Where a name leads: to statements of the project, to a whole module, or outside.

Names are followed through imports, re-exports and aliases; where the syntax tree binds none (a lazy front door, a star)
the running module is asked. What leads to no source is refused.
"""

from __future__ import annotations

import builtins
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from cl.code.sources import live, source_of
from cl.errors import BadInput

ROOMS = frozenset({"cl", "strategies", "streams", "reports"})
_MISSING = object()


@dataclass(frozen=True)
class Definition:
    """A top-level name that statements of a project module bind."""

    module: str
    name: str


@dataclass(frozen=True)
class Whole:
    """A project module used as a value: all that it binds."""

    module: str


@dataclass(frozen=True)
class Effects:
    """Those top-level statements of a project module that change something else than the names they bind."""

    module: str
    places: tuple[int, ...]  # in the module's statements


@dataclass(frozen=True)
class Outside:
    """Something of Python or of an installed library, by its dotted name; or a plain value that only the run knows."""

    name: str


@dataclass(frozen=True)
class Raised:
    """A class of exceptions where it is raised or caught: which one it is, not what it says."""

    module: str
    name: str


Node = Definition | Whole | Effects | Raised
Target = Definition | Whole | Outside


@dataclass(frozen=True)
class Project:
    """The code that is walked: the four rooms, the package `own`, and what is not installed as a library."""

    own: str

    def holds(self, module: str) -> bool:
        top = module.partition(".")[0]
        return top in ROOMS or top == self.own or _is_local(top)

    def module(self, name: str) -> Target:
        """A module as a value."""
        return Whole(name) if self.holds(name) else Outside(name)

    def member(self, module: str, name: str) -> Target | None:
        """What `name` of `module` stands for; None where there is no such name. Raises BadInput without a source."""
        if not self.holds(module):
            return Outside(f"{module}.{name}")
        source = source_of(module)
        if name in source.defined or (name in source.writers and name not in source.imported):
            return Definition(module, name)
        if name in source.imported:
            return self.origin(*source.imported[name])
        return self._running(module, name)

    def origin(self, module: str, name: str | None) -> Target | None:
        """What an import of `name` from `module`, or of the module itself, gives."""
        return self.module(module) if name is None else self.member(module, name)

    def called(self, module: str, name: str) -> Target | None:
        """What a global name in the code of `module` stands for: something there, or else a builtin."""
        source = source_of(module)
        if any(name in one for one in (source.defined, source.imported, source.writers, vars(live(module)))):
            return self.member(module, name)
        return Outside(f"builtins.{name}") if hasattr(builtins, name) else None

    def attribute(self, base: Target | None, name: str) -> Target | None:
        """What `base.name` stands for, where `base` is a module or outside."""
        if isinstance(base, Outside):
            return Outside(f"{base.name}.{name}")
        return self.member(base.module, name) if isinstance(base, Whole) else None

    def hinted(self, module: str, name: str) -> Target | None:
        """What a name in an annotation stands for, as far as it can be told."""
        source = source_of(module)
        if name in source.hinted:
            return self.origin(*source.hinted[name])
        try:
            return self.called(module, name)
        except BadInput:
            return None

    def _running(self, module: str, name: str) -> Target | None:
        found = getattr(live(module), name, _MISSING)
        if found is _MISSING:
            return self.module(f"{module}.{name}") if is_module(f"{module}.{name}") else None
        if isinstance(found, ModuleType):
            return self.module(found.__name__)
        if found is None or isinstance(found, bool | int | float | complex | str | bytes):
            return Outside(f"= {found!r}")
        hint = source_of(module).hinted.get(name)
        if hint is not None and running(self.origin(*hint)) is found:
            return self.origin(*hint)
        return self._by_its_own_name(found) or _refuse(module, name)

    def _by_its_own_name(self, found: Any) -> Target | None:
        if not isinstance(found, type | FunctionType | BuiltinFunctionType):
            return None
        owner, name = found.__module__, found.__qualname__
        if not self.holds(owner):
            return Outside(f"{owner}.{name}")
        if name in source_of(owner).defined and getattr(live(owner), name, None) is found:
            return Definition(owner, name)
        return None

    def loaded_with(self, modules: Iterable[str]) -> set[str]:
        """Project modules that ran when these were imported: themselves, their packages, and what all these import."""
        found: set[str] = set()
        todo = list(modules)
        while todo:
            name = todo.pop()
            if name in found or name not in sys.modules or not self.holds(name):
                continue
            found.add(name)
            todo += [name.rpartition(".")[0]] if "." in name else []
            todo += source_of(name).loads
        return found


def running(target: Target | None) -> Any:
    """The object that a target is in this process; None where it is not loaded."""
    if target is None:
        return None
    if isinstance(target, Definition):
        return getattr(live(target.module), target.name, None)
    parts = (target.module if isinstance(target, Whole) else target.name).split(".")
    for size in range(len(parts), 0, -1):
        found: Any = sys.modules.get(".".join(parts[:size]))
        if found is not None:
            for part in parts[size:]:
                found = getattr(found, part, None)
            return found
    return None


def _refuse(module: str, name: str) -> Target:
    raise BadInput(f"'{name}' of {module} leads to no source; import it from the module that defines it")


@cache
def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@cache
def _is_local(top: str) -> bool:
    """Whether a package lies beside the user's work, not among Python's own or the installed ones."""
    if top in sys.stdlib_module_names:
        return False
    places = _of_module(sys.modules[top]) if top in sys.modules else _of_spec(top)
    return bool(places) and not any(_is_installed(Path(place)) for place in places)


def _of_module(module: ModuleType) -> list[str]:
    file = getattr(module, "__file__", None)
    return [file] if file else list(getattr(module, "__path__", ()))


def _of_spec(top: str) -> list[str]:
    spec = importlib.util.find_spec(top) if is_module(top) else None
    if spec is None:
        return []
    return [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())


def _is_installed(path: Path) -> bool:
    roots = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return bool({"site-packages", "dist-packages"}.intersection(path.parts)) or any(map(path.is_relative_to, roots))
