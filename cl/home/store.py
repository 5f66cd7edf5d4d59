"""The store: components as files, their records, and lineage queries over them.

Files are the truth. Per key one blob (safetensors) and one record (JSON), in two-level folders. Writes go to a
temporary file, are fsynced and moved into place; two builders of one key write equal bytes, so locks only save work.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from cl.digests import canonical, digest_json, digest_tensors
from cl.errors import BadInput, CorruptComponent, StoreError
from cl.home.layout import FORMAT, MARKER, check_home, home_error
from cl.home.shards import Shard, ShardFiles
from cl.home.writing import write_atomic

if TYPE_CHECKING:
    from torch import Tensor

DURABLE = ("adapter", "prototype", "head", "statistics", "router", "descriptor", "decision", "state")
ROLES = (*DURABLE, "prediction", "cache", "evidence", "checkpoint")

Tensors = dict[str, "Tensor"]  # whoever reads records alone loads no torch


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a stored component.

    parts: part name -> {"role", "digest", "numel", "bytes"}. reads: list of {"kind": "shard" | "part", "digest", ...}.
    """

    key: str
    build: str
    parts: Mapping[str, Mapping[str, Any]]
    reads: tuple[Mapping[str, Any], ...]
    arguments: Mapping[str, Any]
    numerics: Mapping[str, Any]
    seed: str | None
    backbone: str | None
    code: str
    seconds: float
    passes: int
    samples: int
    fingerprint: Mapping[str, str]
    blob: tuple[int, int] = (0, 0)  # size and modification time of the blob, to notice a change without reading it

    def as_json(self) -> dict[str, Any]:
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**content, "reads": list(self.reads), "blob": list(self.blob)}


