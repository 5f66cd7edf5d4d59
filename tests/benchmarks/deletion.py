"""What deletion costs beside full retraining: strategy x deletion on one stream, everything in this one process.

    python tests/benchmarks/deletion.py [STREAM [STRATEGY...]] [--only DELETION]... [--home DIR] [--one]

Full retraining is the cold oracle itself, run in this process like the deletion; `grade` is that of `forget verify`,
whose second oracle runs in a process of its own. --one leaves the second out, so V1 is not tested: half the time.
`left` is what dropping the task's own parts leaves of the data: its grade, and how many components were made of it.
With --home the first run is kept, and a broken table can be gone on with. Asserts nothing.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cl.audit.verification
from cl.data.recipes import resolve_stream
from cl.data.stream import Stream
from cl.deletion.dossier import read_dossier
from cl.deletion.execution import execute
from cl.deletion.forget_set import Selector
from cl.deletion.oracle import Finding, oracles, run_cold
from cl.deletion.vault import Vault
from cl.errors import DeletionError
from cl.running.run import run

STRATEGIES = ("simplecil", "ease", "finetune", "joint")
HEAD = ("stream", "strategy", "deletion", "forgot", "tainted", "rebuilt", "seconds", "retrain", "speed-up", "predicted")
HEAD = (*HEAD, "grade", "left")


def deletions(stream: Stream) -> dict[str, Selector]:
    """The deletions of the table."""
    tasks = stream.tasks
    middle = tasks[len(tasks) // 2]
    sample = middle.train.ids[0]
    return {
        "sample": Selector("sample", sample),
        "subject": Selector("subject", stream.subjects[sample]),
        "class": Selector("class", middle.classes[0]),
        "first": Selector("task", tasks[0].id),
        "middle": Selector("task", middle.id),
        "last": Selector("task", tasks[-1].id),
    }


class Oracles:
    """Stands for `oracles` of one deletion: the first is run in this process, the second in another, each once.

    one: the first stands for the second too.
    """

    def __init__(self, one: bool) -> None:
        self.one, self.found = one, list[Finding]()

    def __call__(self, tasks: Sequence[Mapping[str, Any]]) -> list[Finding]:
        if not self.found:
            with tempfile.TemporaryDirectory() as folder:
                first = run_cold(tasks[0], Path(folder))
            self.found = [first, first] if self.one else [first, *oracles(tasks[1:])]
        return self.found


def measure(home: Path, run_id: str, selector: Selector, one: bool) -> Sequence[object]:
    """One row, on a copy of `home`."""
    cl.audit.verification.oracles = cold = Oracles(one)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "home"
        shutil.copytree(home, copy)
        left = _left(copy, run_id, selector)
        done = execute(copy, run_id, [selector])
        grade = cl.audit.verification.verify(copy, done.request).grade
        before = len(read_dossier(Vault(copy), done.request).before.keys)
    retrain = cold.found[0].seconds
    shares = [f"{share:.0%}" for share in (done.tainted / before, done.rebuilt / max(1, done.rebuilt + done.reused))]
    seconds = [f"{value:.1f}" for value in (done.seconds, retrain, retrain / done.seconds, done.predicted_seconds)]
    return done.forgotten, *shares, *seconds, grade, left


def _left(home: Path, run_id: str, selector: Selector) -> str:
    try:
        outcome = execute(home, run_id, [selector], method="drop")
    except DeletionError:
        return "-"
    copy = read_dossier(Vault(home), outcome.request).copy
    assert copy is not None
    return f"{cl.audit.verification.verify(home, outcome.request).grade} {copy.left}"


def table(name: str, strategy: str, only: Sequence[str], home: Path, one: bool) -> None:
    """The rows of one strategy."""
    settings = {"when": "last"} if strategy == "joint" else {}
    run_id = run(name, strategy, presets=["quick"], settings=settings, home=home, device="cpu").id
    for title, selector in deletions(resolve_stream(name)).items():
        if not only or title in only:
            row = name, strategy, title, *measure(home, run_id, selector, one)
            print(*(f"{value!s:>14}" for value in row), flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", nargs="?", default="split-mnist-5k")
    parser.add_argument("strategies", nargs="*", default=STRATEGIES)
    parser.add_argument("--only", action="append", help="one deletion of the table; may be repeated")
    parser.add_argument("--home", type=Path, help="where the first runs are kept [default: nowhere]")
    parser.add_argument("--one", action="store_true", help="one oracle, so half the time; V1 is not tested")
    given = parser.parse_args()
    print(*(f"{title:>14}" for title in HEAD), flush=True)
    for strategy in given.strategies:
        with tempfile.TemporaryDirectory() as folder:
            home = given.home / given.stream / strategy if given.home else Path(folder)
            table(given.stream, strategy, given.only or (), home, given.one)


if __name__ == "__main__":
    main()
