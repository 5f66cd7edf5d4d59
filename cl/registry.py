"""Strategies and streams by name, found through entry points: ours and third parties' alike.

A name may be `family:member`: a family is registered once and brings many entries, made when they are asked for. So a
whole foreign library becomes available by name, without the engine knowing it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cl.errors import BadInput, UnknownName, first_line, shown


@dataclass(frozen=True)
class Family:
    """members: what `family:member` stands for, by member; knowing their names must not import what they need.
    refused: members that cannot be used -> why, in words that follow the name and a colon."""

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
        families: dict[str, Family] = {}
        for name, point in self._family_points().items():
            with suppress(BadInput):
                families[name] = self._loaded(point)
        members = (f"{name}:{member}" for name, family in families.items() for member in family.members)
        return [*sorted({*self._local, *self._installed()}), *sorted(members)]

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
        return family.members[member]

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
