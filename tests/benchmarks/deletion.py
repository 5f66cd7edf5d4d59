"""What deletion costs beside full retraining: strategy x deletion on one stream, everything in this one process.

    python tests/benchmarks/deletion.py [STREAM [STRATEGY...]]

Full retraining is the cold oracle itself, which also says whether the manifests are equal. Asserts nothing.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cl.audit.oracle import run_cold, task
from cl.audit.vault import Vault
from cl.deletion import Selector, open_run
from cl.errors import DeletionError
from cl.execution import execute
from cl.recipes import resolve_stream
from cl.runner import run
from cl.stream import Stream

STRATEGIES = ("ease", "simplecil", "finetune", "joint")
HEAD = ("strategy", "deletion", "rebuilt", "seconds", "retrain", "speed-up", "predicted", "equal", "drop left")


def deletions(stream: Stream) -> dict[str, Selector]:
    """The deletions of the table."""
    tasks = stream.tasks
    middle = tasks[len(tasks) // 2]
    sample = middle.train.ids[0]
    return {
        "sample": Selector("sample", sample),
        "subject": Selector("subject", stream.subjects[sample]),
        "class": Selector("class", middle.classes[0]),
        "first task": Selector("task", tasks[0].id),
        "middle task": Selector("task", middle.id),
        "last task": Selector("task", tasks[-1].id),
    }


def measure(home: Path, run_id: str, selector: Selector) -> Sequence[object]:
    """One row, on a copy of `home`."""
    with tempfile.TemporaryDirectory() as folder:
        copy, cold = Path(folder) / "home", Path(folder) / "cold"
        shutil.copytree(home, copy)
        left = _left(copy, run_id, selector)
        done = execute(copy, run_id, [selector])
        samples = Vault(copy).get(done.request)["samples"]
        cold.mkdir()
        oracle = run_cold(task(open_run(copy, run_id), samples, []), cold)
    share = done.rebuilt / max(1, done.rebuilt + done.reused)
    equal = "yes" if oracle.manifest == done.manifest_after else "NO"
    speed = oracle.seconds / done.seconds
    return f"{share:.0%}", *_rounded(done.seconds, oracle.seconds, speed, done.predicted_seconds), equal, left


def _left(home: Path, run_id: str, selector: Selector) -> object:
    try:
        outcome = execute(home, run_id, [selector], method="drop")
    except DeletionError:
        return "-"
    return Vault(home).get(outcome.request)["left"]


def _rounded(*values: float) -> list[str]:
    return [f"{value:.1f}" for value in values]


def main(name: str = "split-mnist-5k", *strategies: str) -> None:
    """Print the table."""
    print(*(f"{title:>12}" for title in HEAD))
    for strategy in strategies or STRATEGIES:
        settings = {"when": "last"} if strategy == "joint" else {}
        with tempfile.TemporaryDirectory() as folder:
            run_id = run(name, strategy, presets=["quick"], settings=settings, home=folder, device="cpu").id
            for title, selector in deletions(resolve_stream(name)).items():
                row = strategy, title, *measure(Path(folder), run_id, selector)
                print(*(f"{value:>12}" for value in row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
