"""Strategies and streams by name, found through entry points: ours and third parties' alike."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cl.errors import BadInput, UnknownName


class Registry:
    """Names of one kind. An entry is imported only when it is asked for."""

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
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
        """All names, sorted."""
        return sorted({*self._local, *self._installed()})

    def get(self, name: str) -> Any:
        """The entry called `name`. Raises UnknownName with the nearest names."""
        if name in self._local:
            return self._local[name]
        installed = self._installed()
        if name not in installed:
            raise UnknownName(self.kind, name, self.names())
        return installed[name].load()

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((name, self.get(name)) for name in self.names())

    def _installed(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}


strategies = Registry("strategy", "palimpsest.strategies")
streams = Registry("stream", "palimpsest.streams")
stream_kinds = Registry("stream kind", "palimpsest.stream_kinds")  # what the `kind` of a TOML file may say
reports = Registry("report", "palimpsest.reports")
