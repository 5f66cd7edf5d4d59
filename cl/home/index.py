"""The index: records and lineage edges in one SQLite file, for questions that would otherwise read every record.

It holds nothing of its own. It is brought up to date from the names of the records when it is opened, and made again
where it is missing, damaged or of another release, so a commit need not write to it.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from cl.errors import CorruptComponent
from cl.home.store import Record, Store

SCHEMA = 1

_TABLES = """
CREATE TABLE records (key TEXT PRIMARY KEY) STRICT;
CREATE TABLE parts (key TEXT NOT NULL, part TEXT NOT NULL, role TEXT NOT NULL, digest TEXT NOT NULL) STRICT;
CREATE TABLE reads (key TEXT NOT NULL, digest TEXT NOT NULL, parent TEXT) STRICT;
CREATE INDEX parts_of ON parts (key);
CREATE INDEX reads_of ON reads (key);
CREATE INDEX readers_of ON reads (digest);
"""

# Edges are content digests: what read a part's bytes may have had them from any component that gives the same bytes.
_DEPENDENTS = """
WITH RECURSIVE tainted (key) AS (
    SELECT key FROM reads WHERE digest = ?
    UNION
    SELECT reads.key FROM tainted JOIN parts ON parts.key = tainted.key JOIN reads ON reads.digest = parts.digest
) SELECT key FROM tainted ORDER BY key
"""
_ANCESTORS = """
WITH RECURSIVE above (key) AS (
    SELECT parent FROM reads WHERE key = ? AND parent IS NOT NULL
    UNION
    SELECT reads.parent FROM above JOIN reads ON reads.key = above.key WHERE reads.parent IS NOT NULL
) SELECT key FROM above ORDER BY key
"""


class Index:
    """Lineage over all records of a store, as they were when this object was made.

    kept: whether to keep the index in the home for the next time.
    """

    def __init__(self, store: Store, kept: bool = True) -> None:
        self._store = store
        self._path = store.home / "index.sqlite"
        self._database = self._made() if kept else self._open(None)

    def dependents(self, digest: str) -> list[str]:
        """Keys of all that read this shard or part digest, directly or through other components."""
        return self._keys(_DEPENDENTS, digest)

    def ancestors(self, key: str) -> list[str]:
        """Keys of all components that `key` was made from, directly or not."""
        return self._keys(_ANCESTORS, key)

    def close(self) -> None:
        self._database.close()

    def rows(self) -> list[str]:
        """Everything in the index as text, sorted."""
        return sorted(self._database.iterdump())

    def _keys(self, query: str, value: str) -> list[str]:
        try:
            return [key for (key,) in self._database.execute(query, (value,))]
        except sqlite3.DatabaseError:  # damage that opening it did not meet
            self.close()
            remove_database(self._path)
            self._database = self._made()
            return [key for (key,) in self._database.execute(query, (value,))]

    def _made(self) -> sqlite3.Connection:
        try:
            return self._open(self._path)
        except sqlite3.OperationalError:  # a home that cannot be written, or one on which SQLite cannot lock
            return self._open(None)
        except sqlite3.DatabaseError:
            remove_database(self._path)
            return self._open(self._path)

    def _open(self, path: Path | None) -> sqlite3.Connection:
        database = sqlite3.connect(path or ":memory:", timeout=60)
        try:
            with database:
                self._prepare(database)
                self._refresh(database)
        except BaseException:
            database.close()
            raise
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version not in (0, SCHEMA):
            raise sqlite3.DatabaseError("an index of another release")
        if version == 0:
            database.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")

    def _refresh(self, database: sqlite3.Connection) -> None:
        """Bring the rows in line with the records that there are. A key's content never changes, so names do."""
        known = {key for (key,) in database.execute("SELECT key FROM records")}
        found = set(self._store.keys())
        for table in ("records", "parts", "reads"):
            database.executemany(f"DELETE FROM {table} WHERE key = ?", [(key,) for key in known - found])
        for key in sorted(found - known):
            with suppress(OSError, CorruptComponent):  # gone meanwhile, or damaged: whoever needs it deals with it
                _insert(database, self._store.record(key))


def remove_database(path: Path) -> None:
    """Remove an SQLite file and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _insert(database: sqlite3.Connection, record: Record) -> None:
    database.execute("INSERT INTO records VALUES (?)", (record.key,))
    parts = [(record.key, name, part["role"], part["digest"]) for name, part in record.parts.items()]
    database.executemany("INSERT INTO parts VALUES (?, ?, ?, ?)", parts)
    reads = [(record.key, read["digest"], read.get("key")) for read in record.reads]
    database.executemany("INSERT INTO reads VALUES (?, ?, ?)", reads)
