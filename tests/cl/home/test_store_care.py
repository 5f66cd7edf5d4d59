"""`gc` and `store verify`: what goes, what stays, and that results are the same afterwards."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from cl.cli.store import parse_size, show_size
from cl.errors import BadInput, StoreError, Unusable
from cl.home.check import faults
from cl.home.gc import collect
from cl.home.index import Index
from cl.home.results import Results
from cl.home.runs import UNFINISHED
from cl.home.store import Store
from tests.homes import manifest
from tests.tiny import run_tiny


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("care") / "home"
    run_tiny(home)
    Index(Store(home)).close()
    return home


@pytest.fixture
def home(ran: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ran, tmp_path / "home"))


def whats(home: Path) -> list[str]:
    return sorted(fault.what for fault in faults(Store(home)))


def test_a_home_that_is_in_use_holds_no_garbage(home: Path) -> None:
    assert collect(Store(home)) == []


def test_what_no_run_uses_goes_and_a_dry_run_only_says_so(home: Path) -> None:
    before = manifest(home)
    run_tiny(home, epochs=1)
    (other,) = (path for path in (home / "runs").iterdir() if manifest_of(path) != before.digest)
    shutil.rmtree(other)
    store = Store(home)
    count = sum(1 for _ in store.keys())
    planned = collect(store, dry_run=True)
    assert planned and sum(1 for _ in store.keys()) == count
    assert collect(store) == planned
    assert collect(store) == [] and whats(home) == []
    assert run_tiny(home).figures["components_built"] == 0


def manifest_of(run: Path) -> str:
    return str(json.loads((run / "manifest.json").read_bytes())["digest"])


def test_caches_go_and_come_back_without_a_trace(home: Path) -> None:
    before = manifest(home)
    removed = collect(Store(home), caches=True)
    assert removed and {one.what for one in removed} == {"cache"}
    again = run_tiny(home).figures
    assert again["components_built"] == len(removed)
    assert manifest(home) == before


def test_the_caches_used_last_stay(home: Path) -> None:
    store = Store(home)
    caches = collect(store, caches=True, dry_run=True)
    last = caches[len(caches) // 2]
    later = time.time() + 60
    for path in last.paths:
        os.utime(path, (later, path.stat().st_mtime))
    evicted = collect(store, caches=True, keep=last.bytes)
    assert {one.name for one in caches} - {one.name for one in evicted} == {last.name}


def test_a_run_that_has_not_ended_keeps_what_it_built(home: Path) -> None:
    (run,) = (home / "runs").iterdir()
    (run / "manifest.json").unlink()
    marker = run / UNFINISHED
    marker.touch()
    os.utime(marker, (1, 1))  # before everything else, but given up long ago
    garbage = Counter(one.what for one in collect(Store(home), dry_run=True))
    assert garbage == {"unused": sum(1 for _ in Store(home).keys()), "shard": len(list(Store(home).shards))}
    os.utime(marker, (time.time() - 3600,) * 2)
    assert collect(Store(home), dry_run=True) == []


def test_what_a_crash_left_goes(home: Path) -> None:
    left = home / "checkpoints" / "0123.safetensors", home / "store" / ".tmp-old", home / "store" / ".tmp-new"
    left[0].parent.mkdir(exist_ok=True)
    for path in left:
        path.write_bytes(b"half")
    os.utime(left[1], (1, 1))
    assert {one.what for one in collect(Store(home))} == {"checkpoint", "temporary"}
    assert [path.exists() for path in left] == [False, False, True]


def test_gc_does_not_guess_what_a_damaged_manifest_reaches(home: Path) -> None:
    (run,) = (home / "runs").iterdir()
    (run / "manifest.json").write_bytes(b"{")
    with pytest.raises(StoreError, match="store verify --fix"):
        collect(Store(home))


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o644)
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # as silent as damage can be


def blobs(home: Path) -> list[Path]:
    return sorted((home / "store").rglob("*.safetensors"))


def damage_record(home: Path) -> None:
    flip(blobs(home)[0].with_suffix(".json"), 40)


def damage_blob(home: Path) -> None:
    flip(blobs(home)[1])


def cut_blob(home: Path) -> None:
    path = blobs(home)[2]
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-3])


def lose_blob(home: Path) -> None:
    blobs(home)[3].unlink()


def lose_record(home: Path) -> None:
    blobs(home)[4].with_suffix(".json").unlink()


def damage_index(home: Path) -> None:
    flip(home / "index.sqlite", 3)


def damage_files(home: Path) -> None:
    (home / "files.sqlite").write_bytes(b"no database" * 500)


def damage_results(home: Path) -> None:
    for path in home.glob("results.sqlite*"):
        path.unlink()
    (home / "results.sqlite").write_bytes(b"not a database, but quite long enough to be taken for one" * 20)


def damage_manifest(home: Path) -> None:
    (path,) = home.glob("runs/*/manifest.json")
    path.write_bytes(path.read_bytes().replace(b"t0/adapter", b"t9/adapter"))


def damage_request(home: Path) -> None:
    (path,) = home.glob("runs/*/request.json")
    flip(path, 30)


def damage_source(home: Path) -> None:
    (path,) = home.glob("runs/*/source.json")
    path.write_bytes(b"{}")


def damage_shard(home: Path) -> None:
    next(home.glob("shards/??/*.json")).write_bytes(b"[]")


def shorten_shard(home: Path) -> None:
    path = next(home.glob("shards/??/*.json"))
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, "readings": {name: rows[1:] for name, rows in content["readings"].items()}}))


def damage_evicted(home: Path) -> None:
    collect(Store(home), caches=True)
    flip(next(home.glob("store/??/*.evicted")), 40)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (damage_record, "damaged record"),
        (damage_blob, "damaged blob"),
        (cut_blob, "damaged blob"),
        (lose_blob, "missing blob"),
        (lose_record, "blob without a record"),
        (damage_index, "damaged index"),
        (damage_files, "damaged memory of file digests"),
        (damage_results, "not a sound results database"),
        (damage_manifest, "damaged manifest"),
        (damage_request, "damaged request"),
        (damage_source, "damaged source"),
        (damage_shard, "damaged list of a shard's samples"),
        (shorten_shard, "damaged list of a shard's samples"),
        (damage_evicted, "damaged record of an evicted component"),
    ],
)
def test_each_fault_is_found_mended_and_made_good_by_the_next_run(
    home: Path, damage: Callable[[Path], None], what: str
) -> None:
    before = manifest(home)
    assert whats(home) == []
    damage(home)
    assert whats(home) == [what]
    for fault in faults(Store(home)):
        fault.mend()
    assert whats(home) == []
    run_tiny(home)
    assert manifest(home) == before
    assert len(Results(home).all()) == 1


def test_a_results_database_of_a_newer_release_is_left_alone(home: Path) -> None:
    with sqlite3.connect(home / "results.sqlite") as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(Unusable, match="of a newer release"):
        whats(home)


def test_a_full_disk_is_no_fault_of_the_results(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(database: sqlite3.Connection) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr("cl.home.results._prepare", full)
    with pytest.raises(Unusable, match="disk is full; check disk space"):
        whats(home)


def test_an_index_that_says_something_else_than_the_records_is_a_fault(home: Path) -> None:
    with sqlite3.connect(home / "index.sqlite") as database:
        database.execute("UPDATE reads SET digest = 'another' WHERE rowid = 1")
    assert whats(home) == ["damaged index"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("20GB", 20 * 10**9), ("1.5 MiB", 3 << 19), ("7k", 7000), ("4096B", 4096), ("9" * 400, 10**400)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "1e9", "20 GB of it", "٣"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="not a size"):
        parse_size(text)


def test_sizes_are_shown_in_a_readable_unit() -> None:
    assert [show_size(size) for size in (0, 999, 20 * 10**9, 4 * 10**12)] == ["0 B", "999 B", "20 GB", "4 TB"]


def test_keys_that_begin_alike_are_held_together(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.building("abc1", "abc2", "0de3"):
        held = sorted(path.name for path in (tmp_path / "locks").iterdir())
        for name in held:
            with pytest.raises(Timeout):
                FileLock(tmp_path / "locks" / name, is_singleton=False).acquire(timeout=0)
    assert held == ["0de", "abc"]
    with store.building("abc1"):
        pass
