"""Lineage queries over the records, and the index that answers them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cl.errors import BadInput, UnknownName
from cl.home.ancestry import Ancestry
from cl.home.index import Index
from cl.home.store import Store
from cl.testing import tiny_stream
from tests.homes import key_of, manifest
from tests.tiny import run_tiny


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("index") / "home"
    run_tiny(home)
    return home


@pytest.fixture
def home(ran: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ran, tmp_path / "home"))


def names_of(home: Path, keys: list[str]) -> set[str]:
    return {use.name for use in manifest(home).uses if use.key in keys}


def test_dependents_of_a_shard_are_all_that_saw_it(home: Path) -> None:
    first, second = tiny_stream().tasks[:2]
    tainted = names_of(home, Index(Store(home)).dependents(first.train.digest))
    assert {"t0/adapter", "t0/predictions/t0"} <= tainted
    assert "t1/adapter" not in tainted
    assert Index(Store(home)).dependents(second.test.digest)


def test_ancestors_end_at_the_adapters(home: Path) -> None:
    key = key_of(home, "t2/predictions/t0")
    above = names_of(home, Index(Store(home)).ancestors(key))
    assert {"t0/adapter", "t1/adapter", "t2/adapter"} <= above


@pytest.mark.parametrize("damage", [b"", b"no database", None])
def test_a_missing_or_damaged_index_is_made_again(home: Path, damage: bytes | None) -> None:
    shard = tiny_stream().tasks[0].train.digest
    expected = Index(Store(home)).dependents(shard)
    path = home / "index.sqlite"
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    assert Index(Store(home)).dependents(shard) == expected


def test_the_index_follows_records_that_come_and_go(home: Path) -> None:
    store, shard = Store(home), tiny_stream().tasks[0].train.digest
    before = Index(store).dependents(shard)
    store.discard(before[0])
    assert Index(store).dependents(shard) == Index(store, kept=False).dependents(shard)
    run_tiny(home)
    assert Index(store).dependents(shard) == before


def test_a_home_that_cannot_be_written_is_indexed_in_memory(home: Path) -> None:
    (home / "index.sqlite").mkdir()
    assert Index(Store(home)).dependents(tiny_stream().tasks[0].train.digest)


def test_lineage_and_dependents_of_a_named_component(home: Path) -> None:
    (run,) = (path.name for path in (home / "runs").iterdir())
    known = Ancestry(home, run)
    rows = known.made_from("t1/prototypes/t0")
    assert rows[0]["name"] == "t1/prototypes/t0"
    assert "t0/adapter" in {row["name"] for row in rows}
    assert any("images of t0/c0, t0/c1" in read for row in rows for read in row["reads"])
    dependents = {row["name"] for row in known.dependents("t2/adapter")}
    assert "t2/predictions/t0" in dependents and "t1/predictions/t0" not in dependents
    with pytest.raises(UnknownName, match="did you mean t1/adapter"):
        known.made_from("t1/adaptr")
    with pytest.raises(BadInput, match="'scores' is the name of"):
        known.made_from("scores")
