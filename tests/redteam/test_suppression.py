"""What was deleted does not come back: not under another name, size or release, and not when the list of it is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cl.data import images
from cl.deletion.execution import execute
from cl.deletion.forget_set import Selector
from cl.deletion.keeping_out import admit, readmit, reapply
from cl.errors import DataDeleted, PalimpsestError
from cl.home.runs import Runs
from cl.home.store import Store
from cl.running.run import assembled
from tests.photos import Photo, album, describe, forgotten, learnt, photographed, take
from tests.tiny import BACKBONE, fast

GONE = "train/cat/0.png"


def read_by(home: Path, run: str) -> set[str]:
    return Runs(Store(home)).resolution(run).ids


@pytest.fixture
def cleared(tmp_path: Path) -> tuple[Path, Path, str]:
    """A home from which one picture was deleted, the stream, and the run."""
    stream, home = photographed(tmp_path), tmp_path / "home"
    run = learnt(home, stream).id
    forgotten(home, run, ("sample", GONE))
    return home, stream, run


def test_it_stays_out_when_the_decoder_changes(
    cleared: tuple[Path, Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, stream, _ = cleared
    monkeypatch.setattr(images, "decoder_digest", lambda: "another release of Pillow")
    assert GONE not in read_by(home, learnt(home, stream).id)


def test_it_stays_out_at_another_size(cleared: tuple[Path, Path, str]) -> None:
    home, stream, run = cleared
    other = learnt(home, describe(stream.parent, album(), size=8)).id
    assert other != run and GONE not in read_by(home, other)


def renamed(folder: Path) -> str:
    shutil.move(folder / "images" / GONE, folder / "images" / "train" / "cat" / "new.png")
    return "train/cat/new.png"


def saved_again(folder: Path) -> str:
    with Image.open(folder / "images" / GONE) as picture:
        picture.save(folder / "images" / "train" / "cat" / "new.bmp")
    (folder / "images" / GONE).unlink()
    return "train/cat/new.bmp"


def compressed(folder: Path) -> str:
    with Image.open(folder / "images" / GONE) as picture:
        picture.save(folder / "images" / GONE, compress_level=1)
    return GONE


def blurred(folder: Path) -> str:
    """Other pixels under the name that was deleted."""
    with Image.open(folder / "images" / GONE) as picture:
        picture.resize((10, 10)).resize((20, 20)).save(folder / "images" / GONE)
    return GONE


@pytest.mark.parametrize("disguise", [renamed, saved_again, compressed, blurred])
def test_it_stays_out_in_disguise(cleared: tuple[Path, Path, str], disguise: Callable[[Path], str]) -> None:
    home, stream, run = cleared
    name = disguise(stream.parent)
    photos = [one for one in album() if one.sample != GONE] + [Photo(name, "cat", "train", "person-0")]
    result = learnt(home, describe(stream.parent, photos))
    assert name not in read_by(home, run)
    assert [line for line in result.figures["warnings"] if line.startswith("skipped 1 samples")]


@settings(max_examples=8)
@given(format_=st.sampled_from(["PNG", "BMP", "TIFF", "WEBP"]), name=st.from_regex(r"[a-z]{1,8}", fullmatch=True))
def test_it_stays_out_in_any_lossless_format(tmp_path_factory: pytest.TempPathFactory, format_: str, name: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    stream, home = photographed(folder), folder / "home"
    run = learnt(home, stream).id
    forgotten(home, run, ("sample", GONE))
    copy = f"train/cat/x{name}.{format_.lower()}"
    with Image.open(folder / "images" / GONE) as picture:
        picture.save(folder / "images" / copy, format_, **({"lossless": True} if format_ == "WEBP" else {}))
    learnt(home, describe(folder, [*album(), Photo(copy, "cat", "train", "person-0")]))
    assert read_by(home, run).isdisjoint({copy, GONE})


def lose_list(home: Path) -> None:
    (home / "audit" / "suppressed.json").unlink()


def empty_list(home: Path) -> None:
    (home / "audit" / "suppressed.json").write_text('{"key":"","requests":{},"schema":1}')


def lose_key(home: Path) -> None:
    (home / "audit" / "system.key").unlink()


def other_key(home: Path) -> None:
    (home / "audit" / "system.key").chmod(0o600)
    (home / "audit" / "system.key").write_bytes(bytes(32))


def lose_ledger(home: Path) -> None:
    (home / "audit" / "ledger.jsonl").unlink()
    (home / "audit" / "ledger.head").unlink()


def lose_audit(home: Path) -> None:
    shutil.rmtree(home / "audit")


def lose_marker(home: Path) -> None:
    (home / "format.json").unlink()


def blank_marker(home: Path) -> None:
    (home / "format.json").write_text('{"format":2}')


LOSSES = [lose_list, empty_list, lose_key, other_key, lose_ledger, lose_audit, lose_marker, blank_marker]


@pytest.mark.parametrize("lose", LOSSES)
def test_without_a_list_that_fits_nothing_runs(cleared: tuple[Path, Path, str], lose: Callable[[Path], None]) -> None:
    home, stream, run = cleared
    kept = (home / "runs" / run / "manifest.json").read_bytes()
    lose(home)
    with pytest.raises(PalimpsestError, match=r"put .*back") as refused:
        learnt(home, stream)
    assert "\n" not in str(refused.value)
    assert (home / "runs" / run / "manifest.json").read_bytes() == kept


def test_an_older_list_does_not_fit(cleared: tuple[Path, Path, str]) -> None:
    home, stream, run = cleared
    older = (home / "audit" / "suppressed.json").read_bytes()
    forgotten(home, run, ("sample", "train/owl/1.png"))
    (home / "audit" / "suppressed.json").write_bytes(older)
    with pytest.raises(PalimpsestError, match="not the list that was recorded"):
        learnt(home, stream)


@pytest.mark.parametrize("lose", [lose_list, empty_list, lose_key, lose_audit])
def test_what_was_lost_is_told_again(cleared: tuple[Path, Path, str], lose: Callable[[Path], None]) -> None:
    home, stream, run = cleared
    (request,) = {path.name for path in (home / "audit" / "vault").iterdir()} and {
        path.name.partition(".")[0] for path in (home / "audit" / "vault").iterdir()
    }
    lose(home)
    with pytest.raises(PalimpsestError, match="deleted 1 samples, but 2 are named"):
        reapply(home, request, [GONE, "train/owl/1.png"], run=run)
    assert reapply(home, request, [GONE], run=run) == 0
    learnt(home, stream)
    assert GONE not in read_by(home, run)


def test_readmitted_it_comes_again(cleared: tuple[Path, Path, str]) -> None:
    home, stream, run = cleared
    (request,) = {path.name.partition(".")[0] for path in (home / "audit" / "vault").iterdir()}
    readmit(home, request)
    learnt(home, stream)
    assert GONE in read_by(home, run)


def test_growth_does_not_bring_a_person_back(tmp_path: Path) -> None:
    stream, home = photographed(tmp_path), tmp_path / "home"
    run = learnt(home, stream).id
    request = forgotten(home, run, ("subject", "person-1")).request
    grown = album((*("cat", "owl", "ibex", "newt"), "lynx", "crow"))
    take(tmp_path, grown)
    new = {one.sample for one in grown if one.label in ("lynx", "crow") and one.subject == "person-1"}
    result = learnt(home, describe(tmp_path, grown))
    assert result.id == run and new.isdisjoint(read_by(home, run))
    assert any(f"kept out {len(new)} new samples" in line and request in line for line in result.figures["warnings"])
    admit(home, request)
    learnt(home, describe(tmp_path, grown))
    assert new <= read_by(home, run)
    assert read_by(home, run).isdisjoint({one.sample for one in album() if one.subject == "person-1"})


def test_a_loop_that_is_not_ours_learns_nothing_deleted(cleared: tuple[Path, Path, str]) -> None:
    from cl.data.recipes import resolve_stream
    from cl.learning.strategy import Model

    home, stream, _ = cleared
    strategy = assembled("simplecil", backbone=BACKBONE, settings=fast("simplecil"), home=home, device="cpu")
    task = resolve_stream(str(stream)).tasks[0]
    strategy.extended(Model(), task, 0)
    assert not [row.id for _, found in Store(home).shards for one in found for row in one.rows if row.id == GONE]
    with pytest.raises(DataDeleted, match="reads samples that were deleted"):
        strategy.features(task.train)


def test_an_intact_list_is_not_told_again(cleared: tuple[Path, Path, str]) -> None:
    """A typo in the ids would let the sample in again."""
    home, stream, run = cleared
    (request,) = {path.name.partition(".")[0] for path in (home / "audit" / "vault").iterdir()}
    with pytest.raises(PalimpsestError, match="nothing to tell again"):
        reapply(home, request, ["no such sample"])
    learnt(home, stream)
    assert GONE not in read_by(home, run)


def test_what_two_requests_deleted_is_let_in_by_neither_alone(tmp_path: Path) -> None:
    stream, home = photographed(tmp_path), tmp_path / "home"
    run = learnt(home, stream).id
    first = forgotten(home, run, ("subject", "person-0")).request
    forgotten(home, run, ("class", "cat"))
    readmit(home, first)
    learnt(home, stream)
    left = read_by(home, run)
    assert "train/owl/0.png" in left and not [name for name in left if "/cat/" in name]


def test_a_deletion_from_one_run_is_widened_to_the_home(tmp_path: Path) -> None:
    stream, home = photographed(tmp_path), tmp_path / "home"
    run, other = learnt(home, stream).id, learnt(home, stream, "slda").id
    execute(home, run, [Selector("sample", GONE)], scope="run")
    assert GONE in read_by(home, other)
    assert execute(home, run, [Selector("sample", GONE)], scope="home").state == "purged"
    learnt(home, stream, "slda")
    assert GONE not in read_by(home, other)
