"""A run that is killed goes on where it was, to the bytes of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import run_tiny

# Kills its own process, which no handler can stop, once `owner.name` has returned `after` times.
PROGRAM = """
import os, signal, sys
from pathlib import Path
from cl.components import checkpoint
from cl.home.store import Store
from tests.tiny import run_tiny

home, strategy, name, after = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
owner = {"commit": Store, "save": checkpoint.Checkpoint}[name]
original, count = getattr(owner, name), 0
checkpoint.CHECKPOINT_SECONDS = 0.0

def counted(*arguments):
    global count
    original(*arguments)
    count += 1
    if count == after:
        os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, counted)
run_tiny(home, strategy)
"""


@pytest.mark.parametrize("strategy", ["mos", "ssiat"])
@pytest.mark.parametrize(("name", "after"), [("commit", 9), ("save", 3)])
def test_a_killed_run_resumes_to_the_same_manifest(tmp_path: Path, strategy: str, name: str, after: int) -> None:
    home = tmp_path / "killed"
    command = [sys.executable, "-c", PROGRAM, str(home), strategy, name, str(after)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert name == "commit" or list((home / "checkpoints").glob("*.safetensors"))
    resumed = run_tiny(home, strategy).figures
    straight = run_tiny(tmp_path / "straight", strategy).figures
    assert resumed["manifest"] == straight["manifest"]
    assert resumed["components_built"] < straight["components_built"] or name == "save"
    assert not list((home / "checkpoints").glob("*.safetensors"))
