"""The suppression list: what was deleted and must not come back, known by keyed hashes alone.

A deleted sample is known again by its name (stream and id) and by its marks: of its file's bytes, of its pixels. A
person whose data were deleted is known by name in the stream, so that what arrives of that person later stays out too.

The list fails closed. It fits what the home's marker remembers and what the ledger records, to the last entry, or
whoever asks for it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from cl.data.samples import Samples
from cl.data.stream import Stream, Task, without
from cl.documents import Document, plain, read_document
from cl.errors import AccessRevoked, CorruptComponent, DataDeleted, DeletionError, LedgerError, StoreError
from cl.home.deletions import ListState, Memory, remember, remembered
from cl.home.keys import RESTORE, fingerprint_of, keyed, system_key, system_key_path
from cl.home.layout import MARKER
from cl.home.ledger import Ledger
from cl.home.runs import Runs
from cl.home.shards import ShardRow, Traces
from cl.home.store import Record, Store

Stamp = tuple[tuple[int, int, int] | None, ...]  # inode, size and time of list, marker and ledger


@dataclass(frozen=True)
class Suppressed:
    """What one request keeps out, all as keyed hashes. run: of which run, None of all. names: of samples; marks: of
    their contents; people: who is behind them. kept: names that have such a mark and stay; admitted: whether people's
    later arrivals may come."""

    run: str | None
    names: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    people: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    admitted: bool = False


@dataclass(frozen=True)
class SuppressionList(Document):
    """By request. key: the fingerprint of the key that the hashes are under."""

    key: str = ""
    requests: Mapping[str, Suppressed] = field(default_factory=dict)


@dataclass(frozen=True)
class Absent:
    """What must stay out of a stream: deleted samples, and what came later of people whose data were deleted, by the
    request that says so."""

    deleted: frozenset[str] = frozenset()
    arrived: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def ids(self) -> frozenset[str]:
        return self.deleted.union(*self.arrived.values())

    @property
    def notes(self) -> list[str]:
        """What whoever runs the stream is told."""
        told = []
        if self.deleted:
            told.append(
                f"skipped {len(self.deleted)} samples that were deleted; palimpsest forget status names the request"
            )
        for request, ids in self.arrived.items():
            told.append(
                f"kept out {len(ids)} new samples of a person whose data were deleted (request {request}); "
                f"palimpsest forget admit {request} lets them in"
            )
        return told


class Suppression:
    """`audit/suppressed.json`. Whatever reads it raises DeletionError unless it fits marker, key and ledger."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / "audit" / "suppressed.json"

    def stamp(self) -> Stamp:
        """Changes whenever the list does, or what it must fit."""
        return tuple(_stamp(path) for path in (self._path, self._home / MARKER, self._home / "audit" / "ledger.jsonl"))

    def of(self, stream: Stream, run: str | None) -> Absent:
        """What `run` must not read of `stream`; None: of a loop that is no run of the home."""
        requests = self._list().requests.items()
        return self._absent(stream, {name: one for name, one in requests if one.run in (None, run)})

    def deleted_by(self, request: str, stream: Stream) -> frozenset[str]:
        """The ids of `stream` that `request` deleted."""
        found = self._list().requests.get(request)
        return frozenset() if found is None else self._absent(stream, {request: found}).deleted

    def knows(self, request: str) -> bool:
        """Whether the list fits, and holds what `request` deleted."""
        try:
            return request in self._list().requests
        except (DeletionError, StoreError, LedgerError):
            return False

    def rest(self, task: Task) -> Task:
        """The task without what was deleted from all of the home. Raises DataDeleted where nothing is left."""
        gone = set(self._deleted([task.train, task.test], self._everywhere))
        rest = without(task, gone)
        if rest is None:
            raise DataDeleted(f"all images of task '{task.id}' were deleted from {self._home}; leave it out")
        return rest

    def meets(self, shard: Samples) -> bool:
        """Whether a shard that is no run's holds what was deleted from all of the home."""
        everywhere = self._everywhere
        return bool(everywhere) and any(self._deleted([shard], everywhere))

    @property
    def _everywhere(self) -> list[Suppressed]:
        return [one for one in self._list().requests.values() if one.run is None]

    def reaches(self, store: Store, run: str) -> bool:
        """Whether the live generation of `run` may have read what it must not read, as it has where runs and store were
        put back from before a deletion. Where a record is gone nobody knows, so it may."""
        entries = [one for one in self._list().requests.values() if one.run in (None, run)]
        if not entries:
            return False
        records = [_record(store, key) for key in Runs(store).served(run).keys]
        if None in records:
            return True
        read = {one["digest"] for record in records if record for one in record.reads if one["kind"] == "shard"}
        held = {path.stem: found for path, found in store.shards if path.stem in read}
        if held.keys() != read:
            return True
        known = _Known(system_key(self._home), entries)
        return any(known.meets(one.stream, row) for found in held.values() for one in found for row in one.rows)

    def add(self, store: Store, request: str, entry: Suppressed, samples: int) -> ListState:
        """Keep out what `entry` says, from now on. Give the state to the ledger, then to `settle`."""
        memory = remembered(self._home)
        deletions = {**memory.deletions, request: samples}
        return self._change(store, {**self._list().requests, request: entry}, replace(memory, deletions=deletions))

    def lift(self, store: Store, request: str) -> tuple[int, ListState]:
        """Let come again what `request` keeps out; how many samples, and what is to be recorded as by `add`."""
        entries, memory = dict(self._list().requests), remembered(self._home)
        entry = entries.pop(request, Suppressed(None))
        deletions = {name: count for name, count in memory.deletions.items() if name != request}
        return len(entry.names), self._change(store, entries, replace(memory, deletions=deletions))

    def admit(self, store: Store, request: str) -> ListState:
        """Let in what comes later of the people of `request`; what was deleted stays out."""
        entries = dict(self._list().requests)
        if request not in entries or not entries[request].people:
            raise DeletionError(f"request {request} was not about a person, or was readmitted: nothing to admit")
        entries[request] = replace(entries[request], admitted=True)
        return self._change(store, entries, remembered(self._home))

    def restore(self, store: Store, entries: Mapping[str, Suppressed], deletions: Mapping[str, int]) -> ListState:
        """The list anew, from what the operator has kept: for one that is lost or does not fit. deletions: how many
        samples every request deleted; as long as one has no entry, the list is refused."""
        return self._change(store, entries, replace(remembered(self._home), deletions=deletions))

    def entry(self, run: str | None, traces: Traces, people: Collection[tuple[str, str]] = ()) -> Suppressed:
        """What keeps these samples, and later ones of these people (stream, name), out of `run`."""
        key = system_key(self._home)
        return Suppressed(
            run,
            names=tuple(sorted(keyed(key, ["sample", *name]) for name in traces.names)),
            marks=tuple(sorted(keyed(key, ["mark", mark]) for mark in traces.marks)),
            people=tuple(sorted(keyed(key, ["person", *who]) for who in people)),
            kept=tuple(sorted(keyed(key, ["sample", *name]) for name in traces.kept)),
        )

    def salvaged(self) -> dict[str, Suppressed]:
        """Entries of a list that may not fit, as far as they can be read under the key that there is."""
        with suppress(StoreError, DeletionError):
            found = self._read()
            if found.key == fingerprint_of(system_key(self._home)):
                return dict(found.requests)
        return {}

    def _absent(self, stream: Stream, entries: Mapping[str, Suppressed]) -> Absent:
        if not entries:
            return Absent()
        deleted = frozenset(self._deleted(list(stream.shards), list(entries.values())))
        key = system_key(self._home)
        people = {who: keyed(key, ["person", stream.name, who]) for who in set(stream.subjects.values())}
        arrived = {
            request: frozenset(
                sample
                for sample, who in stream.subjects.items()
                if people[who] in one.people and sample not in deleted and not one.admitted
            )
            for request, one in entries.items()
        }
        return Absent(deleted, {request: ids for request, ids in arrived.items() if ids})

    def _deleted(self, shards: Sequence[Samples], entries: Sequence[Suppressed]) -> Iterator[str]:
        """The ids of those samples that an entry names, or whose content it knows."""
        if not entries:
            return
        known = _Known(system_key(self._home), entries)
        for shard in shards:
            yield from (row.id for row in shard.described.rows if known.meets(shard.origin.stream, row))

    def _change(self, store: Store, entries: Mapping[str, Suppressed], memory: Memory) -> ListState:
        """Tell the marker, then make the list. The caller holds the home's lock alone."""
        key = system_key(self._home)
        made = SuppressionList(fingerprint_of(key), dict(sorted(entries.items())))
        state = _state(made, key)
        remember(self._home, replace(memory, next=state))
        store.write(self._path, made.to_json())
        return state

    def _list(self) -> SuppressionList:
        memory = remembered(self._home)
        recorded = Ledger(self._home).list_state()
        if memory.blank:
            if self._path.exists() or recorded is not None:
                raise self._unfit(f"{MARKER} remembers no deletion, but audit/ does")
            return SuppressionList()
        if recorded not in memory.expected:
            raise self._unfit("the ledger is not the one that recorded the deletions of this home")
        if not self._path.exists():
            if memory.current is None:  # the first deletion had only begun
                return SuppressionList()
            raise self._unfit(f"{self._path} is missing")
        key = system_key(self._home)
        found = self._read()
        if found.key != fingerprint_of(key):
            raise self._unfit(f"{system_key_path(self._home)} is not the key that the list of deleted samples is under")
        state = _state(found, key)
        if state not in memory.expected:
            raise self._unfit(f"{self._path} is not the list that was recorded")
        lost = sorted(memory.deletions.keys() - found.requests.keys())
        begun = memory.next is not None and state == memory.current  # its latest request is not in the list yet
        if lost and not begun:
            raise self._unfit(f"what request {lost[0]} deleted is not in {self._path}")
        return found

    def _read(self) -> SuppressionList:
        return read_document(self._path, SuppressionList, str(self._path), RESTORE)

    def _unfit(self, why: str) -> DeletionError:
        return DeletionError(f"deleted samples of {self._home} cannot be kept out: {why}; {RESTORE}")


