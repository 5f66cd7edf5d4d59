"""`palimpsest new`: what it writes runs without being installed, passes its own tests, and overwrites nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cl
from cl.testing import tiny_backbone
from tests.palimpsest import palimpsest

pytest_plugins = ["pytester"]
NAMES = {"strategy": "first-means", "stream": "first-bars"}


@pytest.fixture
def folders(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A new package of each kind, importable."""
    made = {}
    for what, name in NAMES.items():
        monkeypatch.delitem(sys.modules, name.replace("-", "_"), raising=False)  # of the test before
        words = ("new", what, name, "--out", str(tmp_path / "made"), "--json")
        code, out, err = palimpsest(capsys, monkeypatch, *words)
        assert (code, err) == (0, "")
        content = json.loads(out)
        made[what] = Path(content["folder"])
        assert content["files"] == sorted(
            path.relative_to(made[what]).as_posix() for path in made[what].rglob("*") if path.is_file()
        )
        monkeypatch.syspath_prepend(made[what])
    return made


def test_they_run_uninstalled(folders: dict[str, Path], tmp_path: Path) -> None:
    settings = {"settings": {"shrinkage": 0.2}, "arguments": {"images": 4}}
    names = ("first_bars:first_bars", "first_means:FirstMeans")
    result = cl.run(*names, **settings, backbone=tiny_backbone(), home=tmp_path / "home", device="cpu")
    assert result.figures["average_accuracy"] > 0.5
    again = cl.run("cl.testing:tiny_stream", names[1], backbone=tiny_backbone(), home=tmp_path / "home", device="cpu")
    assert len(again.figures["curve"]) == 3


@pytest.mark.parametrize("what", NAMES)
def test_they_pass_their_own_tests(folders: dict[str, Path], what: str, pytester: pytest.Pytester) -> None:
    folder = folders[what]
    result = pytester.inline_run("-p", "no:cacheprovider", "--rootdir", folder, "-c", folder / "pyproject.toml", folder)
    passed, skipped, failed = result.listoutcomes()
    assert len(passed) > 7 and not skipped and not failed, [str(report.longrepr) for report in failed]


@pytest.mark.parametrize("what", NAMES)
def test_what_is_written_is_tidy_and_named(folders: dict[str, Path], what: str) -> None:
    name, ruff = NAMES[what], str(Path(sys.executable).with_name("ruff"))
    options = ["--no-cache", "--isolated", "--line-length", "120", "."]
    subprocess.run([ruff, "check", "--select", "E,F,W,I,B,UP,SIM", *options], check=True, cwd=folders[what])
    subprocess.run([ruff, "format", "--check", *options], check=True, cwd=folders[what])
    project = tomllib.loads((folders[what] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = {"strategy": {name: "first_means:FirstMeans"}, "stream": {name: "first_bars:first_bars"}}[what]
    assert project["name"] == name and list(project["entry-points"].values()) == [points]
    text = next(folders[what].glob("*.py")).read_text(encoding="utf-8")
    third_parties = [line for line in text.splitlines() if line.startswith(("import ", "from "))][1:]
    assert len(third_parties) == 3 and sum(line.startswith("from cl import ") for line in third_parties) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ease", "the name 'ease' is taken"),
        ("split-digits", "the name 'split-digits' is taken"),
        ("glyph-vit", "the name 'glyph-vit' is taken"),
        ("My_Means", "'My_Means' is no name"),
        ("2means", "'2means' is no name"),
        ("my--means", "'my--means' is no name"),
        ("família", "is no name"),
        ("../means", "'../means' is no name"),
        ("class", "'class' is no name"),
        ("json", "a module 'json' can be imported already"),
        ("strategies", "a module 'strategies' can be imported already"),
        ("there", "is there already"),
    ],
)
@pytest.mark.parametrize("what", NAMES)
def test_refusals_write_nothing(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    what: str,
    name: str,
    message: str,
) -> None:
    (tmp_path / "there").mkdir()
    code, out, err = palimpsest(capsys, monkeypatch, "new", what, name, "--out", str(tmp_path))
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err
    assert [path.name for path in tmp_path.iterdir()] == ["there"] and not list((tmp_path / "there").iterdir())
