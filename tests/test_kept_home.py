"""A home that an earlier release wrote is read by this one: opened, asked, deleted from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cl.audit.verification import verify
from cl.deletion.execution import execute
from cl.deletion.forget_set import Selector
from cl.errors import DeletionError
from cl.home.check import faults
from cl.home.ledger import Ledger
from cl.home.runs import Runs
from cl.home.store import Store
from tests.kept_home import GONE, KEPT, STRATEGIES, answers
from tests.tiny import run_tiny

SAID = json.loads(KEPT.with_suffix(".json").read_bytes())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT, tmp_path / "home"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_its_models_answer_as_they_did(home: Path, strategy: str) -> None:
    assert answers(home, SAID[strategy]["run"]) == SAID[strategy]["classes"]


def test_it_is_sound_and_its_ledger_holds(home: Path) -> None:
    assert list(faults(Store(home))) == [] and len(Ledger(home).verify()) > 5


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_is_deleted_from_and_what_was_deleted_stays_out(home: Path, strategy: str) -> None:
    """On another machine or with another torch nothing can be compared: then the run is made anew first, as is said."""
    run, wanted = SAID[strategy]["run"], [Selector("sample", "t1/c1/2")]
    try:
        outcome = execute(home, run, wanted)
    except DeletionError as error:
        assert "run it again first" in str(error)
        assert run_tiny(home, strategy).id == run
        outcome = execute(home, run, wanted)
    assert outcome.forgotten == 1 and verify(home, outcome.request).grade == "E0"
    assert Runs(Store(home)).resolution(run).ids.isdisjoint({GONE, "t1/c1/2"})