def _state(found: SuppressionList, key: bytes) -> ListState:
    return ListState(len(found.requests), keyed(key, plain(found)), fingerprint_of(key))


class _Known:
    """Tells samples that entries name, or whose content they know, from all others."""

    def __init__(self, key: bytes, entries: Sequence[Suppressed]) -> None:
        self._key = key
        self._names = {name for one in entries for name in one.names}
        self._marks = [(frozenset(one.marks), frozenset(one.kept)) for one in entries]

    def meets(self, stream: str, row: ShardRow) -> bool:
        name = keyed(self._key, ["sample", stream, row.id])
        marks = {keyed(self._key, ["mark", mark]) for mark in row.marks}
        copies = (name not in kept and not marks.isdisjoint(known) for known, kept in self._marks)
        return name in self._names or any(copies)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    if not path.exists():
        return None
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _record(store: Store, key: str) -> Record | None:
    """What is known of a component, also of one whose bytes were evicted."""
    for suffix in ("json", "evicted"):
        with suppress(OSError, CorruptComponent):
            return store.record(key, suffix)
    return None


class Guard:
    """Refuses every write of a run from when data that it reads was deleted on, or revoked from its user.

    stamp: of the list when `stream` was still free of what it names. revoked: what of it the run's user may not read
    any more.
    """

    def __init__(
        self,
        suppression: Suppression,
        stream: Stream,
        run: str,
        stamp: Stamp,
        revoked: Callable[[], Collection[str]],
    ) -> None:
        self._suppression, self._stream, self._run, self._stamp = suppression, stream, run, stamp
        self._revoked = revoked

    def __call__(self) -> None:
        lost = self._revoked()
        if lost:
            raise AccessRevoked(
                f"{len(lost)} samples of this run were revoked from its user while it ran; run the same command again "
                "without them"
            )
        stamp = self._suppression.stamp()
        if stamp == self._stamp:
            return
        gone = self._suppression.of(self._stream, self._run).ids
        if gone:
            raise DataDeleted(
                f"{len(gone)} samples of this run were deleted while it ran; run the same command again without them"
            )
        self._stamp = stamp
