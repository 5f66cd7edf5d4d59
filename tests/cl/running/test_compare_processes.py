"""The processes of a comparison: what goes wrong in one is one line, and none outlives its parent."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cl.errors import ProcessLost, UnknownName
from cl.running.compare import cells, run_cells
from cl.running.options import Options

# Runs two cells that wait for ever. The fork server hears Ctrl-C while it loads the engine, as it does on a terminal.
PROGRAM = """
import os, signal, sys
sys.path.remove("")  # as in a console script
from multiprocessing import forkserver
from cl.running.compare import cells, get_ready, run_cells
from cl.running.options import Options

get_ready()
os.kill(forkserver._forkserver._forkserver_pid, signal.SIGINT)
run_cells(cells("split-digits", ["tests.unlucky:Waiting"], 2, Options(home=sys.argv[1])), 2)
"""


def test_an_error_in_a_process_comes_back_as_it_was(tmp_path: Path) -> None:
    grid = cells("split-digits", ["simplecil"], 2, Options("glyph-vti", home=str(tmp_path)))
    with pytest.raises(UnknownName, match="unknown backbone 'glyph-vti'; did you mean glyph-vit"):
        run_cells(grid, 2)


def test_an_unknown_name_travels_whole() -> None:
    error = UnknownName("layer", "qvk", ["qkv", "proj"], where="the blocks")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is UnknownName and vars(again) == vars(error) and str(again) == str(error)


def test_a_killed_process_is_one_line(tmp_path: Path) -> None:
    grid = cells("split-digits", ["tests.unlucky:Killed"], 2, Options(home=str(tmp_path)))
    with pytest.raises(ProcessLost, match="run the same command again"):
        run_cells(grid, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no fork server")
def test_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "cl").mkdir()  # a working folder's `cl` is not the engine
    (tmp_path / "cl" / "__init__.py").touch()
    waiting, told = tmp_path / "waiting", tmp_path / "told"
    waiting.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "WAITING": str(waiting)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "home")]
    with told.open("w") as file:
        parent = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=file)
    _wait_for(lambda: len(list(waiting.iterdir())) == 2 or parent.poll() is not None)
    parent.kill()
    parent.wait()
    assert told.read_text() == "" and len(list(waiting.iterdir())) == 2
    _wait_for(lambda: not any(Path("/proc", one.name).exists() for one in waiting.iterdir()))


def _wait_for(what: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.1)
