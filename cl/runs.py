"""The runs of a home: how each can be made again, and its manifests, one generation after the other.

`runs/ID/request.json` names the run, `source.json` says how to replay it, `generations/N/` holds what it was resolved
to and what it built. `live.json` names the generation that counts, and is replaced in one step: a deletion moves it on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cl.digests import canonical
from cl.errors import BadInput, DeletionError, StoreError
from cl.store import Store


@dataclass(frozen=True)
class Live:
    """A run's live generation. resolution: the resolved stream; manifest: entries, components, uses (name, key)."""

    generation: int
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
        matches = [run] if run in self.ids() else [name for name in self.ids() if name.startswith(run)]
        if len(matches) > 1:
            raise BadInput(f"run '{run}' is ambiguous: {', '.join(matches)}; give more of the id")
        if not matches:
            raise BadInput(f"no run '{run}' in {self._store.home}; see palimpsest results, or give its --home")
        return matches[0]

    def describe(self, run: str, request: Mapping[str, Any], source: Mapping[str, Any]) -> None:
        """Keep what the run was asked to be, and how to make it again."""
        self._write(run, "request.json", request)
        self._write(run, "source.json", source)

    def request(self, run: str) -> dict[str, Any]:
        return self._read(run, "request.json")

    def source(self, run: str) -> dict[str, Any]:
        return self._read(run, "source.json")

    def live(self, run: str) -> Live | None:
        """The generation that counts; None for a run that is stale or has not finished."""
        pointer = self._pointer(run)
        if pointer.get("generation") is None:
            return None
        place = f"generations/{pointer['generation']}"
        return Live(
            pointer["generation"],
            self._read(run, f"{place}/resolution.json"),
            self._read(run, f"{place}/manifest.json"),
        )

    def stale(self, run: str) -> str | None:
        """The deletion that made the run stale, until it is built again."""
        return self._pointer(run).get("stale")

    def all_live(self) -> Iterator[tuple[str, Live]]:
        """Every run that has a live generation."""
        for run in self.ids():
            live = self.live(run)
            if live is not None:
                yield run, live

    def switch(self, run: str, resolution: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
        """Make this the live generation: the same one if nothing changed, else the next, moved to in one step."""
        live = self.live(run)
        if live is not None and live.resolution == resolution and live.manifest == manifest:
            self._write(run, "live.json", {"generation": live.generation})
            return
        generation = 1 + max(self._generations(run), default=0)
        self._write(run, f"generations/{generation}/resolution.json", resolution)
        self._write(run, f"generations/{generation}/manifest.json", manifest)
        self._write(run, "live.json", {"generation": generation})

    def quarantine(self, run: str, request: str) -> None:
        """Mark the run as being deleted from: its live generation is not served until the next one is there."""
        self._write(run, "live.json", {**self._pointer(run), "quarantined": request})

    def served(self, run: str) -> Live:
        """The live generation, for whoever shows or uses the model. Raises DeletionError where there is none now."""
        pointer = self._pointer(run)
        if "quarantined" in pointer:
            raise DeletionError(
                f"run {run} is quarantined by deletion {pointer['quarantined']}; execute that again to finish it"
            )
        live = self.live(run)
        if live is None:
            raise DeletionError(f"run {run} is stale or was never finished; run it again")
        return live

    def retire(self, run: str, request: str) -> None:
        """Mark the run as stale because of the deletion `request`."""
        self._write(run, "live.json", {"stale": request})

    def purge(self, run: str) -> int:
        """Remove every generation but the live one; how many there were."""
        live = self._pointer(run).get("generation")
        gone = [generation for generation in self._generations(run) if generation != live]
        for generation in gone:
            shutil.rmtree(self._folder / run / "generations" / str(generation))
        return len(gone)

    def _generations(self, run: str) -> list[int]:
        return [int(path.name) for path in (self._folder / run / "generations").glob("*") if path.name.isdecimal()]

    def _pointer(self, run: str) -> dict[str, Any]:
        return self._read(run, "live.json") if (self._folder / run / "live.json").exists() else {}

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
