"""What is known of files on disk, remembered in the home, so that a warm run reads none of them again.

`files.sqlite` is a cache: it may be deleted at any time. It holds no name and no plain digest: a file may be of a
sample that was deleted from the home and still lies at its source, and a plain digest would tell whether it was ever
read. All is under the home's own key, as the suppression list is.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cl.errors import BadInput, StoreError, shown
from cl.home.keys import system_key
from cl.home.layout import database_address
from cl.home.store import open_home
from cl.progress import track

WORKERS = min(8, os.cpu_count() or 1)
FEW = 16  # so few items are not worth a pool
# A file written again within the clock's grain keeps its size and time: so young a file is not remembered.
SETTLED_NS = 2_000_000_000

Item = TypeVar("Item")
Made = TypeVar("Made")


def mapped(function: Callable[[Item], Made], items: Sequence[Item], label: str | None = None) -> list[Made]:
    """`[function(item) for item in items]`, in threads where there are many; the result never depends on how many.

    label: under which progress is told, None for quick work.
    """
    if len(items) <= FEW:
        return [function(item) for item in items]
    with ThreadPoolExecutor(WORKERS) as pool:
        found = pool.map(function, items)
        return list(found if label is None else track(found, label, len(items)))


@dataclass(frozen=True)
class Stamp:
    """What a file looked like when it was read: enough to notice another content without reading it."""

    size: int
    modified_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ino)


class Files:
    """Digests of files, and which contents were found sound. `home` None: nothing is remembered.

    keeps: whether anything is added to what the home remembers; else it is only read, as what a deletion plans and a
    model predicts writes nothing. Raises StoreError where the home cannot be used.
    """

    def __init__(self, home: Path | None = None, *, keeps: bool = True) -> None:
        path = home / "files.sqlite" if home is not None else None
        self._keeps = keeps
        self._path = path if path is not None and (keeps or path.exists()) else None

    def digests(self, paths: Sequence[Path]) -> list[tuple[str, Stamp]]:
        """Content digest and stamp of each file. Raises BadInput for one that cannot be read."""
        stamps = [_readable(path, Stamp.of) for path in paths]
        with self._open() as (database, veil):
            keys = [veil.name(os.fsencode(os.path.abspath(path))) for path in paths]
            known = [_find(database, veil, key, stamp) for key, stamp in zip(keys, stamps, strict=True)]
            missing = [row for row, digest in enumerate(known) if digest is None]
            found = mapped(lambda row: _readable(paths[row], _digest), missing, "reading files")
            now = time.time_ns()
            for row, digest in zip(missing, found, strict=True):
                known[row] = digest
                if self._keeps and abs(now - stamps[row].modified_ns) > SETTLED_NS:
                    _remember(database, veil, keys[row], stamps[row], digest)
        return [(str(digest), stamp) for digest, stamp in zip(known, stamps, strict=True)]

    def sound(self, digests: Iterable[str], check: str) -> dict[str, str]:
        """Of those contents that `found_sound` was told of under the name `check`: content -> digest of its pixels."""
        query = "SELECT pixels FROM sound WHERE digest = ? AND how = ?"
        with self._open() as (database, veil):
            names = {one: veil.name(one.encode()) for one in digests}
            rows = {one: database.execute(query, (name, check)).fetchone() for one, name in names.items()}
            return {one: veil.turned(row[0], names[one], check) for one, row in rows.items() if row}

    def found_sound(self, pixels: Mapping[str, str], check: str) -> None:
        """Remember the contents that passed `check`, and the digests of their pixels."""
        if not self._keeps:
            return
        with self._open() as (database, veil):
            names = [(veil.name(digest.encode()), found) for digest, found in pixels.items()]
            rows = [(name, check, veil.turned(found, name, check)) for name, found in names]
            database.executemany("INSERT OR IGNORE INTO sound VALUES (?, ?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[tuple[sqlite3.Connection, _Veil]]:
        if self._path is not None and self._keeps:
            open_home(self._path.parent)
        veil = _Veil(system_key(self._path.parent) if self._path is not None else secrets.token_bytes(32))
        place = database_address(self._path, writes=self._keeps) if self._path is not None else ":memory:"
        try:
            with closing(sqlite3.connect(place, timeout=60, uri=True)) as database, database:
                if self._path is None or self._keeps:
                    _prepare(database)
                yield database, veil
        except sqlite3.OperationalError as error:
            raise StoreError(f"cannot use {self._path}: {error}; check disk space and permissions") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(f"{self._path} is damaged ({error}); remove it, it is only a cache") from error


def _prepare(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA secure_delete = ON")
    database.execute(
        "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, modified_ns INTEGER,"
        " inode TEXT, digest TEXT) STRICT"
    )
    database.execute(
        "CREATE TABLE IF NOT EXISTS sound (digest TEXT, how TEXT, pixels TEXT, PRIMARY KEY (digest, how)) STRICT"
    )


@dataclass(frozen=True)
class _Veil:
    """Names and digests as they may be written down, under a key."""

    key: bytes

    def name(self, data: bytes) -> str:
        """What `data` is called; always the same."""
        return hmac.digest(self.key, b"name|" + data, "sha256").hex()

    def turned(self, digest: str, key: str, stamp: Stamp | str) -> str:
        """`digest`, 64 hexadecimal digits, sealed for its row, or a sealed one opened."""
        pad = hmac.digest(self.key, f"pad|{key}|{stamp}".encode(), "sha256")
        return bytes(a ^ b for a, b in zip(bytes.fromhex(digest), pad, strict=True)).hex()


def _find(database: sqlite3.Connection, veil: _Veil, key: str, stamp: Stamp) -> str | None:
    query = "SELECT digest FROM files WHERE path = ? AND size = ? AND modified_ns = ? AND inode = ?"
    row = database.execute(query, (key, stamp.size, stamp.modified_ns, str(stamp.inode))).fetchone()
    return veil.turned(row[0], key, stamp) if row else None


def _remember(database: sqlite3.Connection, veil: _Veil, key: str, stamp: Stamp, digest: str) -> None:
    sealed = veil.turned(digest, key, stamp)
    row = (key, stamp.size, stamp.modified_ns, str(stamp.inode), sealed)  # inodes may exceed SQLite's 63 bits
    database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)", row)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _readable(path: Path, look: Callable[[Path], Made]) -> Made:
    try:
        return look(path)
    except OSError as error:
        raise BadInput(f"{shown(path)} cannot be read ({error.strerror}); check the file") from error
