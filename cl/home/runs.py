"""The runs of a home: how each can be made again, and what it came to.

`runs/ID/request.json` names the run, `source.json` says how to make it again, `resolution.json` which samples it read.
`manifest.json` is what it built; replacing that file, in one step, is what makes a new generation of the run live.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from cl.documents import Document, read_document
from cl.errors import BadInput, DeletionError
from cl.home.layout import QUARANTINED, STALE
from cl.home.records import Manifest, Request, Resolution, RunSource
from cl.home.store import Store

UNFINISHED = "unfinished"  # a file in the folder of a run that has begun and not ended
MANIFEST = "manifest.json"

Generation = tuple[int, int, int]  # inode, size and time of the manifest

Kept = TypeVar("Kept", bound=Document)


def read_manifest(path: Path, mend: str) -> Manifest:
    """The manifest in a file. Raises StoreError where it cannot be read; `mend` is what to do then."""
    return read_document(path, Manifest, f"manifest {path}", mend)


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

    def begin(self, request: Request, source: RunSource) -> None:
        """Keep what the run is asked to be and how to make it again, and mark it as begun."""
        mark = self._folder / request.id / UNFINISHED
        if not mark.exists():
            self._store.write(mark, b"")
        self._write(request.id, "request.json", request)
        self._write(request.id, "source.json", source)

    def request(self, run: str) -> Request:
        return self._load(run, "request.json", Request)

    def source(self, run: str) -> RunSource:
        return self._load(run, "source.json", RunSource)

    def live(self, run: str) -> Manifest | None:
        """The generation that counts; None for a run that is stale or has not finished."""
        return self._load(run, MANIFEST, Manifest) if (self._folder / run / MANIFEST).exists() else None

    def resolution(self, run: str) -> Resolution:
        """The stream as the live generation read it."""
        return self._load(run, "resolution.json", Resolution)

    def stale(self, run: str) -> str | None:
        """The deletion that made the run stale, until it is built again."""
        return self._mark(run, STALE)

    def quarantined(self, run: str) -> str | None:
        """The deletion that has taken the run out of service, until it has switched it."""
        return self._mark(run, QUARANTINED)

    def in_service(self, run: str) -> Generation:
        """Which generation of the run is live. Raises DeletionError where there is none now."""
        request = self.quarantined(run)
        if request is not None:
            raise DeletionError(f"run {run} is quarantined by deletion {request}; execute that again to finish it")
        try:
            found = (self._folder / run / MANIFEST).stat()
        except FileNotFoundError:
            raise DeletionError(f"run {run} is stale or was never finished; run it again") from None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def served(self, run: str) -> Manifest:
        """The live generation, for whoever shows or uses the model. Raises DeletionError where there is none now."""
        self.in_service(run)
        return self._load(run, MANIFEST, Manifest)

    def all_live(self) -> Iterator[tuple[str, Manifest]]:
        """Every run that has a live generation."""
        for run in self.ids():
            live = self.live(run)
            if live is not None:
                yield run, live

    def switch(self, run: str, resolution: Resolution, manifest: Manifest) -> None:
        """Make this the live generation, in one step, and put the run into service."""
        self._write(run, "resolution.json", resolution)
        self._write(run, MANIFEST, manifest)
        for mark in (QUARANTINED, STALE, UNFINISHED):
            (self._folder / run / mark).unlink(missing_ok=True)

    def quarantine(self, run: str, request: str) -> None:
        """Take the run out of service until the deletion `request` has switched it."""
        self._store.write(self._folder / run / QUARANTINED, request.encode())

    def retire(self, run: str, request: str) -> None:
        """Take what the run came to away, because of the deletion `request`."""
        self._store.write(self._folder / run / STALE, request.encode())
        for name in (MANIFEST, "resolution.json"):
            (self._folder / run / name).unlink(missing_ok=True)

    def _mark(self, run: str, name: str) -> str | None:
        path = self._folder / run / name
        return path.read_text(encoding="ascii") if path.exists() else None

    def _load(self, run: str, name: str, kind: type[Kept]) -> Kept:
        path = self._folder / run / name
        return read_document(path, kind, f"what is kept of run {run} ({path})", "run it again")

    def _write(self, run: str, name: str, content: Document) -> None:
        path, data = self._folder / run / name, content.to_json()
        if not path.exists() or path.read_bytes() != data:
            self._store.write(path, data)
