"""What a deletion touches: the shards that hold the samples, and everything that was built from them, with the reason.

The closure is pessimistic: it follows every read that a record names. A read whose own record is gone, or a shard whose
list of samples is gone, counts as tainted, for nobody can say any more what it was built from.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl.home.shards import Traces
from cl.home.store import Record, Store


@dataclass(frozen=True)
class Closure:
    """Tainted shards (digest -> file) and components (key -> record), and why: the read that tainted each component."""

    shards: Mapping[str, Path]
    components: Mapping[str, Record]
    because: Mapping[str, Mapping[str, Any]]

    def path(self, key: str, names: Mapping[str, str]) -> list[str]:
        """Why `key` is tainted, from the shard on: `shard 1f2e --data--> t1/adapter --component--> ...`."""
        steps = [names.get(key, key[:12])]
        read = self.because[key]
        while read["kind"] == "part" and read["key"] in self.because:
            steps += [f"--{read['edge']}-->", names.get(read["key"], read["key"][:12])]
            read = self.because[read["key"]]
        origin = f"shard {read['digest'][:12]}" if read["kind"] == "shard" else f"unknown {read['key'][:12]}"
        return [origin, f"--{read['edge']}-->", *reversed(steps)]


def closure(store: Store, traces: Traces) -> Closure:
    """Everything in the store that was built from what the traces mean, over all runs."""
    lists = {path.stem: (path, found) for path, found in store.shards}
    shards = {name: path for name, (path, found) in lists.items() if any(traces.among(found))}
    records = store.lineage()
    because: dict[str, Mapping[str, Any]] = {}
    children: dict[str, list[str]] = {}
    for key, record in records.items():
        for read in record.reads:
            if read["kind"] == "part":
                children.setdefault(read["key"], []).append(key)
            if _directly(read, lists, shards, records):
                because.setdefault(key, read)
    todo = list(because)
    while todo:
        parent = todo.pop(0)
        for child in children.get(parent, []):
            if child not in because:
                because[child] = next(read for read in records[child].reads if read.get("key") == parent)
                todo.append(child)
    return Closure(shards, {key: records[key] for key in because}, because)


def _directly(read: Mapping[str, Any], lists: Container[str], shards: Container[str], records: Container[str]) -> bool:
    if read["kind"] == "shard":
        return read["digest"] in shards or read["digest"] not in lists
    return read["key"] not in records