class Store:
    """Components under `home/store`. Raises StoreError where the home cannot be used.

    guard: called before every write; it raises where that would bring back what was deleted.
    """

    def __init__(self, home: Path, guard: Callable[[], None] = lambda: None) -> None:
        self.home = home
        self.folder = home / "store"
        self.warnings: list[str] = []
        self.guard = guard
        self.shards = ShardFiles(home, self.write)
        self._held: int | None = None
        self._circumstances: dict[Any, Mapping[str, Any]] = {}  # of the records read, each kept once
        open_home(home)

    def find(self, key: str) -> Record | None:
        """The record of `key`, or None where there is none (or only a damaged one, which is set aside)."""
        try:
            return self.record(key)
        except FileNotFoundError:
            return None
        except CorruptComponent as error:
            self.discard(key, f"{error}; it is built again")
            return None
        except OSError as error:
            raise home_error(self.home, error) from error

    def record(self, key: str, suffix: str = "json") -> Record:
        """The record of `key`. Raises CorruptComponent for a damaged one, OSError where it cannot be read."""
        try:
            content = json.loads(self._path(key, suffix).read_bytes(), object_pairs_hook=_interned)
            checksum = content.pop("checksum")
            if checksum != digest_json(content) or content["key"] != key:
                raise ValueError
            for name in ("numerics", "fingerprint"):
                content[name] = self._circumstances.setdefault(frozenset(content[name].items()), content[name])
            return Record(**{**content, "reads": tuple(content["reads"]), "blob": tuple(content["blob"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptComponent(f"the record of component {key[:12]} is damaged") from error

    def used(self, record: Record) -> None:
        """Note that a cache was asked for: the least recently used are evicted first. Read-only homes note nothing."""
        if any(part["role"] != "cache" for part in record.parts.values()):
            return
        path = self._path(record.key, "json")
        with suppress(OSError):
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))

    def load(self, record: Record, part: str) -> Tensors:
        """The tensors of one part. Raises CorruptComponent if the blob is missing or does not match its digest."""
        from safetensors import SafetensorError
        from safetensors.torch import load as load_safetensors

        prefix = f"{part}/"
        try:
            blob = load_safetensors(self._path(record.key, "safetensors").read_bytes())
            # safetensors gives another order at each reading; what a build iterates over must not depend on it.
            tensors = {name[len(prefix) :]: blob[name] for name in sorted(blob) if name.startswith(prefix)}
        except (OSError, SafetensorError, ValueError, RuntimeError) as error:
            raise CorruptComponent(f"component {record.key[:12]} cannot be read ({type(error).__name__})") from error
        if digest_tensors(tensors) != record.parts[part]["digest"]:
            raise CorruptComponent(f"component {record.key[:12]} does not match its digest")
        return tensors

    def commit(self, record: Record, parts: Mapping[str, Tensors], shards: Sequence[Shard] = ()) -> None:
        """Write what the shards are, the blob, then the record; the component exists from the last replace on.

        Raises DataDeleted where the guard finds that samples of this run were deleted meanwhile.
        """
        with self.locked(exclusive=False):
            self.guard()
            for shard in shards:
                self.shards.remember(shard)
            self._commit(record, parts)

    def amend(self, record: Record, reads: Sequence[Mapping[str, Any]]) -> None:
        """Replace what `record` says it read; the component itself stays."""
        content = replace(record, reads=tuple(reads)).as_json()
        self.write(self._path(record.key, "json"), canonical({**content, "checksum": digest_json(content)}), mode=0o444)

    def _commit(self, record: Record, parts: Mapping[str, Tensors]) -> None:
        from safetensors.torch import save as save_safetensors

        flat = {
            f"{part}/{name}": t.detach().cpu().contiguous().clone()
            for part, ts in parts.items()
            for name, t in ts.items()
        }
        path = self._path(record.key, "safetensors")
        lasting = any(what["role"] not in ("cache", "evidence") for what in record.parts.values())
        try:
            write_atomic(path, save_safetensors(flat), mode=0o444, sync=lasting)
            content = replace(record, reads=self._ways(record), blob=_stat(path)).as_json()
            checked = canonical({**content, "checksum": digest_json(content)})
            write_atomic(self._path(record.key, "json"), checked, mode=0o444, sync=lasting)
            self._path(record.key, "evicted").unlink(missing_ok=True)
        except OSError as error:
            raise home_error(self.home, error) from error

    def _ways(self, record: Record) -> tuple[Mapping[str, Any], ...]:
        """What `record` read, and what it was made from besides when its bytes were there before: a deletion must
        follow every way to a component, also those that other runs have found."""
        with suppress(CorruptComponent, OSError):
            before = self.record(record.key, "evicted").reads
            return (*record.reads, *(read for read in before if read not in record.reads))
        return record.reads

    def sound(self, record: Record) -> bool:
        """Whether the blob is as it was written. Bytes are hashed only where size or time have changed; a damaged
        component is set aside with a warning."""
        try:
            if _stat(self._path(record.key, "safetensors")) != record.blob:
                for part in record.parts:
                    self.load(record, part)
        except (OSError, CorruptComponent):
            self.evict(record.key, f"component {record.key[:12]} ({record.build}) is damaged; it is built again")
            return False
        return True

    def discard(self, key: str, why: str | None = None) -> None:
        """Remove a component; the record goes first, so that no record is ever without its blob."""
        for suffix in ("json", "safetensors", "evicted"):
            self._path(key, suffix).unlink(missing_ok=True)
        if why is not None:
            self.warnings.append(why)

    @contextmanager
    def building(self, *keys: str) -> Iterator[None]:
        """Hold the build locks of `keys`: a second process waits and then finds the components stored."""
        locks = self.home / "locks"
        with ExitStack() as held:
            try:
                locks.mkdir(exist_ok=True)
                # Keys that begin alike share a lock. One order for all, so that no two processes wait for each other.
                for name in sorted({key[:3] for key in keys}):
                    held.enter_context(FileLock(locks / name))
            except OSError as error:
                raise home_error(self.home, error) from error
            yield

    def files(self, key: str) -> list[Path]:
        """Record and blob of `key`, those that are there."""
        return [path for suffix in ("json", "safetensors") if (path := self._path(key, suffix)).exists()]

    def keys(self) -> Iterator[str]:
        """The keys of all records, in sorted order."""
        for folder in sorted(self.folder.glob("??")):
            yield from sorted(path.stem for path in folder.glob("*.json"))

    def write(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        """Write a file of the home atomically. Raises StoreError, and DataDeleted where the guard does."""
        with self.locked(exclusive=False):
            self.guard()
            try:
                write_atomic(path, data, mode=mode)
            except OSError as error:
                raise home_error(self.home, error) from error

    @contextmanager
    def locked(self, exclusive: bool) -> Iterator[None]:
        """Hold the home's lock: every write shares it, a deletion has it alone. Inside itself it is held already."""
        if self._held is not None:
            yield
            return
        try:
            (self.home / "locks").mkdir(exist_ok=True)
            self._held = os.open(self.home / "locks" / "home", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise home_error(self.home, error) from error
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(self._held)  # closing gives the lock back, as the end of the process does
            self._held = None

    def evict(self, key: str, why: str | None = None) -> None:
        """Drop the bytes of a cache, or damaged ones, but not what is known of them: a deletion must still find what
        was made from them, and by which ways."""
        with suppress(FileNotFoundError):
            os.replace(self._path(key, "json"), self._path(key, "evicted"))
        self._path(key, "safetensors").unlink(missing_ok=True)
        if why is not None:
            self.warnings.append(why)

    def lineage(self) -> dict[str, Record]:
        """The record of every component, also of those whose bytes were evicted; damaged ones are set aside."""
        found = {key: record for key in list(self.keys()) if (record := self.find(key)) is not None}
        for path in sorted(self.folder.glob("??/*.evicted")):
            if path.stem not in found:
                with suppress(CorruptComponent, OSError):
                    found[path.stem] = self.record(path.stem, "evicted")
        return found

    def _path(self, key: str, suffix: str) -> Path:
        return self.folder / key[:2] / f"{key}.{suffix}"


def _interned(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose strings are kept once a process: thousands of records say the same."""
    return {sys.intern(name): sys.intern(value) if type(value) is str else value for name, value in pairs}


def _stat(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def check_parts(build: str, parts: Mapping[str, Tensors], roles: Mapping[str, str]) -> None:
    """Raises BadInput unless a build returned exactly its declared parts, each of named tensors."""
    from torch import Tensor

    if set(parts) != set(roles):
        raise BadInput(f"build {build} returned parts {sorted(parts)}, but declares {sorted(roles)}")
    for part, tensors in parts.items():
        for name, value in tensors.items():
            if not isinstance(value, Tensor):
                raise BadInput(
                    f"build {build} returned {type(value).__name__} for {part or 'its part'}/{name}, not a tensor"
                )


def describe_parts(parts: Mapping[str, Tensors], roles: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Role, content digest and size of each part."""
    return {
        part: {
            "role": roles[part],
            "digest": digest_tensors(tensors),
            "numel": sum(t.numel() for t in tensors.values()),
            "bytes": sum(t.numel() * t.element_size() for t in tensors.values()),
        }
        for part, tensors in parts.items()
    }


def open_home(home: Path) -> None:
    """Make the home if it is not there. Raises StoreError where it cannot be used or has another format."""
    marker = home / MARKER
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            if any((home / name).is_dir() for name in ("store", "runs", "shards", "audit")):
                mend = "put back the one that was there"
                raise StoreError(f"{marker} is missing, which remembers what was deleted; {mend}")
            write_atomic(marker, canonical({"format": FORMAT}))
    except OSError as error:
        raise home_error(home, error) from error
    check_home(home)
