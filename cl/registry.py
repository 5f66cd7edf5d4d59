"""Strategies and streams by name, found through entry points: ours and third parties' alike.

A name may be `family:member`: a family is registered once and brings many entries, made when they are asked for. So a
whole foreign library becomes available by name, without the engine knowing it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cl import source
from cl.errors import BadInput, UnknownName, first_line, shown


@dataclass(frozen=True)
class Member:
    """A member of a family that is made only when it is asked for.

    texts: what its attributes say, so that it is listed without being made: `title` and `paper` of a strategy,
    `__doc__` of a stream.
    """

    make: Callable[[], Any]
    texts: Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """members: what `family:member` stands for, by member; a `Member` where making it loads much, for every list loads
    the family. refused: members that cannot be used -> why, in words that follow the name and a colon."""

    members: Mapping[str, Any]
    refused: Mapping[str, str] = field(default_factory=dict)


class Registry:
    """Names of one kind. An entry is imported only when it is asked for. families: the group of its families."""

    def __init__(self, kind: str, group: str, families: str | None = None) -> None:
        self.kind, self.group, self._families = kind, group, families
        self._local: dict[str, Any] = {}

    def register(self, name: str, value: Any) -> None:
        """Add an entry of this process (a notebook, a test). Raises BadInput if the name is taken."""
        if name in self._local or name in self._installed():
            raise BadInput(f"{self.kind} '{name}' is registered already; choose another name")
        self._local[name] = value

    def unregister(self, name: str) -> None:
        """Take back an entry that `register` added."""
        del self._local[name]

    def names(self) -> list[str]:
        """All names, sorted; those of families behind the others. A family that cannot be loaded has none."""
        return [*sorted({*self._local, *self._installed()}), *sorted(self._members())]

    def texts(self, *attributes: str) -> dict[str, dict[str, str] | BadInput]:
        """What these attributes of every entry say, empty where it has none; or why the entry cannot be loaded. Loaded
        is only what neither its family nor its source tells of."""
        entries = {**self._members(), **self._installed(), **self._local}
        found: dict[str, dict[str, str] | BadInput] = {}
        for name in self.names():
            try:
                found[name] = self._texts(entries[name], attributes)
            except BadInput as error:
                found[name] = error
        return found

    def knows(self, name: str) -> bool:
        """Whether `name` is ours to find, rather than `module:name`."""
        prefix, colon, _ = name.partition(":")
        return not colon or name in self._local or name in self._installed() or prefix in self._family_points()

    def get(self, name: str) -> Any:
        """The entry called `name`. Raises UnknownName with the nearest names, BadInput for a refused member or one that
        its package cannot load."""
        if name in self._local:
            return self._local[name]
        installed = self._installed()
        if name in installed:
            return self._loaded(installed[name])
        prefix, _, member = name.partition(":")
        point = self._family_points().get(prefix)
        family: Family = self._loaded(point) if point is not None else Family({})
        if member in family.refused:
            raise BadInput(f"{self.kind} '{name}': {family.refused[member]}")
        if member not in family.members:
            raise UnknownName(self.kind, name, self.names())
        found = family.members[member]
        return found.make() if isinstance(found, Member) else found

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((name, self.get(name)) for name in self.names())

    def _loaded(self, point: EntryPoint) -> Any:
        try:
            return point.load()
        except Exception as error:  # whatever a foreign module does when it is imported
            package = point.dist.name if point.dist is not None else point.module
            raise BadInput(
                f"{self.kind} '{shown(point.name)}' of package {package} cannot be loaded ({first_line(error)}); "
                "mend that package or remove it"
            ) from error

    def _texts(self, entry: Any, attributes: Sequence[str]) -> dict[str, str]:
        if isinstance(entry, Member):
            return {name: entry.texts.get(name, "") for name in attributes}
        if isinstance(entry, EntryPoint):
            told = source.texts(entry.module, entry.attr, attributes)
            if told is not None:
                return told
            entry = self._loaded(entry)
        return {name: getattr(entry, name, None) or "" for name in attributes}

    def _members(self) -> dict[str, Any]:
        """Members of all families by their whole names; of a family that cannot be loaded there are none."""
        found: dict[str, Any] = {}
        for name, point in self._family_points().items():
            with suppress(BadInput):
                family: Family = self._loaded(point)
                found |= {f"{name}:{member}": value for member, value in family.members.items()}
        return found

    def _installed(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def _family_points(self) -> dict[str, EntryPoint]:
        found = entry_points(group=self._families) if self._families else ()
        return {point.name: point for point in found}


strategies = Registry("strategy", "palimpsest.strategies", "palimpsest.strategy_families")
streams = Registry("stream", "palimpsest.streams", "palimpsest.stream_families")
stream_kinds = Registry("stream kind", "palimpsest.stream_kinds")  # what the `kind` of a TOML file may say
reports = Registry("report", "palimpsest.reports")


def imported(name: str, kind: str) -> Any:
    """What `module:name` names: something that makes a `kind`. Raises BadInput."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a foreign module does when it is imported
        why = first_line(error)
        raise BadInput(f"{kind} '{shown(name)}' cannot be imported ({why}); write it as module:name") from error
    if not callable(found):
        raise BadInput(f"'{shown(name)}' makes no {kind}; write it as module:name")
    return found
