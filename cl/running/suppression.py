"""The suppression list: samples that were deleted and must not come back, known by keyed hashes alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from cl.data.stream import Stream
from cl.documents import Document, read_document
from cl.errors import CorruptComponent, DataDeleted
from cl.home.keys import keyed, system_key
from cl.home.runs import Runs
from cl.home.shards import contents_of
from cl.home.store import Record, Store

Stamp = tuple[int, int, int]  # inode, size and time of the list


@dataclass(frozen=True)
class Suppressed:
    """What one request keeps out. run: of which run, None of all. samples: keyed hashes."""

    run: str | None
    samples: tuple[str, ...]


NOTHING = Suppressed(None, ())


@dataclass(frozen=True)
class SuppressionList(Document):
    """By request."""

    requests: Mapping[str, Suppressed] = field(default_factory=dict)


class Suppression:
    """`audit/suppressed.json`.

    A sample is known by id and content together: other data under the same id in another stream is another sample.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / "audit" / "suppressed.json"

    def stamp(self) -> Stamp | None:
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
        return self._among(stream, self._load().requests.get(request, NOTHING).samples)

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
        return {name for one in self._load().requests.values() if one.run in (None, run) for name in one.samples}

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
        self._save(store, {**self._load().requests, request: Suppressed(run, tuple(hashes))})

    def lift(self, store: Store, request: str) -> int:
        """Let the samples of `request` come again; how many there were."""
        entries = dict(self._load().requests)
        entry = entries.pop(request, NOTHING)
        self._save(store, entries)
        return len(entry.samples)

    def _load(self) -> SuppressionList:
        if not self._path.exists():
            return SuppressionList()
        mend = "put it back: without it deleted data would return"
        return read_document(self._path, SuppressionList, str(self._path), mend)

    def _save(self, store: Store, entries: Mapping[str, Suppressed]) -> None:
        store.write(self._path, SuppressionList(entries).to_json())


def _record(store: Store, key: str) -> Record | None:
    """What is known of a component, also of one whose bytes were evicted."""
    for suffix in ("json", "evicted"):
        with suppress(OSError, CorruptComponent):
            return store.record(key, suffix)
    return None


class Guard:
    """Refuses every write of a run from when data that it reads was deleted on.

    stamp: of the list when `stream` was still free of what it names.
    """

    def __init__(self, suppression: Suppression, stream: Stream, run: str, stamp: Stamp | None) -> None:
        self._suppression, self._stream, self._run, self._stamp = suppression, stream, run, stamp

    def __call__(self) -> None:
        stamp = self._suppression.stamp()
        if stamp == self._stamp:
            return
        gone = self._suppression.of(self._stream, self._run)
        if gone:
            raise DataDeleted(
                f"{len(gone)} samples of this run were deleted while it ran; run the same command again without them"
            )
        self._stamp = stamp
