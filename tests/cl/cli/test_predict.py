"""`predict`: a finished run's model on visitors' images, of which nothing stays."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cl
from cl.data.stream import Stream
from cl.errors import BadInput
from cl.running.run import run
from cl.testing import tiny_backbone, tiny_stream
from tests.backbone_file import described, save_weights
from tests.homes import files
from tests.palimpsest import palimpsest
from tests.tiny import BACKBONE, run_tiny
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
    assert after == before
    pixels = np.asarray(Image.open(path))
    for data in after.values():
        assert path.name.encode() not in data and pixels[0, :4].tobytes() not in data


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


def test_a_run_of_python_objects_is_opened_but_for_its_backbone(tmp_path: Path) -> None:
    picture = str(visitor(tmp_path))
    bare = run_tiny(tmp_path, stream=Stream("bare", tiny_stream().tasks))
    assert cl.open(bare.id, tmp_path).predict(picture)[0] in tiny_stream().classes
    of_objects = run(tiny_stream(), "simplecil", backbone=tiny_backbone(), home=tmp_path / "object")
    with pytest.raises(BadInput, match=r"backbone of run .* made from Python objects"):
        cl.open(of_objects.id, tmp_path / "object")
    answers = [
        cl.open(of_objects.id, tmp_path / "object", backbone=given).predict(picture)
        for given in (BACKBONE, tiny_backbone())
    ]
    assert answers[0] == answers[1]


def test_another_backbone_is_refused_and_one_at_another_place_can_be_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    made = run_tiny(tmp_path / "home", "simplecil", backbone=described(first)).id
    words = ("predict", made, str(visitor(tmp_path)), "--home", str(tmp_path / "home"), "--json")
    expected = palimpsest(capsys, monkeypatch, *words)
    shutil.move(first, second)
    code, _, err = palimpsest(capsys, monkeypatch, *words)
    assert code == 2 and err.count("\n") == 1 and "--backbone" in err
    assert palimpsest(capsys, monkeypatch, *words, "--backbone", str(second / "mine.toml")) == expected
    save_weights(second, tiny_backbone(seed=1))
    with pytest.raises(BadInput, match="not the one of run"):
        cl.open(made, tmp_path / "home", backbone=str(second / "mine.toml"))


def test_bad_images_and_runs_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_tiny(tmp_path)
    (tmp_path / "no-image.png").write_text("hello")
    for words in (("none", "x.png"), (result.id, "x.png"), (result.id, str(tmp_path / "no-image.png")), (result.id,)):
        code, out, err = palimpsest(capsys, monkeypatch, "predict", *words, "--home", str(tmp_path))
        assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith("palimpsest: ")
