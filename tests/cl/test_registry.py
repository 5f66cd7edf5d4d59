"""Entries of third parties that cannot be loaded: the rest goes on, and one line says which package it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cl import registry
from cl.errors import BadInput
from tests.palimpsest import palimpsest

POINTS = """
[palimpsest.strategies]
broken = nowhere.at_all:Method
[palimpsest.stream_families]
torn = nowhere.at_all:family
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package whose entries point at nothing."""
    folder = tmp_path / "foreign_methods-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-methods\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_list_tells_of_it_and_goes_on(
    foreign: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = palimpsest(capsys, monkeypatch, "list", "strategies", "--json")
    rows = {row["name"]: row["about"] for row in json.loads(out)}
    assert (code, err) == (0, "") and "ease" in rows
    assert "of package foreign-methods cannot be loaded (No module named 'nowhere')" in rows["broken"]
    assert "split-digits" in registry.streams.names()


def test_using_it_is_one_line(
    foreign: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = palimpsest(capsys, monkeypatch, "run", "split-digits", "broken")
    assert (code, out, err.count("\n")) == (2, "", 1) and "mend that package or remove it" in err
    with pytest.raises(BadInput, match="stream 'torn' of package foreign-methods cannot be loaded"):
        registry.streams.get("torn:member")
