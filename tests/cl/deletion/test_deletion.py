"""Exact deletion against the cold oracle: invariants over random forget sets, and the named cases."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cl
from cl.audit.residue import residue
from cl.deletion.execution import execute, rebuild_stale
from cl.deletion.forget_set import Kind, Selector
from cl.deletion.keeping_out import readmit
from cl.deletion.oracle import observe, shards_with
from cl.deletion.plan import plan
from cl.deletion.taint import closure
from cl.errors import BadInput, DataDeleted, DeletionError, UnknownName
from cl.home.gc import collect
from cl.home.results import Results
from cl.home.runs import Runs
from cl.home.shards import Traces
from cl.home.store import Store
from cl.running.reopening import open_run
from cl.running.session import Session
from cl.testing import tiny_stream
from tests.deleting import STRATEGIES, forget, forget_ids, keys, oracle, samples_of, start, started
from tests.homes import unlocked
from tests.tiny import run_tiny

IDS = sorted(tiny_stream().ids)
SOME = st.sets(st.sampled_from(IDS), min_size=1, max_size=10)


@settings(max_examples=4)
@given(ids=SOME, strategy=st.sampled_from(STRATEGIES))
def test_after_equals_the_cold_oracle_and_the_store_holds_nothing_else(ids: set[str], strategy: str) -> None:
    with TemporaryDirectory() as folder:
        home, cold = Path(folder) / "home", Path(folder) / "cold"
        run = started(home, strategy)
        outcome = forget_ids(home, run, ids)
        session, components = oracle(home, run, ids, cold)
        assert dict(outcome.components_after) == components
        assert outputs(open_run(home, run), ids) == outputs(session, ids)
        assert keys(home) == {use.key for use in session.builder.uses}
        contents = {
            sample: content
            for task in session.whole.tasks
            for shard in (task.train, task.test)
            for sample, content in zip(shard.ids, shard.contents, strict=True)
            if sample in ids
        }
        assert not residue(home, "tiny", contents, shards_with(session.whole, ids)).hits


def outputs(session: Session, ids: set[str]) -> Mapping[str, str]:
    """Digests of the scores of the model on test sets, on the forgotten samples and on noise."""
    return observe(session, session.drive(), ids, 0.0).outputs


@settings(max_examples=3)
@given(first=SOME, second=SOME, strategy=st.sampled_from(STRATEGIES))
def test_two_deletions_come_to_one(first: set[str], second: set[str], strategy: str) -> None:
    with TemporaryDirectory() as folder:
        homes = [Path(folder) / name for name in ("12", "21", "both")]
        (run,) = {started(home, strategy) for home in homes}
        forget_ids(homes[0], run, first)
        last = [forget_ids(homes[0], run, second)]
        forget_ids(homes[1], run, second)
        last.append(forget_ids(homes[1], run, first))
        last.append(forget_ids(homes[2], run, first | second))
        assert len({outcome.manifest_after for outcome in last}) == 1


@settings(max_examples=6)
@given(ids=SOME, more=SOME, strategy=st.sampled_from(("ease", "simplecil", "finetune", "joint")))
def test_the_plan_foretells_the_work_touches_nothing_and_grows_with_the_set(
    ids: set[str], more: set[str], strategy: str
) -> None:
    with TemporaryDirectory() as folder:
        home = Path(folder)
        run = started(home, strategy)
        before = unlocked(home)
        small = plan(open_run(home, run), [Selector("sample", one) for one in ids])
        large = plan(open_run(home, run), [Selector("sample", one) for one in ids | more])
        assert unlocked(home) == before
        assert {step.key for step in small.steps} <= {step.key for step in large.steps}
        outcome = forget_ids(home, run, ids)
        assert (outcome.rebuilt, outcome.tainted) == (small.build, len(small.steps))
        assert outcome.rebuilt <= outcome.tainted


@pytest.mark.parametrize(
    ("strategy", "task"),
    [*((name, "t1") for name in STRATEGIES), *((name, end) for name in ("ease", "finetune") for end in ("t0", "t2"))],
)
def test_deleting_a_task_equals_the_stream_without_it(tmp_path: Path, strategy: str, task: str) -> None:
    run = started(tmp_path / "home", strategy)
    outcome = forget(tmp_path / "home", run, ("task", task))
    _, components = oracle(tmp_path / "home", run, samples_of(tmp_path / "home", outcome), tmp_path / "cold")
    assert dict(outcome.components_after) == components
    assert not any(task in name for name in components)


def test_the_last_task_of_ease_costs_no_build(tmp_path: Path) -> None:
    outcome = forget(tmp_path, started(tmp_path, "ease"), ("task", "t2"))
    assert outcome.rebuilt == 0 < outcome.purged


def test_what_is_outside_the_closure_keeps_its_file_untouched(tmp_path: Path) -> None:
    run = started(tmp_path, "ease")
    found = plan(open_run(tmp_path, run), [Selector("sample", "t1/c0/1")])
    clean = keys(tmp_path) - {step.key for step in found.steps}
    before = {key: (tmp_path / "store" / key[:2] / f"{key}.safetensors").stat() for key in clean}
    forget(tmp_path, run, ("sample", "t1/c0/1"))
    after = {key: (tmp_path / "store" / key[:2] / f"{key}.safetensors").stat() for key in clean}
    assert {k: (s.st_ino, s.st_mtime_ns) for k, s in before.items()} == {
        k: (s.st_ino, s.st_mtime_ns) for k, s in after.items()
    }


def test_all_but_one_task_and_then_everything(tmp_path: Path) -> None:
    run = started(tmp_path, "ease")
    one = forget(tmp_path, run, ("task", "t0"), ("task", "t2"))
    assert {name.split("/")[0] for name in one.components_after} == {"t1"}
    none = forget(tmp_path, run, ("task", "t1"))
    assert none.components_after == {}
    assert keys(tmp_path) == set()
    assert Results(tmp_path).find(run).figures["average_accuracy"] is None


def test_deleting_twice_is_a_noop(tmp_path: Path) -> None:
    run = started(tmp_path, "simplecil")
    first = forget(tmp_path, run, ("class", "t1/c0"))
    before = {name: data for name, data in unlocked(tmp_path).items() if not name.startswith(("audit/", "format.json"))}
    second = forget(tmp_path, run, ("class", "t1/c0"))
    after = {name: data for name, data in unlocked(tmp_path).items() if not name.startswith(("audit/", "format.json"))}
    assert (second.state, second.forgotten, second.manifest_after) == ("noop", 0, first.manifest_after)
    assert before == after


def test_deleting_nothing_is_refused_and_changes_no_byte(tmp_path: Path) -> None:
    run = started(tmp_path, "simplecil")
    before = unlocked(tmp_path)
    with pytest.raises(BadInput, match="say what to forget"):
        execute(tmp_path, run, [])
    assert unlocked(tmp_path) == before


def test_readmitted_samples_bring_the_first_manifest_back(tmp_path: Path) -> None:
    run = started(tmp_path, "ease")
    outcome = forget(tmp_path, run, ("subject", "person-1"))
    assert start(tmp_path, "ease").figures["manifest"] == outcome.manifest_after  # the list keeps them out
    assert readmit(tmp_path, outcome.request) == outcome.forgotten
    assert start(tmp_path, "ease").figures["manifest"] == outcome.manifest_before


def test_a_run_says_how_many_samples_it_skipped(tmp_path: Path) -> None:
    outcome = forget(tmp_path, started(tmp_path, "simplecil"), ("sample", "t0/c0/1"))
    assert outcome.forgotten == 1
    assert "skipped 1 samples" in start(tmp_path, "simplecil", seed=3).figures["warnings"][0]


def test_a_sample_of_a_test_set_leaves_training_alone(tmp_path: Path) -> None:
    run = started(tmp_path, "ease")
    found = plan(open_run(tmp_path, run), [Selector("sample", "t1/c0/8")])
    assert (found.forget.train, found.forget.test) == (0, 1)
    assert {role for step in found.steps for role in step.roles} == {"cache", "prediction"}
    outcome = forget(tmp_path, run, ("sample", "t1/c0/8"))
    _, components = oracle(tmp_path, run, {"t1/c0/8"}, tmp_path / "cold")
    assert dict(outcome.components_after) == components


def test_the_last_samples_of_a_class_empty_it(tmp_path: Path) -> None:
    run = started(tmp_path, "ease")
    ids = {f"t1/c0/{n}" for n in range(8)}
    found = plan(open_run(tmp_path, run), [Selector("sample", one) for one in ids])
    assert (found.forget.classes_emptied, found.forget.tasks_emptied) == (("t1/c0",), ())
    outcome = forget_ids(tmp_path, run, ids)
    _, components = oracle(tmp_path, run, ids, tmp_path / "cold")
    assert dict(outcome.components_after) == components


def test_a_class_of_two_samples_is_warned_of(tmp_path: Path) -> None:
    run = started(tmp_path, "ease")
    found = plan(open_run(tmp_path, run), [Selector("sample", f"t1/c0/{n}") for n in range(6)])
    assert "keeps 2 training samples" in found.forget.warnings[0]


def test_a_twin_under_another_id_is_named_and_goes_along(tmp_path: Path) -> None:
    run = start(tmp_path, "simplecil", tiny_stream(twins=True)).id
    found = plan(open_run(tmp_path, run), [Selector("sample", "t0/c0/0")])
    assert found.forget.twins == (("t0/c0/0", "t1/c0/0"),)
    outcome = forget(tmp_path, run, ("sample", "t0/c0/0"))
    assert outcome.forgotten == 2 and "t1/c0/0" not in Runs(Store(tmp_path)).resolution(run).ids


@pytest.mark.parametrize(
    ("kind", "value"), [("sample", "t9/c0/1"), ("task", "t9"), ("class", "nine"), ("subject", "I")]
)
def test_what_the_run_never_saw_is_refused_by_name(tmp_path: Path, kind: Kind, value: str) -> None:
    run = started(tmp_path, "simplecil")
    with pytest.raises(UnknownName, match=value):
        forget(tmp_path, run, (kind, value))


def test_other_runs_go_stale_and_are_built_again(tmp_path: Path) -> None:
    run = started(tmp_path, "ease")
    other = start(tmp_path, "simplecil").id
    outcome = forget(tmp_path, run, ("sample", "t1/c0/1"))
    runs = Runs(Store(tmp_path))
    assert (runs.live(other), runs.stale(other)) == (None, outcome.request)
    assert [figures["run"] for figures in Results(tmp_path).all()] == [run]
    with pytest.raises(DeletionError, match="stale"):
        forget(tmp_path, other, ("sample", "t0/c0/1"))
    assert rebuild_stale(tmp_path) == [other]
    _, components = oracle(tmp_path, other, {"t1/c0/1"}, tmp_path / "cold")
    assert runs.live(other).components == components  # type: ignore[union-attr]


def test_scope_run_leaves_the_others_alone(tmp_path: Path) -> None:
    run = started(tmp_path, "ease")
    other = start(tmp_path, "simplecil")
    forget(tmp_path, run, ("sample", "t1/c0/1"), scope="run")
    again = start(tmp_path, "simplecil")
    assert again.figures["components_built"] == 0
    assert again.figures["manifest"] == other.figures["manifest"]


def test_a_run_that_reads_what_is_deleted_meanwhile_stores_nothing_more(tmp_path: Path) -> None:
    run = started(tmp_path, "simplecil")
    racing = open_run(tmp_path, run)
    forget(tmp_path, run, ("sample", "t1/c0/1"))
    before = keys(tmp_path)
    with pytest.raises(DataDeleted, match="1 samples"):
        racing.run()
    assert keys(tmp_path) == before


def test_evicted_caches_are_still_known_to_lineage(tmp_path: Path) -> None:
    run = started(tmp_path, "ease")
    whole = plan(open_run(tmp_path, run), [Selector("sample", "t2/c0/1")])
    collect(Store(tmp_path), caches=True)
    after = plan(open_run(tmp_path, run), [Selector("sample", "t2/c0/1")])
    durable = {step.name for step in whole.steps if step.roles != ("cache",)}
    assert {step.name for step in after.steps if step.roles != ("cache",)} == durable
    forget(tmp_path, run, ("sample", "t2/c0/1"))
    assert not [path for path in tmp_path.rglob("*.evicted") if path.stem in {step.key for step in whole.steps}]


def test_what_read_a_shard_of_which_nobody_knows_the_samples_is_tainted(tmp_path: Path) -> None:
    started(tmp_path, "simplecil")
    store = Store(tmp_path)
    path, found = next(iter(store.shards))
    held = Traces(frozenset((one.stream, row.id) for one in found for row in one.rows))
    touched = closure(store, held)
    assert touched.components
    path.unlink()
    assert closure(store, held).components.keys() >= touched.components.keys()


def test_a_model_is_not_served_while_its_data_are_being_deleted(tmp_path: Path) -> None:
    run = started(tmp_path, "simplecil")
    opened = cl.open(run, tmp_path)
    assert opened.tasks and opened.predict(np.zeros((32, 32), np.uint8))
    Runs(Store(tmp_path)).quarantine(run, "abc")
    for ask in (lambda: cl.open(run, tmp_path), lambda: opened.predict(np.zeros((32, 32), np.uint8))):
        with pytest.raises(DeletionError, match="quarantined by deletion abc"):
            ask()


def test_taint_of_ease_by_the_table(tmp_path: Path) -> None:
    """A sample of task k = 1 of four: adapter 1 alone is trained again; space 1 of tasks 1 and later, and the own row
    of task 1 in spaces before, are measured again; a synthesised prototype (i, j) is clean iff i != k and j > k."""
    run = start(tmp_path, "ease", tiny_stream(tasks=4)).id
    live = Runs(Store(tmp_path)).live(run)
    assert live is not None
    found = plan(open_run(tmp_path, run), [Selector("sample", "t1/c0/1")])
    tainted = {step.key for step in found.steps}
    entries = {entry.name for entry in live.entries if entry.key in tainted}
    assert entries == {"t1/adapter", "t1/prototypes/t0", "t1/prototypes/t1", "t2/prototypes/t1", "t3/prototypes/t1"}
    synthesised = {use.name: use.key for use in live.uses if "/synthesised/" in use.name}
    clean = {name for name, key in synthesised.items() if key not in tainted}
    assert {name for name in synthesised if name.startswith("t1") or name.endswith("t1")}.isdisjoint(clean)
    assert clean == {"t0/synthesised/t2", "t0/synthesised/t3", "t2/synthesised/t3"}
    forget(tmp_path, run, ("sample", "t1/c0/1"))
    _, components = oracle(tmp_path, run, {"t1/c0/1"}, tmp_path / "cold")
    after = Runs(Store(tmp_path)).live(run)
    assert after is not None and after.components == components
    assert {use.key for use in after.uses if use.name in clean} >= {synthesised[name] for name in clean}


@pytest.mark.parametrize(("synthesis", "clean"), [("recalc", {(0, 3), (1, 3)}), ("once", {(0, 1), (0, 3), (1, 3)})])
def test_taint_of_a_synthesised_prototype_of_ease(tmp_path: Path, synthesis: str, clean: set[tuple[int, int]]) -> None:
    """A sample of task k = 2. (i, j), classes of i in space j: `recalc` reads all spaces from j on, so it is clean iff
    i != k and j > k; `once` reads spaces i and j alone, so it is clean iff neither is k."""
    session = open_run(tmp_path, four_tasks(tmp_path, synthesis=synthesis))
    found = plan(session, [Selector("sample", "t2/c0/1")])
    tainted = {step.key for step in found.steps}
    # A name stands for one prototype after each task: it is clean if none of them is tainted.
    synthesised = [use for use in found.live.uses if "/synthesised/" in use.name]
    touched = {use.name for use in synthesised if use.key in tainted}
    assert {use.name for use in synthesised} - touched == {f"t{i}/synthesised/t{j}" for i, j in clean}


@pytest.mark.parametrize(("kind", "value", "trained"), [("task", "t1", set()), ("class", "t1/c0", {"t1/adapter"})])
def test_a_whole_task_of_ease_costs_no_training_and_a_class_one_adapter(
    tmp_path: Path, kind: Kind, value: str, trained: set[str]
) -> None:
    found = plan(open_run(tmp_path, four_tasks(tmp_path)), [Selector(kind, value)])
    actions = {step.name: step.action for step in found.steps if "adapter" in step.roles}
    assert {name for name, action in actions.items() if action == "rebuild"} == trained
    assert set(actions) == {"t1/adapter"} and (kind == "class" or actions["t1/adapter"] == "drop")


def four_tasks(home: Path, **more: Any) -> str:
    return run_tiny(home, "ease", tiny_stream(tasks=4), epochs=1, **more).id


def test_a_deletion_seen_from_another_release_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = started(tmp_path, "simplecil")
    monkeypatch.setattr("cl.deletion.plan.code_digest", lambda build: "another")
    before = unlocked(tmp_path)
    with pytest.raises(DeletionError, match="run it again first"):
        forget(tmp_path, run, ("sample", "t1/c0/1"))
    assert unlocked(tmp_path) == before


def test_a_stream_made_from_objects_is_refused_in_one_line(tmp_path: Path) -> None:
    from dataclasses import replace

    run = start(tmp_path, "simplecil", replace(tiny_stream(), recipe=None)).id
    with pytest.raises(BadInput, match="run it by names"):
        forget(tmp_path, run, ("sample", "t1/c0/1"))
