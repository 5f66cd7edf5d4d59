"""Runs, deletions and oracles on the tiny stream, in this process."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from cl.data.stream import Stream
from cl.deletion.dossier import read_dossier
from cl.deletion.execution import execute
from cl.deletion.forget_set import Kind, Selector
from cl.deletion.plan import Scope
from cl.deletion.steps import Outcome
from cl.deletion.vault import Vault
from cl.home.results import Result
from cl.home.runs import Runs
from cl.home.store import Store
from cl.running.reopening import setup_of
from cl.running.session import Session, session_on
from tests.tiny import fast, run_tiny

STRATEGIES = ("ease", "simplecil", "finetune", "joint", "mos", "ssiat", "sema")


def start(home: Path, strategy: str, stream: Stream | None = None, seed: int = 0) -> Result:
    """A whole run of a fraction of a second."""
    less = {"epochs": 1} if "epochs" in fast(strategy) else {}
    return run_tiny(home, strategy, stream, seed, **less)


@cache
def _template(strategy: str) -> Path:
    home = Path(mkdtemp(prefix="tiny-home-"))
    start(home, strategy)
    return home


def started(home: Path, strategy: str) -> str:
    """A home with one finished run in it, copied from one made once; the run's id."""
    shutil.copytree(_template(strategy), home, dirs_exist_ok=True)
    return Runs(Store(home)).ids()[0]


def forget(home: Path, run_id: str, *selected: tuple[Kind, str], scope: Scope = "home") -> Outcome:
    return execute(home, run_id, [Selector(kind, value) for kind, value in selected], scope=scope)


def forget_ids(home: Path, run_id: str, ids: Iterable[str]) -> Outcome:
    return forget(home, run_id, *(("sample", one) for one in sorted(ids)))


def samples_of(home: Path, outcome: Outcome) -> set[str]:
    return set(read_dossier(Vault(home), outcome.request).forgotten.samples)


def oracle(home: Path, run_id: str, ids: Iterable[str], cold: Path) -> tuple[Session, dict[str, str]]:
    """The same run on the empty home `cold`, as if the samples had never been: its session and components."""
    runs = Runs(Store(home))
    setup = setup_of(cold, runs.request(run_id), runs.source(run_id))
    session = session_on(cold, setup, setup.whole.without(set(ids)))
    return session, session.drive().components


def keys(home: Path) -> set[str]:
    return set(Store(home).keys())
