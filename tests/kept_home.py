"""The home that every later release must be able to read: made once, kept under `tests/fixtures/home`.

python -m tests.kept_home DIR     # makes one anew; only where a change of format is meant and told
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from cl.deletion.execution import execute
from cl.deletion.forget_set import Selector
from cl.home.gc import collect
from cl.home.store import Store
from cl.testing import tiny_stream
from tests.tiny import run_tiny

KEPT = Path(__file__).parent / "fixtures" / "home"
STRATEGIES = ("simplecil", "ease")
GONE = "t0/c0/1"


def make(home: Path) -> None:
    """Two runs, one deletion from both, and what they say of a few images."""
    os.environ["PALIMPSEST_ACTOR"] = "the makers"
    runs = {name: run_tiny(home, name).id for name in STRATEGIES}
    execute(home, runs["ease"], [Selector("sample", GONE)])
    said = {}
    for name in STRATEGIES:
        figures = run_tiny(home, name).figures
        said[name] = {"run": runs[name], "manifest": figures["manifest"], "classes": answers(home, runs[name])}
    collect(Store(home), caches=True)
    shutil.rmtree(home / "locks")
    for cache in ("files.sqlite", "index.sqlite"):
        (home / cache).unlink(missing_ok=True)
    (home.parent / "home.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def answers(home: Path, run: str) -> list[str]:
    """What a run's model calls the test images of the tiny stream."""
    import cl

    images = [task.test.images() for task in tiny_stream().tasks]
    return [name for several in images for name in cl.open(run, home).predict(several)]


if __name__ == "__main__":
    make(Path(sys.argv[1]))
