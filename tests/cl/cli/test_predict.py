"""`predict`: a finished run's model on visitors' images, of which nothing stays."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cl.data.stream import Stream
from cl.errors import BadInput
from cl.home.gc import collect
from cl.home.store import Store
from cl.running.reopening import Reopened
from cl.running.run import run
from cl.testing import tiny_backbone, tiny_stream
from tests.backbone_file import described, save_weights
from tests.homes import files
from tests.palimpsest import palimpsest
from tests.tiny import run_tiny
from tests.visitors import visitor


def test_predictions_are_printed_and_nothing_of_the_image_is_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, path = tmp_path / "home", visitor(tmp_path)
    result = run_tiny(home)
    before = files(home)
    words = ("predict", result.id[:6], str(path), str(path), "--home", str(home))
    code, out, _ = palimpsest(capsys, monkeypatch, *words, "--json")
    rows = json.loads(out)
    assert code == 0 and [row["image"] for row in rows] == [str(path)] * 2
    assert rows[0]["class"] == rows[0]["top"][0][0] and rows[0]["score"] == rows[0]["top"][0][1]
    assert len(rows[0]["top"]) == 5 and {name for name, _ in rows[0]["top"]} <= set(tiny_stream().classes)
    assert palimpsest(capsys, monkeypatch, *words)[0] == 0
    after = files(home)
    assert after.keys() == before.keys()
    pixels = np.asarray(Image.open(path))
    for data in after.values():
        assert path.name.encode() not in data and pixels[0, :4].tobytes() not in data
    assert {p for p in after if after[p] != before[p]} <= {home / "results.sqlite-shm", home / "results.sqlite-wal"}


def test_names_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, plain = tmp_path / "home", visitor(tmp_path)
    run_id = run_tiny(home).id
    marked, no_text = "[bold]" + "x" * 90 + ".png", os.fsdecode(b"\xff.png")
    for name in (marked, no_text):
        shutil.copy(plain, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    code, out, _ = palimpsest(capsys, monkeypatch, "predict", run_id, marked, "--home", str(home))
    width = out.index("class")  # of the first column, folded over several lines
    assert code == 0 and "".join(line[:width].strip() for line in out.splitlines()[1:]) == marked
    code, out, _ = palimpsest(capsys, monkeypatch, "predict", run_id, no_text, "--home", str(home), "--json")
    assert code == 0 and json.loads(out)[0]["image"] == no_text and out.isascii()


def test_a_replay_builds_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    result = run_tiny(tmp_path)
    found = Reopened(tmp_path, result.id)
    assert found.model.entries
    assert not any(use.built for use in found.strategy._builder.uses)
    collect(Store(tmp_path), caches=True)
    again = Reopened(tmp_path, result.id)
    digests = [{name: part.digest for name, part in one.model.parts} for one in (found, again)]
    assert digests[0] == digests[1]


def test_runs_that_cannot_be_replayed_are_refused(tmp_path: Path) -> None:
    bare = run_tiny(tmp_path, stream=Stream("bare", tiny_stream().tasks))
    with pytest.raises(BadInput, match="made from Python objects"):
        Reopened(tmp_path, bare.id)
    of_objects = run(tiny_stream(), "simplecil", backbone=tiny_backbone(), home=tmp_path / "object")
    with pytest.raises(BadInput, match=r"backbone of run .* made from Python objects"):
        Reopened(tmp_path / "object", of_objects.id)
    from_file = run_tiny(tmp_path / "described", "simplecil", backbone=described(tmp_path))
    save_weights(tmp_path, tiny_backbone(seed=1))
    with pytest.raises(BadInput, match="not the one of run"):
        Reopened(tmp_path / "described", from_file.id)


def test_bad_images_and_runs_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_tiny(tmp_path)
    (tmp_path / "no-image.png").write_text("hello")
    for words in (("none", "x.png"), (result.id, "x.png"), (result.id, str(tmp_path / "no-image.png")), (result.id,)):
        code, out, err = palimpsest(capsys, monkeypatch, "predict", *words, "--home", str(tmp_path))
        assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith("palimpsest: ")
