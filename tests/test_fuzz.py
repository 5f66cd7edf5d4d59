"""Any words on the command line, any damage to a home: one line at most, and the right manifest in the end."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cl.cli import main
from cl.testing import contents
from tests.homes import manifest
from tests.tiny import BACKBONE

COMMON = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
STREAM = "cl.testing:tiny_stream"
RUN = ["run", STREAM, "finetune", "--backbone", BACKBONE, "--device", "cpu"]
RUN += ["--set", "epochs=1", "--set", "bottleneck=2"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("fuzz") / "home"
    assert command(home, *RUN)[0] == 0
    assert command(home, "show", run_id(home), "--dependents", "t0/network")[0] == 0  # makes the index
    return home


def run_id(home: Path) -> str:
    return next((home / "runs").iterdir()).name


def command(home: Path, *words: str) -> tuple[int, str, str]:
    """Exit code and what was printed. Anything but an orderly end is raised: that is what is looked for."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["palimpsest", *words]),
        mock.patch.dict("os.environ", {"PALIMPSEST_HOME": str(home)}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


def check_orderly(code: int, out: str, err: str) -> None:
    """One line says what is wrong; a group of commands called alone prints its help instead."""
    assert code in (0, 1, 2)
    helped = not err and out.lstrip().startswith("Usage: ")
    assert code != 2 or helped or (err.startswith("palimpsest: ") and err.count("\n") == 1), err


NAMES = ["list", "describe", "results", "show", "gc", "store", "verify", "predict", "run", "compare", "ease", STREAM]
OPTIONS = ["--json", "--home", "--seed", "--preset", "--set", "--keep", "--caches", "--dry-run", "--fix", "--lineage"]
OPTIONS += ["--dependents", "--device", "--threads", "--backbone", "--help", "--seeds", "--jobs", "--out", "--"]
VALUES = ["0", "-1", "1e400", "nan", "epochs=0", "epochs=1", "=", "quick", "20GB", "cpu", "/dev/null", "/", ".", ""]
WORDS = st.one_of(st.sampled_from(NAMES), st.sampled_from(OPTIONS), st.sampled_from(VALUES), st.text(max_size=12))


@given(first=st.sampled_from([*NAMES[:8], "run", "compare"]), words=st.lists(WORDS, max_size=5))
@COMMON
def test_any_words_on_the_command_line(ran: Path, first: str, words: list[str]) -> None:
    check_words(ran, first, words)


@pytest.mark.slow
@given(first=st.sampled_from([*NAMES[:8], "run", "compare"]), words=st.lists(WORDS, max_size=5))
@settings(COMMON, max_examples=1000, derandomize=False)
def test_many_words_on_the_command_line(ran: Path, first: str, words: list[str]) -> None:
    check_words(ran, first, words)


def check_words(ran: Path, first: str, words: list[str]) -> None:
    # A run must not really begin, nor anything be written outside: both words need a name that is none.
    spoil = ["none-such", "none-such"] if first in ("run", "compare") else []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        home = Path(shutil.copytree(ran, Path(folder) / "home"))
        words = [word.replace("\0", "") for word in words if word not in ("/", "/dev/null") or "--out" not in words]
        answered = command(home, first, *spoil, *words)
    check_orderly(*answered)


def stored(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm")))


EDITS = st.lists(
    st.tuples(
        st.integers(0, 10**6),  # which file
        st.sampled_from(["flip", "cut", "empty", "lose", "grow", "text"]),
        st.integers(0, 10**6),  # where in it
        st.binary(min_size=1, max_size=8),
    ),
    min_size=1,
    max_size=5,
)


def damage(path: Path, how: str, place: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    place %= len(content) + 1
    path.unlink()
    if how != "lose":
        edited = {
            "flip": content[:place] + data + content[place + len(data) :],
            "cut": content[:place],
            "empty": b"",
            "grow": content + data,
            "text": json.dumps([{"key": place}]).encode(),
        }[how]
        path.write_bytes(edited)


@given(edits=EDITS)
@COMMON
def test_any_damage_to_a_home(ran: Path, edits: list[tuple[int, str, int, bytes]]) -> None:
    check_damaged(ran, edits)


@pytest.mark.slow
@given(edits=EDITS)
@settings(COMMON, max_examples=300, derandomize=False)
def test_much_damage_to_a_home(ran: Path, edits: list[tuple[int, str, int, bytes]]) -> None:
    check_damaged(ran, edits)


def check_damaged(ran: Path, edits: list[tuple[int, str, int, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(shutil.copytree(ran, Path(folder) / "home"))
        for which, how, place, data in edits:
            files = [path for path in stored(home) if path.name != "format.json"]
            damage(files[which % len(files)], how, place, data)
        name = run_id(ran)
        for words in (["results"], ["show", name], ["show", name, "--lineage", "t1/network"], ["gc"]):
            check_orderly(*command(home, *words))
        check_orderly(*command(home, "store", "verify", "--fix"))
        assert command(home, "store", "verify")[0] == 0
        code, _, err = command(home, *RUN, "--json")
        assert code == 0, err
        assert manifest(home) == manifest(ran)
        assert contents(ran).items() <= contents(home).items()


@given(edits=EDITS)
@COMMON
def test_a_run_goes_on_over_damage_that_nobody_mended(ran: Path, edits: list[tuple[int, str, int, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(shutil.copytree(ran, Path(folder) / "home"))
        for which, how, place, data in edits:
            files = [path for path in stored(home) if "results" not in path.name and path.name != "format.json"]
            damage(files[which % len(files)], how, place, data)
        code, _, err = command(home, *RUN, "--json")
        assert code == 0, err
        assert manifest(home) == manifest(ran)
