"""Shards: a pure function of the names of a sample, so that no sample moves another one."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from cl import Samples, Task
from cl.data.policy import Atom, atom_name, atom_of


@dataclass(frozen=True)
class TaskShard:
    """Images of one task under one set of labels. train: for the adapter. heldout: for the retriever."""

    id: str
    train: Samples
    heldout: Samples

    @property
    def classes(self) -> list[str]:
        """Those that the adapter is trained on."""
        return list(self.train.classes)


def unit(text: str) -> float:
    """A number in [0, 1), a pure function of `text`."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64


def shard_id(task: Task, sample: str, limit: int) -> str:
    """The shard of a sample: task, labels, and the bucket of its person (or its own, if it has none)."""
    atom = atom_name(task.access.get(sample, ()))
    buckets = math.ceil(task.capacity / limit) if task.capacity else 1
    key = task.subjects.get(sample, sample)
    return f"{task.id}/{atom}/{int(unit(f'bucket|{task.id}|{atom}|{key}') * buckets)}"


def labels_of(shard: str) -> Atom:
    """The access labels of a shard, which its adapter inherits."""
    return atom_of(shard.rsplit("/", 2)[1])


def task_of(shard: str) -> str:
    """The id of a shard's task."""
    return shard.rsplit("/", 2)[0]


def shards(task: Task, limit: int, heldout: float) -> list[TaskShard]:
    """The task's shards, by id. Of a shard that is held out as a whole, or not at all, every image does both."""
    members: dict[str, set[str]] = {}
    for sample in task.train.ids:
        members.setdefault(shard_id(task, sample, limit), set()).add(sample)
    return [_shard(task.train.keep(members[name]), name, heldout) for name in sorted(members)]


def _shard(samples: Samples, name: str, heldout: float) -> TaskShard:
    drawn = {sample for sample in samples.ids if unit(f"heldout|{sample}") < heldout}
    rest = set(samples.ids) - drawn
    return TaskShard(name, samples.keep(rest or drawn), samples.plain.keep(drawn or rest))
