"""The runs of a home: how each can be made again, and what it came to.

`runs/ID/request.json` names the run, `source.json` says how to make it again, `resolution.json` which samples it read.
`manifest.json` is what it built; replacing that file, in one step, is what makes a new generation of the run live.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cl.digests import canonical
from cl.errors import BadInput, DeletionError, StoreError
from cl.home.layout import QUARANTINED, STALE
from cl.home.store import Store

RUN_ID = 12  # hexadecimal digits of the request's digest
UNFINISHED = "unfinished"  # a file in the folder of a run that has begun and not ended


@dataclass(frozen=True)
class Live:
    """A run's live generation. resolution: the resolved stream; manifest: entries, components, uses (name, key)."""

    resolution: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @property
    def keys(self) -> set[str]:
        """Keys of all components that the run used."""
        return {key for _, key in self.manifest["uses"]}

    @property
    def components(self) -> dict[str, str]:
        """Durable parts and predictions: name -> content digest."""
        return dict(self.manifest["components"])


class Runs:
    """`runs/` of a home."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.home / "runs"

    def ids(self) -> list[str]:
        """Every run, also one that never finished."""
        return sorted(path.parent.name for path in self._folder.glob("*/request.json"))

    def find(self, run: str) -> str:
        """The id that begins with `run`. Raises BadInput if there is none, or more than one."""
        if not run:  # a variable that was never set must not name the only run there is
            raise BadInput("say which run; palimpsest results lists them")
        matches = [run] if run in self.ids() else [name for name in self.ids() if name.startswith(run)]
        if len(matches) > 1:
            raise BadInput(f"run '{run}' is ambiguous: {', '.join(matches)}; give more of the id")
        if not matches:
            raise BadInput(f"no run '{run}' in {self._store.home}; see palimpsest results, or give its --home")
        return matches[0]

    def begin(self, run: str, request: Mapping[str, Any], source: Mapping[str, Any]) -> None:
        """Keep what the run is asked to be and how to make it again, and mark it as begun."""
        if not (self._folder / run / UNFINISHED).exists():
            self._store.write(self._folder / run / UNFINISHED, b"")
        self._write(run, "request.json", request)
        self._write(run, "source.json", source)

    def request(self, run: str) -> dict[str, Any]:
        return self._read(run, "request.json")

    def source(self, run: str) -> dict[str, Any]:
        return self._read(run, "source.json")

    def live(self, run: str) -> Live | None:
        """The generation that counts; None for a run that is stale or has not finished."""
        if not (self._folder / run / "manifest.json").exists():
            return None
        return Live(self._read(run, "resolution.json"), self._read(run, "manifest.json"))

    def stale(self, run: str) -> str | None:
        """The deletion that made the run stale, until it is built again."""
        return self._mark(run, STALE)

    def in_service(self, run: str) -> tuple[int, int, int]:
        """What changes with every generation of the run. Raises DeletionError where there is none now."""
        request = self._mark(run, QUARANTINED)
        if request is not None:
            raise DeletionError(f"run {run} is quarantined by deletion {request}; execute that again to finish it")
        try:
            found = (self._folder / run / "manifest.json").stat()
        except FileNotFoundError:
            raise DeletionError(f"run {run} is stale or was never finished; run it again") from None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def served(self, run: str) -> Live:
        """The live generation, for whoever shows or uses the model. Raises DeletionError where there is none now."""
        self.in_service(run)
        live = self.live(run)
        assert live is not None
        return live

    def all_live(self) -> Iterator[tuple[str, Live]]:
        """Every run that has a live generation."""
        for run in self.ids():
            live = self.live(run)
            if live is not None:
                yield run, live

    def switch(self, run: str, resolution: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """Make this the live generation, in one step, and put the run into service."""
        self._write(run, "resolution.json", resolution)
        self._write(run, "manifest.json", manifest)
        for mark in (QUARANTINED, STALE, UNFINISHED):
            (self._folder / run / mark).unlink(missing_ok=True)

    def quarantine(self, run: str, request: str) -> None:
        """Take the run out of service until the deletion `request` has switched it."""
        self._store.write(self._folder / run / QUARANTINED, request.encode())

    def retire(self, run: str, request: str) -> None:
        """Take what the run came to away, because of the deletion `request`."""
        self._store.write(self._folder / run / STALE, request.encode())
        for name in ("manifest.json", "resolution.json"):
            (self._folder / run / name).unlink(missing_ok=True)

    def _mark(self, run: str, name: str) -> str | None:
        path = self._folder / run / name
        return path.read_text(encoding="ascii") if path.exists() else None

    def _read(self, run: str, name: str) -> dict[str, Any]:
        path = self._folder / run / name
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(f"run {run} cannot be read ({path}); run it again") from error
        return content

    def _write(self, run: str, name: str, content: Any) -> None:
        path, data = self._folder / run / name, canonical(content)
        if not path.exists() or path.read_bytes() != data:
            self._store.write(path, data)
