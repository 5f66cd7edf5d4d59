"""A run's component graph with its tainted part marked: what a page draws. Names and roles only, no digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cl.deletion.plan import DeletionPlan
from cl.home.records import Resolution
from cl.home.store import Record, Store


@dataclass(frozen=True)
class GraphNode:
    """A shard or a component. task: number of the newest task among those of what it was made from."""

    name: str
    role: str
    task: int
    action: str


@dataclass(frozen=True)
class ComponentGraph:
    """edges: pairs of node numbers, from what was read to what read it."""

    tasks: tuple[str, ...]
    nodes: tuple[GraphNode, ...]
    edges: tuple[tuple[int, int], ...]


def component_graph(store: Store, plan: DeletionPlan) -> ComponentGraph:
    """The graph of the run that `plan` deletes from: shards of data first, then components."""
    known = store.lineage()
    records = {use.key: known[use.key] for use in plan.live.uses if use.key in known}
    names = {use.key: use.name for use in plan.live.uses}
    actions = {step.key: step.action for step in plan.steps}
    gone = {*plan.forget.tasks_emptied, *plan.forget.classes_emptied}
    tasks = tuple(_masked(name, gone) for name in plan.resolution.places)
    shards = _shards(store, plan.resolution)
    newest = _newest(records, shards)
    read = {_parent(one) for record in records.values() for one in record.reads}
    nodes: dict[str, GraphNode] = {}  # by what `_parent` calls them
    for digest, (task, split) in shards.items():
        if f"shard {digest}" in read:
            action = "filter" if digest in plan.tainted_shards else "keep"
            nodes[f"shard {digest}"] = GraphNode(f"{tasks[task]} · {split}", f"{split} images", task, action)
    for key, record in records.items():
        role = min(part["role"] for part in record.parts.values())
        nodes[key] = GraphNode(_masked(names[key], gone), role, newest.get(key, 0), actions.get(key, "keep"))
    places = {name: row for row, name in enumerate(nodes)}
    pairs = {
        (places[_parent(one)], places[key]) for key in records for one in records[key].reads if _parent(one) in places
    }
    return ComponentGraph(tasks, tuple(nodes.values()), tuple(sorted(pairs)))


def _masked(name: str, gone: set[str]) -> str:
    """A component's name as a certificate may hold it: without names of what is gone."""
    return "/".join("deleted" if part in gone else part for part in name.split("/"))


def _shards(store: Store, resolution: Resolution) -> dict[str, tuple[int, str]]:
    """Shard digest -> (task, split), by the ids that the shard holds; in the order of the tasks."""
    place: dict[str, tuple[int, str]] = {}
    for number, task in enumerate(resolution.tasks):
        place |= {row.id: (number, "train") for row in task.train} | {row.id: (number, "test") for row in task.test}
    for number, segment in enumerate(resolution.segments, len(resolution.tasks)):
        place |= {row.id: (number, "test") for row in segment.rows}
    firsts = {path.stem: found[0].rows[0].id for path, found in store.shards}
    found = {digest: place[first] for digest, first in firsts.items() if first in place}
    return dict(sorted(found.items(), key=lambda item: (item[1][0], item[1][1] == "test")))


def _parent(read: Mapping[str, Any]) -> str:
    return f"shard {read['digest']}" if read["kind"] == "shard" else str(read["key"])


def _newest(records: Mapping[str, Record], shards: Mapping[str, tuple[int, str]]) -> dict[str, int]:
    """Node -> the newest task of the data that it was made from. Safe where builds return each other's bytes and so
    are each other's parents: a node is visited once, from the newest shard that it can be reached from."""
    children: dict[str, list[str]] = {}
    for key, record in records.items():
        for read in record.reads:
            children.setdefault(_parent(read), []).append(key)
    found: dict[str, int] = {}
    for digest, (task, _) in sorted(shards.items(), key=lambda item: -item[1][0]):
        todo = [f"shard {digest}"]
        while todo:
            node = todo.pop()
            if node not in found:
                found[node] = task
                todo += children.get(node, [])
    return found
