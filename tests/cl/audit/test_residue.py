"""Whatever is left of a deleted sample is found, wherever it lies; what only looks like it is not."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from cl.audit.residue import residue
from cl.data.samples import Samples
from cl.deletion.oracle import shards_with
from cl.running.reopening import open_run
from cl.testing import tiny_stream
from tests.deleting import forget, started

SAMPLE = "t1/c0/1"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    forget(tmp_path, started(tmp_path, "simplecil"), ("sample", SAMPLE))
    return tmp_path


def image() -> Samples:
    return shards_with(tiny_stream(), {SAMPLE})[0]


def content() -> str:
    return image().contents[0]


def found(home: Path) -> set[tuple[str, str]]:
    return {(hit.path, hit.kind) for hit in residue(home, "tiny", {SAMPLE: content()}, [image()]).hits}


def test_a_clean_home_has_none(home: Path) -> None:
    assert found(home) == set()


@pytest.mark.parametrize(
    "place",
    [
        "store/ab/left.json",
        "shards/ab/left.json",
        "checkpoints/left.safetensors",
        "runs/left/generations/1/resolution.json",
        "pages/page.html",
        "log.txt",
        "crash/dump",
        "audit/notes.json",
    ],
)
@pytest.mark.parametrize("kind", ["id", "digest", "pixels"])
def test_a_canary_in_each_surface(home: Path, place: str, kind: str) -> None:
    row = image().images()[0, 1, 5].numpy().tobytes()
    data = {"id": f'["{SAMPLE}"]'.encode(), "digest": f"x {content()} y".encode(), "pixels": b"\0\1" + row + b"\2"}
    (home / place).parent.mkdir(parents=True, exist_ok=True)
    (home / place).write_bytes(data[kind])
    assert found(home) == {(place, kind)}


def test_a_row_in_free_pages_and_in_the_log_of_the_database(home: Path) -> None:
    path = home / "results.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA secure_delete = OFF")
        database.execute("INSERT INTO runs VALUES ('x', 'x', 'x', 0, 'x', ?)", (f'"{SAMPLE}"' + " " * 9000,))
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM runs WHERE run = 'x'")
    assert {kind for _, kind in found(home)} == {"id"}


def test_a_file_name_and_interleaved_pixels_count(home: Path) -> None:
    (home / f"{content()}.json").write_text("{}")
    packed = image().images()[0].permute(1, 2, 0)[7].contiguous().numpy().tobytes()
    (home / "thumbnail.raw").write_bytes(packed)
    assert found(home) == {(f"{content()}.json", "digest"), ("thumbnail.raw", "pixels")}


@pytest.mark.parametrize("text", ["t1/c0/10", "at1/c0/1", "t1/c0/1/b", "x/t1/c0/1", "t1/c0/1_2", "t1/c0/1.5"])
def test_a_longer_id_is_another_one(home: Path, text: str) -> None:
    (home / "log.txt").write_text(f'seen "{text}" today')
    assert found(home) == set()


def test_black_rows_and_bare_numbers_are_no_residue(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(4096) + b"\xff" * 4096)
    (tmp_path / "record.json").write_text('{"numel": 12, "epoch": 3}')
    black = Samples.visiting(image().images().permute(0, 2, 3, 1).numpy() * 0)
    assert not residue(tmp_path, "tiny", {"12": "0" * 64, "3": "1" * 64}, [black]).hits
    (tmp_path / "record.json").write_text('{"ids": ["12"]}')
    assert [hit.kind for hit in residue(tmp_path, "tiny", {"12": "0" * 64}).hits] == ["id"]


def test_the_source_itself_is_known_to_the_run(home: Path) -> None:
    run = next(path.parent.name for path in home.glob("runs/*/request.json"))
    assert SAMPLE in open_run(home, run).suppressed
