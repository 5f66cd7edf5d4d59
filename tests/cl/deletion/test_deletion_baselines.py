"""The usual practice, measured on a copy: what it costs, what it leaves, and that the run stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from cl.audit.verification import verify
from cl.deletion.execution import execute
from cl.deletion.forget_set import Selector
from cl.errors import DeletionError
from tests.deleting import started
from tests.homes import unlocked

pytestmark = pytest.mark.usefixtures("cold_in_this_process")


def untouched(home: Path) -> dict[str, bytes]:
    return {name: data for name, data in unlocked(home).items() if not name.startswith(("audit/", "format.json"))}


@pytest.mark.parametrize(("selector", "grade"), [(Selector("task", "t1"), "E0"), (Selector("sample", "t1/c0/1"), "A")])
def test_dropping_is_exact_for_a_whole_task_of_ease_alone(tmp_path: Path, selector: Selector, grade: str) -> None:
    run = started(tmp_path, "ease")
    before = untouched(tmp_path)
    outcome = execute(tmp_path, run, [selector], method="drop")
    assert untouched(tmp_path) == before
    assert verify(tmp_path, outcome.request).grade == grade


def test_one_network_for_all_tasks_has_nothing_to_drop(tmp_path: Path) -> None:
    run = started(tmp_path, "finetune")
    with pytest.raises(DeletionError, match="nothing can be dropped"):
        execute(tmp_path, run, [Selector("task", "t1")], method="drop")


def test_retraining_is_exact_and_reuses_nothing(tmp_path: Path) -> None:
    run = started(tmp_path, "finetune")
    before = untouched(tmp_path)
    outcome = execute(tmp_path, run, [Selector("sample", "t1/c0/1")], method="retrain")
    assert (outcome.reused, untouched(tmp_path)) == (0, before)
    assert verify(tmp_path, outcome.request).grade == "E0"
