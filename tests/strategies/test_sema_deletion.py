"""Exact deletion of SEMA runs whose decisions hang by what is deleted: planned, carried out, and held to the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cl.deletion.forget_set import Kind, Selector
from cl.deletion.plan import plan
from cl.home.results import Results
from cl.running.reopening import open_run
from cl.running.run import run
from tests import newness
from tests.deleting import forget, keys, oracle, samples_of
from tests.palimpsest import palimpsest
from tests.tiny import BACKBONE

TINY: dict[str, Any] = {"epochs": 1, "rd_epochs": 20, "batch_size": 8, "bottleneck": 2, "min_scan_batch": 1}


def grows(home: Path, run_id: str) -> set[str]:
    """The tasks that added adapters."""
    decisions = Results(home).find(run_id).figures["growth"]["decisions"]
    return {one["task"] for one in decisions if one["expand"]}


def deleted(home: Path, preset: str, selected: tuple[Kind, str], **stream: Any) -> tuple[str, Any]:
    """A run, then the deletion of what is selected, equal to the run that never saw it; the run and the outcome."""
    started = run(newness.stream(**stream), "sema", backbone=BACKBONE, presets=[preset], settings=TINY, home=home)
    found = plan(open_run(home, started.id), [Selector(*selected)])
    assert found.build > 0  # the rehearsal takes the decisions for what they were
    outcome = forget(home, started.id, selected)
    session, components = oracle(home, started.id, samples_of(home, outcome), home.with_name("cold"))
    assert dict(outcome.components_after) == components
    assert keys(home) == {use.key for use in session.builder.uses}
    return started.id, outcome


@pytest.mark.parametrize("preset", ["exact", "official"])
def test_without_the_task_that_grew_a_later_one_grows(tmp_path: Path, preset: str) -> None:
    home = tmp_path / "home"
    run_id, outcome = deleted(home, preset, ("task", "t1"), levels="dark,bright,bright,dark")
    assert grows(home, run_id) == {"t2"}  # t1 grew, and t2 used its adapters
    assert any(name.startswith("t2/block-1/") for name in outcome.components_after)


@pytest.mark.parametrize("preset", ["exact", "official"])
def test_without_the_sample_that_looked_new_no_adapter_is_left(tmp_path: Path, preset: str) -> None:  # invariant 16
    home = tmp_path / "home"
    run_id, outcome = deleted(home, preset, ("sample", "t1/a/odd"), levels="dark,dark,dark", odd=True)
    assert grows(home, run_id) == set()
    assert not any(name.startswith("t1/block-0/adapter") for name in outcome.components_after)


def test_without_the_first_task_the_second_is_the_first(tmp_path: Path) -> None:
    home = tmp_path / "home"
    run_id, outcome = deleted(home, "exact", ("task", "t0"), levels="dark,bright,dark")
    assert grows(home, run_id) == {"t2"} and "t1/first/adapter" in outcome.components_after


def test_a_class_of_a_quiet_task_rebuilds_its_decisions_and_its_rows(tmp_path: Path) -> None:
    home = tmp_path / "home"
    _, outcome = deleted(home, "exact", ("class", "t1-b"), levels="dark,dark,dark")
    assert outcome.rebuilt < outcome.reused


def test_a_flip_passes_verification(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, outcome = deleted(tmp_path / "home", "exact", ("task", "t1"), levels="dark,bright,bright")
    place = ("--home", str(tmp_path / "home"), "--json")
    code, out, _ = palimpsest(capsys, monkeypatch, "forget", "verify", outcome.request, *place)
    assert code == 0
    assert json.loads(out)["grade"] == "E0"
