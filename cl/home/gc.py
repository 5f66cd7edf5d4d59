"""Collecting garbage: what no run reaches, what was left by a crash, and on request the caches.

Nothing that is removed changes a result: a component that is asked for again is built again, to the same bytes. So a
run that goes on meanwhile loses work at most; what is younger than a run that has not ended is spared all the same.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cl.errors import CorruptComponent
from cl.home.runs import UNFINISHED, read_manifest
from cl.home.store import Store
from cl.home.writing import TEMPORARY

ABANDONED_SECONDS = 7 * 86_400  # a run that has not ended after a week is taken for given up
STALE_SECONDS = 3_600  # no single file takes an hour to write


@dataclass(frozen=True)
class Garbage:
    """One thing that may go. what: unused | shard | cache | checkpoint | temporary. paths: its files."""

    what: str
    name: str
    bytes: int
    paths: tuple[Path, ...]


def collect(store: Store, *, caches: bool = False, keep: int = 0, dry_run: bool = False) -> list[Garbage]:
    """Remove garbage and return what it was; with `dry_run`, only return it.

    caches: evict caches too, the least recently used first, until those left take `keep` bytes at most.
    """
    spared = _oldest_unfinished(store.home)
    unused = list(_unused(store, spared))
    found = [
        *unused,
        *_shards(store, {one.name for one in unused}, spared),
        *_checkpoints(store.home, spared),
        *_temporary(store.home),
    ]
    if caches:
        found += _evicted(store, {one.name for one in found}, keep)
    if not dry_run:
        for one in found:
            _remove(store, one)
    return found


def _remove(store: Store, one: Garbage) -> None:
    if one.what == "cache":
        store.evict(one.name)
        return
    for path in one.paths:
        path.unlink(missing_ok=True)


def _oldest_unfinished(home: Path) -> float:
    """When the oldest run began that may still go on; what is younger may be its own."""
    now = time.time()
    begun = [marker.stat().st_mtime for marker in home.glob(f"runs/*/{UNFINISHED}")]
    return min([when for when in begun if when > now - ABANDONED_SECONDS], default=float("inf"))


def _unused(store: Store, spared: float) -> Iterator[Garbage]:
    reached = _reached(store.home)
    for key in store.keys():
        paths = store.files(key)
        if key not in reached and _changed(paths) < spared:
            yield _garbage("unused", key, paths)


def _shards(store: Store, gone: set[str], spared: float) -> Iterator[Garbage]:
    """Lists of the samples of shards that nothing left in the store has read."""
    records = store.lineage()
    read = {one["digest"] for key, record in records.items() if key not in gone for one in record.reads}
    for path, _ in store.shards:
        if path.stem not in read and _changed([path]) < spared:
            yield _garbage("shard", path.stem, [path])


def _reached(home: Path) -> set[str]:
    """The keys that some run used. Raises StoreError for a damaged manifest: it may reach anything."""
    reached: set[str] = set()
    for path in home.glob("runs/*/manifest*.json"):
        mend = "what its run uses is not known, so mend it with palimpsest store verify --fix first"
        reached |= read_manifest(path, mend).keys
    return reached


def _checkpoints(home: Path, spared: float) -> Iterator[Garbage]:
    for path in sorted((home / "checkpoints").glob("*.safetensors")):
        if _changed([path]) < spared:
            yield _garbage("checkpoint", path.stem, [path])


def _temporary(home: Path) -> Iterator[Garbage]:
    for path in sorted(home.rglob(f"{TEMPORARY}*")):
        if _changed([path]) < time.time() - STALE_SECONDS:
            yield _garbage("temporary", path.name, [path])


def _evicted(store: Store, gone: set[str], keep: int) -> list[Garbage]:
    """The caches that do not fit into `keep` bytes when the most recently used come first."""
    caches = [
        _garbage("cache", key, store.files(key)) for key in store.keys() if key not in gone and _cache(store, key)
    ]
    evicted, total = [], 0
    for one in sorted(caches, key=lambda cache: -max(path.stat().st_atime for path in cache.paths)):
        total += one.bytes
        if total > keep:
            evicted.append(one)
    return evicted


def _cache(store: Store, key: str) -> bool:
    try:
        return all(part["role"] == "cache" for part in store.record(key).parts.values())
    except (OSError, CorruptComponent):
        return False


def _changed(paths: Sequence[Path]) -> float:
    """When the newest of these was written; a file that is gone meanwhile counts as new."""
    try:
        return max((path.stat().st_mtime for path in paths), default=float("inf"))
    except OSError:
        return float("inf")


def _garbage(what: str, name: str, paths: Sequence[Path]) -> Garbage:
    return Garbage(what, name, sum(path.stat().st_size for path in paths), tuple(paths))
