"""Builds that return what they read have the keys of their own parents: lineage goes in circles, walks must not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cl.cli import app
from cl.components.builder import builds
from cl.components.handles import Handle
from cl.data.samples import Samples
from cl.data.stream import Task
from cl.deletion.graph import component_graph
from cl.deletion.taint import closure
from cl.home.ancestry import Ancestry
from cl.home.gc import collect
from cl.home.shards import Shard, ShardRow, Traces
from cl.home.store import Store, Tensors
from cl.learning.features import backbone_features
from cl.parts.prototypes import class_means
from cl.testing import tiny_stream
from strategies.simplecil import SimpleCIL
from tests.deleting import start
from tests.homes import manifest
from tests.tiny import builder, run_tiny


@builds("statistics")
def total(samples: Samples) -> Tensors:
    return {"x": samples.images().double().sum()}


@builds("statistics")
def same(read: Tensors) -> Tensors:
    return read


@builds("statistics")
def up(read: Tensors) -> Tensors:
    return {name: tensor + 1 for name, tensor in read.items()}


@builds("statistics")
def down(read: Tensors) -> Tensors:
    return {name: tensor - 1 for name, tensor in read.items()}


class Circling(SimpleCIL):
    """SimpleCIL whose prototypes are copied twice and moved there, back and there again."""

    def learn(self, task: Task, model: Any) -> dict[str, Handle]:
        features = self.component("features", backbone_features, task.train.plain)
        means = self.component("means", class_means, task.train.plain, features, classes=list(task.classes))
        copied = self.component("copy 2", same, self.component("copy 1", same, means))
        back = self.component("back", down, self.component("there", up, copied))
        again = self.component("back again", down, self.component("there again", up, back))
        return {f"{task.id}/prototypes": again}


def test_what_returns_its_input_is_not_its_own_parent(tmp_path: Path) -> None:
    made, shard = builder(tmp_path), tiny_stream().tasks[0].train
    parent = made.component("t", total, shard)
    once = made.component("a", same, parent)
    twice = made.component("b", same, once)
    assert twice.key == once.key
    reads = [read["key"] for read in made.store.record(once.key).reads]
    assert reads == [parent.key]


def test_it_keeps_its_lineage_when_it_is_built_from_itself(tmp_path: Path) -> None:
    """Its file is lost between the two calls, so the second one builds it, from itself."""
    made, shard = builder(tmp_path), tiny_stream().tasks[0].train
    once = made.component("a", same, made.component("t", total, shard))
    opened = once.open()
    made.store.discard(once.key)
    assert made.component("b", same, once).open()["x"] == opened["x"]
    names = frozenset((shard.origin.stream, one) for one in shard.ids)
    assert once.key in closure(made.store, Traces(names)).components


@pytest.mark.parametrize("lost", ["evicted", "damaged"])
def test_every_way_to_a_component_outlives_its_bytes(tmp_path: Path, lost: str) -> None:
    """Two shards with the same sum; what was made from both is lost and made again from the first alone."""
    first, second = (tiny_stream().tasks[0].train.keep(ids) for ids in (tiny_stream().tasks[0].train.ids[:1],) * 2)
    other = Samples.of({"another": first.labels[0]}, _Same(first))
    assert first.digest == second.digest != other.digest
    made = builder(tmp_path)
    below = made.component("t", total, first), made.component("t", total, other)
    child = made.component("c", same, below[0])
    assert made.component("c", same, below[1]).key == child.key
    blob = next((tmp_path / "store").glob(f"*/{child.key}.safetensors"))
    if lost == "evicted":
        made.store.evict(child.key)
    else:
        blob.chmod(0o644)
        blob.write_bytes(blob.read_bytes()[:-1] + b"\1")
    builder(tmp_path).component("c", same, below[0])
    assert child.key in closure(Store(tmp_path), Traces(frozenset({("", "another")}))).components


class _Same:
    """Another sample with the pixels of the only one of a shard."""

    def __init__(self, shard: Samples) -> None:
        self._shard = shard

    def digest(self, sample: str) -> str:
        return self._shard.contents[0]

    def read(self, samples: Any, crops: Any = None) -> Any:
        return self._shard.images()


def test_two_that_return_each_others_bytes_are_tainted_together(tmp_path: Path) -> None:
    made, shard = builder(tmp_path), tiny_stream().tasks[0].train
    parent = made.component("t", total, shard)
    there = made.component("a", up, parent)
    back = made.component("b", down, there)
    assert made.component("c", up, back).key == there.key
    assert {read["key"] for read in made.store.record(there.key).reads} == {parent.key, back.key}
    touched = closure(made.store, Traces(marks=frozenset(shard.marks[0])))
    assert set(touched.components) == {parent.key, there.key, back.key}
    assert touched.path(back.key, {})[0].startswith("shard")


READS = st.lists(st.sets(st.integers(0, 9), max_size=4), min_size=10, max_size=10)


@settings(max_examples=60)
@given(reads=READS, roots=st.sets(st.integers(0, 9), max_size=3))
def test_closure_of_any_graph_is_all_that_can_be_reached(reads: list[set[int]], roots: set[int]) -> None:
    edges = np.zeros((10, 10), dtype=bool)
    for child, parents in enumerate(reads):
        edges[list(parents), child] = True
    reached = np.linalg.matrix_power(edges.astype(int) + np.eye(10, dtype=int), 10).astype(bool)
    touched = closure(_store(reads, roots), Traces(frozenset({("s", "s")})))  # type: ignore[arg-type]
    expected = {str(n) for n in range(10) if any(reached[root, n] for root in roots)}
    assert set(touched.components) == expected
    assert all(touched.path(key, {})[0] == "shard d" for key in expected)


def _store(reads: list[set[int]], roots: set[int]) -> SimpleNamespace:
    """What a closure asks of a store: components 0..9, those of `roots` made from the one shard."""

    def record(n: int) -> SimpleNamespace:
        parts: list[Mapping[str, str]] = [
            {"kind": "part", "edge": "component", "key": str(p), "digest": ""} for p in sorted(reads[n])
        ]
        return SimpleNamespace(reads=parts + [{"kind": "shard", "edge": "data", "digest": "d"}] * (n in roots))

    records = {str(n): record(n) for n in range(len(reads))}
    row = ShardRow("s", "label", "content", ("content",), None)
    return SimpleNamespace(shards=[(Path("d.json"), (Shard("d", "s", (row,)),))], lineage=lambda: records)


def call(home: Path, *words: str) -> Any:
    result = CliRunner().invoke(app, [*words, "--json", "--home", str(home)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.usefixtures("cold_in_this_process")
@pytest.mark.parametrize("strategy", ["circling", "mos", "ssiat", "sema"])
def test_plan_execute_and_verify_end_at_e0(tmp_path: Path, strategy: str) -> None:
    if strategy == "circling":
        made = run_tiny(tmp_path, Circling).id
    else:
        made = start(tmp_path, strategy).id
    chosen = ("--sample", "t1/c0/1")
    assert call(tmp_path, "forget", "plan", made, *chosen)["tainted"] > 0
    for entry in manifest(tmp_path).entries[:3]:
        assert call(tmp_path, "show", made, "--lineage", entry.name)[0]["key"] == entry.key
        assert entry.key not in {row["key"] for row in call(tmp_path, "show", made, "--dependents", entry.name)}
    done = call(tmp_path, "forget", "execute", made, *chosen, "--yes")
    assert done["rebuilt"] > 0
    assert call(tmp_path, "forget", "verify", done["request"])["grade"] == "E0"


def test_a_circle_stands_in_the_column_of_its_newest_data(tmp_path: Path) -> None:
    from cl.deletion.forget_set import Selector
    from cl.deletion.plan import plan
    from cl.running.reopening import open_run

    made = run_tiny(tmp_path, Circling).id
    graph = component_graph(Store(tmp_path), plan(open_run(tmp_path, made), [Selector("sample", "t1/c0/1")]))
    tasks: dict[str, list[int]] = {}
    for node in graph.nodes:
        tasks.setdefault(node.name, []).append(node.task)
    assert sorted(tasks["back again"]) == sorted(tasks["there again"]) == [0, 1, 2]
    marked = {node.name for node in graph.nodes if node.action == "rebuild" and node.task == 1}
    assert {"back again", "there again"} <= marked


def test_parts_have_lineage_and_dependents_by_their_names(tmp_path: Path) -> None:
    made = start(tmp_path, "mos").id
    known = Ancestry(tmp_path, made)
    rows = known.made_from("t1/tuned/adapter")
    assert rows[0]["name"] == "t1/tuned"
    assert rows == known.made_from("t1/tuned")
    adapter = {row["name"] for row in known.dependents("t1/tuned/adapter")}
    whole = {row["name"] for row in known.dependents("t1/tuned")}
    assert adapter and adapter <= whole and "t1/tuned" not in whole
    above, below = (
        CliRunner().invoke(app, ["show", made, f"--{way}", "t1/tuned/adapter", "--home", str(tmp_path)]).stdout
        for way in ("lineage", "dependents")
    )
    assert above.splitlines()[0] == "t1/tuned (adapter, cache)" and "── t0/tuned" in above  # merged into it
    assert below.splitlines()[0] == "t1/tuned" and "── t2/tuned" in below and "── t0/tuned" not in below


def test_collecting_garbage_ends_too(tmp_path: Path) -> None:
    run_tiny(tmp_path, Circling)
    assert not [one for one in collect(Store(tmp_path)) if one.what == "unused"]
