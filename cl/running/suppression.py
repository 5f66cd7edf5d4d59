"""The suppression list: samples that were deleted and must not come back, known by keyed hashes alone."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cl.data.stream import Stream
from cl.digests import canonical
from cl.errors import CorruptComponent
from cl.home.keys import keyed, system_key
from cl.home.runs import Runs
from cl.home.shards import contents_of
from cl.home.store import Record, Store


class Suppression:
    """`audit/suppressed.json`: request -> the run it is meant for (None: all) and the samples' keyed hashes.

    A sample is known by id and content together: other data under the same id in another stream is another sample.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / "audit" / "suppressed.json"

    def stamp(self) -> tuple[int, int, int] | None:
        """Changes whenever the list does."""
        if not self._path.exists():
            return None
        found = self._path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    def of(self, stream: Stream, run: str) -> set[str]:
        """The ids of `stream` that `run` must not read."""
        return self._among(stream, self._hashes(run))

    def deleted_by(self, request: str, stream: Stream) -> set[str]:
        """The ids of `stream` that `request` deleted."""
        return self._among(stream, set(self._load().get(request, {"samples": []})["samples"]))

    def reaches(self, store: Store, run: str) -> bool:
        """Whether the live generation of `run` may have read what it must not read, as it has where runs and store were
        put back from before a deletion. Where a record is gone nobody knows, so it may."""
        hashes = self._hashes(run)
        if not hashes:
            return False
        records = [_record(store, key) for key in Runs(store).served(run).keys]
        if None in records:
            return True
        read = {one["digest"] for record in records if record for one in record.reads if one["kind"] == "shard"}
        held = {path.stem: contents_of(readings) for path, readings in store.shards if path.stem in read}
        key = system_key(self._home)
        pairs = (pair for samples in held.values() for pair in samples.items())
        return held.keys() != read or any(keyed(key, list(pair)) in hashes for pair in pairs)

    def _hashes(self, run: str) -> set[str]:
        """What `run` must not read."""
        return {name for entry in self._load().values() if entry["run"] in (None, run) for name in entry["samples"]}

    def _among(self, stream: Stream, hashes: Collection[str]) -> set[str]:
        if not hashes:
            return set()
        key = system_key(self._home)
        pairs = [pair for shard in stream.shards for pair in zip(shard.ids, shard.contents, strict=True)]
        return {sample for sample, content in pairs if keyed(key, [sample, content]) in hashes}

    def add(self, store: Store, request: str, run: str | None, samples: Mapping[str, str]) -> None:
        """Keep `samples` (id -> content digest) out of `run`, or out of every run if None."""
        key = system_key(self._home)
        hashes = sorted(keyed(key, [sample, content]) for sample, content in samples.items())
        self._save(store, {**self._load(), request: {"run": run, "samples": hashes}})

    def lift(self, store: Store, request: str) -> int:
        """Let the samples of `request` come again; how many there were."""
        entries = self._load()
        entry = entries.pop(request, {"samples": []})
        self._save(store, entries)
        return len(entry["samples"])

    def _load(self) -> dict[str, dict[str, Any]]:
        return json.loads(self._path.read_bytes()) if self._path.exists() else {}

    def _save(self, store: Store, entries: Mapping[str, object]) -> None:
        store.write(self._path, canonical(entries))


def _record(store: Store, key: str) -> Record | None:
    """What is known of a component, also of one whose bytes were evicted."""
    for suffix in ("json", "evicted"):
        with suppress(OSError, CorruptComponent):
            return store.record(key, suffix)
    return None
