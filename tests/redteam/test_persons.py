"""One person is one person everywhere in a home, and nobody else is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cl.audit.verification import verify
from cl.deletion.forget_set import Selector
from cl.deletion.plan import plan
from cl.errors import DeletionError
from cl.home.gc import collect
from cl.home.runs import Runs
from cl.home.store import Store
from cl.running.reopening import open_run
from tests.photos import Photo, album, describe, everything, forgotten, learnt, photographed, take, without


def ids(home: Path, run: str) -> set[str]:
    return Runs(Store(home)).resolution(run).ids


def marks_of(home: Path, sample: str) -> set[str]:
    rows = [row for _, found in Store(home).shards for one in found for row in one.rows if row.id == sample]
    return {mark for row in rows for mark in row.marks}


def copied(folder: Path, photos: list[Photo]) -> list[Photo]:
    """The same files under other names."""
    made = [Photo(f"copy/{one.sample}", one.label, one.split, "somebody") for one in photos]
    for one, other in zip(photos, made, strict=True):
        target = folder / "images" / other.sample
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "images" / one.sample, target)
    return made


def test_the_same_bytes_in_another_stream_are_forgotten_too(tmp_path: Path) -> None:
    home, photos = tmp_path / "home", album()
    first = learnt(home, photographed(tmp_path, photos), "ease").id
    second = learnt(home, describe(tmp_path, copied(tmp_path, photos), "copies"), "ease").id
    gone = [one.sample for one in photos if one.subject == "person-0"]
    marks = set().union(*(marks_of(home, name) for name in gone))
    outcome = forgotten(home, first, ("subject", "person-0"))
    assert Runs(Store(home)).stale(second) == outcome.request
    assert not [mark for mark in marks if mark.encode() in everything(home)]
    result = learnt(home, tmp_path / "copies.toml", "ease")
    assert ids(home, second).isdisjoint({f"copy/{name}" for name in gone})
    assert [line for line in result.figures["warnings"] if "samples that were deleted" in line]
    assert verify(home, outcome.request).grade == "E0"


def test_a_copy_that_the_operator_keeps_stays_and_is_named(tmp_path: Path) -> None:
    home, photos = tmp_path / "home", album()
    stream = photographed(tmp_path, photos)
    twin = Photo("train/cat/twin.png", "cat", "train", "person-9")
    shutil.copy(tmp_path / "images" / "train" / "cat" / "0.png", tmp_path / "images" / twin.sample)
    run = learnt(home, describe(tmp_path, [*photos, twin])).id
    asked = plan(open_run(home, run), [Selector("sample", "train/cat/0.png")])
    assert asked.forget.twins == (("train/cat/0.png", twin.sample),) and set(asked.forget.samples) > {twin.sample}
    forgotten(home, run, ("sample", "train/cat/0.png"), keep=[twin.sample])
    learnt(home, stream)
    assert twin.sample in ids(home, run) and "train/cat/0.png" not in ids(home, run)


def test_other_people_with_the_same_file_names_are_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    mine = learnt(home, photographed(tmp_path / "mine", name="mine", seed=1), "ease").id
    theirs = learnt(home, photographed(tmp_path / "theirs", name="theirs", seed=2), "ease")
    outcome = forgotten(home, mine, ("sample", "train/cat/2.png"))
    assert Runs(Store(home)).served(theirs.id).digest == theirs.figures["manifest"]
    assert "train/cat/2.png" in ids(home, theirs.id)
    assert verify(home, outcome.request).grade == "E0"


def test_a_run_at_another_size_is_stale_too(tmp_path: Path) -> None:
    home = tmp_path / "home"
    stream = photographed(tmp_path)
    first = learnt(home, stream).id
    second = learnt(home, describe(tmp_path, album(), "small", size=8)).id
    outcome = forgotten(home, first, ("sample", "train/cat/2.png"))
    assert Runs(Store(home)).stale(second) == outcome.request
    assert verify(home, outcome.request).grade == "E0"


def test_a_test_image_of_a_deleted_class_can_be_forgotten(tmp_path: Path) -> None:
    """When a class has no training images left, its test images leave the stream; they are known all the same."""
    home, photos = tmp_path / "home", [*album(), Photo("test/cat/p.png", "cat", "test", "pia")]
    run = learnt(home, photographed(tmp_path, photos)).id
    forgotten(home, run, *(("sample", one.sample) for one in photos if one.label == "cat" and one.split == "train"))
    outcome = forgotten(home, run, ("subject", "pia"))
    assert outcome.state == "purged" and outcome.forgotten == 1
    again = [*photos, Photo("train/cat/new.png", "cat", "train", "quentin")]
    take(tmp_path, again)
    learnt(home, describe(tmp_path, again))
    assert "test/cat/p.png" not in ids(home, run) and "train/cat/new.png" in ids(home, run)


def test_spellings_of_one_name_are_one_person(tmp_path: Path) -> None:
    home = tmp_path / "home"
    photos = [
        Photo(f"train/cat/z{n}.png", "cat", "train", name) for n, name in enumerate(["Zoë", "Zoe\u0308", " Zoë "])
    ]
    run = learnt(home, photographed(tmp_path, [*album(), *photos])).id
    assert forgotten(home, run, ("subject", "Zoe\u0308")).forgotten == 3


def test_a_near_spelling_is_told_before(tmp_path: Path) -> None:
    home = tmp_path / "home"
    photos = [Photo("train/cat/z0.png", "cat", "train", "Zoë"), Photo("train/cat/z1.png", "cat", "train", "zoe")]
    run = learnt(home, photographed(tmp_path, [*album(), *photos])).id
    found = plan(open_run(home, run), [Selector("subject", "Zoë")])
    assert [line for line in found.forget.warnings if "'zoe' is spelled almost like 'Zoë'" in line]


def test_data_of_a_task_that_left_the_file_can_be_forgotten(tmp_path: Path) -> None:
    home, photos = tmp_path / "home", album()
    run = learnt(home, photographed(tmp_path, photos), "ease").id
    learnt(home, describe(tmp_path, [one for one in photos if one.label in ("cat", "owl")]), "ease")
    outcome = forgotten(home, run, ("sample", "train/newt/0.png"))
    assert outcome.forgotten == 1 and outcome.purged > 0
    assert b"train/newt/0.png" not in everything(home)


def test_what_nothing_reads_any_more_is_collected(tmp_path: Path) -> None:
    home, photos = tmp_path / "home", album()
    learnt(home, photographed(tmp_path, photos), "ease")
    learnt(home, describe(tmp_path, [one for one in photos if one.label in ("cat", "owl")]), "ease")
    collect(Store(home), caches=True)
    assert b"train/newt/0.png" not in everything(home)


def test_new_pictures_wait_and_block_no_deletion(tmp_path: Path) -> None:
    home, photos = tmp_path / "home", album()
    run = learnt(home, photographed(tmp_path, photos)).id
    more = [*photos, Photo("train/cat/new.png", "cat", "train", "quentin")]
    take(tmp_path, more)
    stream = describe(tmp_path, more)
    outcome = forgotten(home, run, ("subject", "person-1"))
    assert "train/cat/new.png" not in ids(home, run)
    assert verify(home, outcome.request).grade == "E0"
    learnt(home, stream)
    assert "train/cat/new.png" in ids(home, run)


def test_a_changed_picture_is_said_to_have_changed(tmp_path: Path) -> None:
    home, photos = tmp_path / "home", album()
    run = learnt(home, photographed(tmp_path, photos)).id
    take(tmp_path, [one for one in photos if one.sample == "train/owl/2.png"], seed=5)
    with pytest.raises(DeletionError, match="is not the one that the run read; run it again first"):
        forgotten(home, run, ("sample", "train/cat/0.png"))


def test_what_was_deleted_twice_is_a_noop(tmp_path: Path) -> None:
    home, photos = tmp_path / "home", album()
    run = learnt(home, photographed(tmp_path, photos)).id
    forgotten(home, run, ("subject", "person-1"))
    assert forgotten(home, run, ("subject", "person-1")).state == "noop"
    assert without(photos, subject="person-1")
