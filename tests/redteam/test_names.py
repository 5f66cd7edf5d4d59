"""Whoever has names, evidence or the home after a deletion, and the images that are left, learns nothing of what was
deleted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from cl.audit.certificate import certify
from cl.audit.verification import verify
from cl.home.ledger import Ledger
from cl.home.runs import Runs
from cl.home.store import Store
from tests.photos import album, describe, everything, forgotten, learnt, photographed, take, without


def test_a_run_is_not_named_by_its_images(tmp_path: Path) -> None:
    """The oracle of old: of candidate pictures, the one that gives the run's id was the deleted one."""
    stream = photographed(tmp_path)
    before = learnt(tmp_path / "home", stream).id
    forgotten(tmp_path / "home", before, ("sample", "train/cat/0.png"))
    Image.new("RGB", (20, 20), "red").save(tmp_path / "images" / "train" / "cat" / "0.png")
    assert learnt(tmp_path / "other", stream).id == before


def test_a_deleted_class_leaves_no_name_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    photos = album(("walrus", "owl", "ibex", "newt"))
    run = learnt(home, photographed(tmp_path, photos), "ease").id
    outcome = forgotten(home, run, ("class", "walrus"))
    verify(home, outcome.request)
    certify(home, outcome.request)
    assert b"walrus" not in everything(home)


def test_a_forgotten_person_leaves_no_name_behind(tmp_path: Path) -> None:
    home = tmp_path / "home"
    run = learnt(home, photographed(tmp_path), "ease").id
    outcome = forgotten(home, run, ("subject", "person-2"))
    verify(home, outcome.request)
    certify(home, outcome.request)
    left = everything(home)
    gone = [one.sample for one in album() if one.subject == "person-2"]
    assert b"person-2" not in left and not [name for name in gone if name.encode() in left]


@pytest.mark.parametrize("strategy", ["simplecil", "ease", "mos", "ssiat", "adapterswap"])
@pytest.mark.parametrize("what", ["person", "sample", "class", "task"])
def test_the_run_is_that_of_a_folder_without_them(tmp_path: Path, strategy: str, what: str) -> None:
    """The oracle is made from outside: files never there, table and list of classes without what was deleted."""
    photos = album()
    home = tmp_path / "home"
    run = learnt(home, photographed(tmp_path / "all", photos), strategy).id
    selected, rest, tasks = {
        "person": (("subject", "person-1"), without(photos, subject="person-1"), ""),
        "sample": (("sample", "train/owl/3.png"), without(photos, samples=["train/owl/3.png"]), ""),
        "class": (
            ("class", "owl"),
            [one for one in photos if one.label != "owl"],
            'tasks = [1, 2]\nclasses = ["cat", "ibex", "newt"]',
        ),
        "task": (
            ("task", "task-00"),
            [one for one in photos if one.label in ("ibex", "newt")],
            'tasks = [0, 2]\nclasses = ["ibex", "newt"]',
        ),
    }[what]
    forgotten(home, run, selected)
    take(tmp_path / "without", rest) if (tmp_path / "without").mkdir() is None else None
    fresh = learnt(tmp_path / "fresh", describe(tmp_path / "without", rest, tasks=tasks), strategy)
    live = Runs(Store(home)).served(run)
    assert live.components == fresh.figures["components"] and live.digest == fresh.figures["manifest"]


def test_two_folders_of_one_name_are_two_streams(tmp_path: Path) -> None:
    home = tmp_path / "home"
    learnt(home, photographed(tmp_path / "mine", seed=1))
    with pytest.raises(Exception, match="two streams of one name, 'album'; give one a name of its own"):
        learnt(home, photographed(tmp_path / "theirs", seed=2))


def test_the_same_folder_elsewhere_is_the_same_run(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = learnt(home, photographed(tmp_path / "here"))
    second = learnt(home, photographed(tmp_path / "there"))
    assert first.id == second.id and first.figures["manifest"] == second.figures["manifest"]


def test_the_ledger_holds_no_digest_of_an_image(tmp_path: Path) -> None:
    home = tmp_path / "home"
    stream = photographed(tmp_path)
    run = learnt(home, stream).id
    known = {mark for _, found in Store(home).shards for one in found for row in one.rows for mark in row.marks}
    forgotten(home, run, ("subject", "person-0"))
    text = json.dumps([one.as_json() for one in Ledger(home).verify()])
    assert known and not [mark for mark in known if mark in text]


def test_a_stream_that_is_described_otherwise_now_is_not_the_runs(tmp_path: Path) -> None:
    home, stream = tmp_path / "home", photographed(tmp_path)
    run = learnt(home, stream).id
    describe(tmp_path, album(), size=8)
    with pytest.raises(Exception, match="does not describe the stream of run"):
        forgotten(home, run, ("subject", "person-1"))


def test_a_deleted_task_leaves_no_name_behind(tmp_path: Path) -> None:
    home, photos = tmp_path / "home", album()
    photographed(tmp_path, photos)
    named = (
        'tasks = [{ name = "walrushouse", classes = ["cat", "owl"] }, { name = "rest", classes = ["ibex", "newt"] }]'
    )
    run = learnt(home, describe(tmp_path, photos, tasks=named)).id
    outcome = forgotten(home, run, ("task", "walrushouse"))
    verify(home, outcome.request)
    certify(home, outcome.request)
    assert b"walrushouse" not in everything(home)
