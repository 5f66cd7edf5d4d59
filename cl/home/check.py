"""Checking a home: everything that is stored is hashed again, and each fault can be mended.

A damaged component is removed, so that it is built again when it is next needed; so is a damaged manifest or index. A
results database that is none is moved aside: its figures come back when the runs are run again, from the store.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cl.digests import digest_json
from cl.documents import Document
from cl.errors import CorruptComponent, StoreError, Unusable
from cl.home.index import Index, remove_database
from cl.home.layout import database_address
from cl.home.records import Manifest, Request, Resolution, RunSource
from cl.home.results import Results
from cl.home.shards import readings
from cl.home.store import Store

REMOVED = "removed, it is made again when it is needed"


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. path: the file. mended: what `mend` leads to, in words."""

    path: Path
    what: str
    mended: str
    mend: Callable[[], object] = field(repr=False, compare=False)


def faults(store: Store) -> Iterator[Fault]:
    """All faults of a home, found by reading every byte of it."""
    yield from _components(store)
    yield from _evicted(store)
    yield from _orphans(store)
    yield from _shards(store.home)
    yield from _runs(store.home)
    yield from _databases(store)


def _components(store: Store) -> Iterator[Fault]:
    for key in store.keys():
        path = store.folder / key[:2] / key
        mend = partial(store.discard, key)
        try:
            record = store.record(key)
        except (OSError, CorruptComponent):
            yield Fault(path.with_suffix(".json"), "damaged record", REMOVED, mend)
            continue
        blob = path.with_suffix(".safetensors")
        if not blob.exists():
            yield Fault(blob, "missing blob", f"record {REMOVED}", mend)
            continue
        try:
            for part in record.parts:
                store.load(record, part)
        except CorruptComponent:
            yield Fault(blob, "damaged blob", REMOVED, mend)


def _evicted(store: Store) -> Iterator[Fault]:
    """Damaged records of what was evicted. Without its record a component counts as tainted by every deletion."""
    for path in sorted(store.folder.glob("??/*.evicted")):
        try:
            store.record(path.stem, "evicted")
        except (OSError, CorruptComponent):
            yield _removable(path, "damaged record of an evicted component")


def _orphans(store: Store) -> Iterator[Fault]:
    for blob in sorted(store.folder.glob("??/*.safetensors")):
        if not blob.with_suffix(".json").exists():
            yield _removable(blob, "blob without a record")


def _shards(home: Path) -> Iterator[Fault]:
    for path in sorted(home.glob("shards/??/*.json")):
        try:
            readings(path)
        except StoreError:
            yield _removable(path, "damaged list of a shard's samples")


def _runs(home: Path) -> Iterator[Fault]:
    kinds = {
        "request.json": Request,
        "source.json": RunSource,
        "manifest.json": Manifest,
        "resolution.json": Resolution,
    }
    for folder in sorted(home.glob("runs/*")):
        for name, kind in kinds.items():
            path = folder / name
            if path.exists() and not _is_sound(path, kind):
                yield _removable(path, f"damaged {path.stem}")


def _is_sound(path: Path, kind: type[Document]) -> bool:
    """Whether a file of a run holds such a document, and that what its digests say. Raises Unusable for one of a newer
    release: no fault, and nothing to mend."""
    try:
        content = kind.from_json(path.read_bytes(), str(path), REMOVED)
    except Unusable:
        raise
    except (OSError, StoreError):
        return False
    if isinstance(content, Request):
        return content.id == path.parent.name
    return not isinstance(content, Manifest) or content.digest == digest_json(content.components)


def _databases(store: Store) -> Iterator[Fault]:
    home = store.home
    index, files, results = home / "index.sqlite", home / "files.sqlite", home / "results.sqlite"
    if index.exists() and not (_sound_sqlite(index) and _says_what_records_say(store)):
        yield Fault(index, "damaged index", REMOVED, partial(remove_database, index))
    if files.exists() and not _sound_sqlite(files):
        yield Fault(files, "damaged memory of file digests", REMOVED, partial(remove_database, files))
    try:
        damaged = results.exists() and not (_sound_sqlite(results) and Results(home).all() is not None)
    except Unusable:  # a newer release's, or a full disk: no fault, and nothing to mend
        raise
    except StoreError:
        damaged = True
    if damaged:
        aside = results.with_name("results.sqlite.damaged")
        yield Fault(
            results, "not a sound results database", f"moved to {aside.name}", partial(_set_aside, results, aside)
        )


def _says_what_records_say(store: Store) -> bool:
    kept, fresh = Index(store), Index(store, kept=False)
    try:
        return set(fresh.rows()) <= set(kept.rows())  # kept may know a record that is damaged now
    except sqlite3.DatabaseError:
        return False
    finally:
        kept.close()
        fresh.close()


def _sound_sqlite(path: Path) -> bool:
    database = sqlite3.connect(database_address(path), timeout=60, uri=True)
    try:
        return database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise Unusable(f"cannot check {path}: {error}; check disk space and permissions") from error
        return False
    finally:
        database.close()


def _set_aside(path: Path, aside: Path) -> None:
    path.replace(aside)
    remove_database(path)  # what SQLite kept beside the old file must not be played into a new one


def _removable(path: Path, what: str) -> Fault:
    return Fault(path, what, REMOVED, partial(path.unlink, missing_ok=True))


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where it holds none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
