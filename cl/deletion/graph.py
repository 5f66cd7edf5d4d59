"""A run's component graph with its tainted part marked: what a page draws. Names and roles only, no digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cl.deletion.plan import Plan
from cl.home.store import Record, Store


def component_graph(store: Store, plan: Plan) -> dict[str, Any]:
    """Nodes (name, role, task, action) and edges (pairs of node numbers), shards of data first.

    The task of a node is the newest task among those of what it was made from.
    """
    known = store.lineage()
    records = {key: known[key] for _, key in plan.live.manifest["uses"] if key in known}
    names = {key: name for name, key in plan.live.manifest["uses"]}
    actions = {step.key: step.action for step in plan.steps}
    resolution = plan.live.resolution
    tasks = [one["id"] for one in (*resolution["tasks"], *resolution.get("segments", ()))]
    shards = _shards(store, plan, tasks)
    newest = _newest(records, shards)
    read = {_parent(one) for record in records.values() for one in record.reads}
    nodes = [
        {
            "name": f"{tasks[task]} · {split}",
            "role": f"{split} images",
            "task": task,
            "action": "filter" if digest in plan.tainted_shards else "keep",
        }
        for digest, (task, split) in shards.items()
        if f"shard {digest}" in read
    ]
    places = {f"shard {digest}": row for row, digest in enumerate(d for d in shards if f"shard {d}" in read)}
    for key in records:
        places[key] = len(nodes)
        role = min(part["role"] for part in records[key].parts.values())
        nodes.append({"name": names[key], "role": role, "task": newest.get(key, 0), "action": actions.get(key, "keep")})
    pairs = {
        (places[_parent(one)], places[key]) for key in records for one in records[key].reads if _parent(one) in places
    }
    return {"tasks": tasks, "nodes": nodes, "edges": [list(pair) for pair in sorted(pairs)]}


def _shards(store: Store, plan: Plan, tasks: list[str]) -> dict[str, tuple[int, str]]:
    """Shard digest -> (task, split), by the ids that the shard holds; in the order of the tasks."""
    place = {
        row[0]: (number, split)
        for number, task in enumerate(plan.live.resolution["tasks"])
        for split in ("train", "test")
        for row in task[split]
    }
    learnt = len(plan.live.resolution["tasks"])
    place |= {
        row[0]: (learnt + number, "test")
        for number, segment in enumerate(plan.live.resolution.get("segments", ()))
        for batch in segment["batches"].values()
        for row in batch
    }
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
