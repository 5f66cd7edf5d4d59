"""Taking out of a home all that was made from deleted samples and that nothing live refers to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cl.deletion.dossier import Dossier
from cl.deletion.events import Purged
from cl.deletion.taint import Closure, closure
from cl.home.index import remove_database
from cl.home.results import Results
from cl.home.runs import Runs
from cl.home.store import Store
from cl.home.writing import TEMPORARY

PAGES = (".html", ".svg", ".png", ".pdf", ".csv", ".json")


def purge(store: Store, dossier: Dossier) -> Purged:
    """Remove components, shards, checkpoints, results rows, indexes and pages; how many of each.

    The caller holds the home's lock alone, through this very store. Begun again, it removes the rest: shard files, from
    which the closure starts, go last.
    """
    home, runs = store.home, Runs(store)
    touched = closure(store, dossier.forgotten.traces)
    live = {key for _, manifest in runs.all_live() for key in manifest.keys}
    gone = sorted(set(touched.components) - live)
    checkpoints = _unlink((home / "checkpoints").glob("*"))  # of unfinished builds: nobody knows what they read
    temporaries = clear_temporaries(home)
    pages = _unlink(_pages(home, [dossier.order.run, *dossier.stale])) + _unlink(home.glob("*.damaged*"))
    components = _discard(store, gone)
    for cache in ("index.sqlite", "files.sqlite"):  # made again when they are needed
        remove_database(home / cache)
    Results(home).remove(dossier.stale)
    Results(home).scrub()
    _prune(store, {*gone, *dossier.taint.digests} - live)  # by an attempt that was interrupted too
    shards = _unlink(_orphans(store, touched))
    return Purged(components, checkpoints, temporaries, pages, shards)


def clear_temporaries(home: Path) -> int:
    """Remove what writes that never ended have left. The caller holds the home's lock alone, so none is under way."""
    return _unlink(home.rglob(f"{TEMPORARY}*"))


def _discard(store: Store, keys: Iterable[str]) -> int:
    count = 0
    for key in keys:
        store.discard(key)
        count += 1
    return count


def _prune(store: Store, gone: set[str]) -> None:
    """Survivors that were reached from a purged component too keep the other way only."""
    for key in list(store.keys()):
        record = store.find(key)
        if record is not None and any(read.get("key") in gone for read in record.reads):
            store.amend(record, [read for read in record.reads if read.get("key") not in gone])


def _orphans(store: Store, touched: Closure) -> list[Path]:
    """Files of tainted shards that no component reads any more."""
    records = store.lineage().values()
    read = {one["digest"] for record in records for one in record.reads if one["kind"] == "shard"}
    return [path for digest, path in touched.shards.items() if digest not in read]


def _pages(home: Path, runs: Iterable[str]) -> list[Path]:
    """Pages and figures under the home that show one of these runs."""
    names = [run.encode() for run in runs]
    own = [home / name for name in ("audit", "runs", "store", "shards", "locks", "checkpoints")]
    pages = [path for path in home.rglob("*") if path.suffix in PAGES and path.is_file()]
    outside = [path for path in pages if not any(path.is_relative_to(folder) for folder in own)]
    return [path for path in outside if any(name in path.read_bytes() for name in names)]


def _unlink(paths: Iterable[Path]) -> int:
    count = 0
    for path in list(paths):
        if path.is_file():
            path.unlink()
            count += 1
    return count
