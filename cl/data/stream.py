"""Streams of tasks: stable ids, class names, subjects and access labels, and the pixels behind them.

A stream is resolved once into task id -> class names -> sample ids. Deletion and views filter that resolution;
nothing is derived again from counts, orders or sorted names. A test-time stream has segments beside its tasks: batches
that arrive once the tasks are learnt, whose labels the evaluator alone sees (see `cl.data.veil`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from cl.data.names import composed, normalised
from cl.data.policy import Policy
from cl.data.samples import Origin, Pixels, Samples, concat, prepare
from cl.errors import BadInput
from cl.home.records import Recipe as Recipe
from cl.home.records import Resolution, ResolvedSample, ResolvedSegment, ResolvedTask


@dataclass(frozen=True)
class Fault:
    """Something of a stream's source that cannot be used, and is not in the stream: told to whoever may read it.

    labels: as of a sample; without any, whoever reads everything is told, and nobody else. where: its place in the
    source, which depends on what else is there.
    """

    what: str
    labels: tuple[str, ...] = ()
    where: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(map(normalised, self.labels)))


@dataclass(frozen=True)
class Task:
    """One experience of a stream: a stable id, its class names in order, a training and a test shard.

    capacity: how many training images of one set of access labels the task was declared to hold, however many there
    are. subjects, access: by sample id; the stream fills them in from its own.
    """

    id: str
    classes: tuple[str, ...]
    train: Samples
    test: Samples
    domain: str | None = None
    capacity: int | None = None
    subjects: Mapping[str, str] = field(default_factory=dict, repr=False)
    access: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(map(normalised, self.classes)))


@dataclass(frozen=True)
class Segment:
    """Test batches under one condition, in the order in which they arrive.

    id: such as `r03/GN/5`. domain: the condition's name, for the evaluator alone. batches: batch id, such as
    `r03/GN/5/b0017`, -> its labelled samples. declared: every batch id that the stream was made with; after a deletion
    `batches` may have holes where `declared` has none, so that no batch ever changes its place.
    """

    id: str
    domain: str
    batches: Mapping[str, Samples]
    declared: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "declared", self.declared or tuple(self.batches))

    def __len__(self) -> int:
        return sum(len(batch) for batch in self.batches.values())

    @cached_property
    def samples(self) -> Samples:
        """All its samples as one shard, in the order of their ids."""
        return concat(list(self.batches.values()))

    def of(self, origin: Origin) -> Segment:
        """The segment whose samples say that they come from there."""
        return replace(self, batches={name: batch.of_origin(origin) for name, batch in self.batches.items()})

    def pieces(self, length: int | None) -> Iterator[Segment]:
        """This segment cut after every `length` declared batches (None: whole); a piece without batches is left out.

        Pieces have ids of their own: that of the segment and, where there are several, the number of their first batch.
        """
        step = length or len(self.declared)
        for start in range(0, len(self.declared), step):
            names = self.declared[start : start + step]
            held = {name: self.batches[name] for name in names if name in self.batches}
            if held:
                piece = self.id if step >= len(self.declared) else f"{self.id}/{start:04d}"
                yield replace(self, id=piece, batches=held, declared=names)

    def without(self, gone: set[str]) -> Segment | None:
        """What is left without these samples: smaller batches, an emptied one is gone; None if nothing is left."""
        kept = {name: batch.keep(set(batch.ids) - gone) for name, batch in self.batches.items()}
        held = {name: batch for name, batch in kept.items() if len(batch)}
        return replace(self, batches=held) if held else None


@dataclass(frozen=True)
class Stream:
    """Tasks in order. `subjects` and `access` map sample ids to a person and to access labels; `policy` says who reads.

    segments: what arrives at test time, in order; then `tasks` is the labelled source split, usually one task whose
    test shard is the clean test set. Its training shard may be empty: then a model must be given.

    recipe: None for a stream made from bare objects; it trains, but no other process can make it again. faults: what
    of the source cannot be used; a factory that raised for it would tell users of what they may not read.
    """

    name: str
    tasks: tuple[Task, ...]
    recipe: Recipe | None = None
    subjects: Mapping[str, str] = field(default_factory=dict)
    access: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    segments: tuple[Segment, ...] = ()
    policy: Policy = field(default_factory=Policy)
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        people = {sample: normalised(who) for sample, who in self.subjects.items()}
        labels = {sample: tuple(map(normalised, told)) for sample, told in self.access.items()}
        object.__setattr__(self, "subjects", {sample: who for sample, who in people.items() if who})
        object.__setattr__(self, "access", labels)
        _check(self)
        origin = Origin(self.name, self.subjects)
        object.__setattr__(self, "tasks", tuple(self._told(task, origin) for task in self.tasks))
        object.__setattr__(self, "segments", tuple(segment.of(origin) for segment in self.segments))

    @property
    def classes(self) -> tuple[str, ...]:
        """All class names in the order of their first task."""
        return tuple(dict.fromkeys(name for task in self.tasks for name in task.classes))

    @property
    def shards(self) -> Iterator[Samples]:
        """Every shard: of each task training and test, of each segment its batches."""
        for task in self.tasks:
            yield from (task.train, task.test)
        for segment in self.segments:
            yield from segment.batches.values()

    @property
    def image_size(self) -> int | None:
        """Height and width of the images; None where there is none."""
        held = next((shard for shard in self.shards if len(shard)), None)
        return None if held is None else int(held.images([0]).shape[-1])

    @property
    def ids(self) -> set[str]:
        """Every sample id, training, test and at test time."""
        return {sample for shard in self.shards for sample in shard.ids}

    @property
    def unusable(self) -> list[str]:
        """What of the source cannot be used, a line each."""
        return [f"{fault.where}: {fault.what}" if fault.where else fault.what for fault in self.faults]

    def check(self) -> None:
        """Raises BadInput for the first fault."""
        for line in self.unusable:
            raise BadInput(line)

    def prepare(self) -> None:
        """Read and check every image, before anything is learnt. Raises BadInput for what cannot be used."""
        self.check()
        places: dict[int, tuple[Pixels, list[str]]] = {}
        for shard in self.shards:
            places.setdefault(id(shard.pixels), (shard.pixels, []))[1].extend(shard.ids)
        for pixels, ids in places.values():
            prepare(pixels, ids)

    def without(self, ids: Collection[str]) -> Stream:
        """The stream as if these samples had never been. A class without training images leaves its task's label map
        (its test images go too), a task without classes leaves the stream. All other names stay.

        Batches of segments lose exactly the named samples: nothing that only labels could tell changes them.
        """
        gone = set(ids)
        tasks = [kept for task in self.tasks if (kept := without(task, gone)) is not None]
        segments = [rest for segment in self.segments if (rest := segment.without(gone)) is not None]
        left = [shard for task in tasks for shard in (task.train, task.test)]
        left += [batch for segment in segments for batch in segment.batches.values()]
        live = {sample for shard in left for sample in shard.ids}
        return replace(
            self,
            tasks=tuple(tasks),
            segments=tuple(segments),
            subjects={sample: who for sample, who in self.subjects.items() if sample in live},
            access={sample: labels for sample, labels in self.access.items() if sample in live},
        )

    def view(self, user: str) -> Stream:
        """What `user` may read, as if there were nothing else: not even notes or other users."""
        return replace(self.without(self._hidden(user)), **self._told_to(user))

    def tested_by(self, user: str) -> Stream:
        """Everybody's training images, but of the test images only those that `user` may read. No view: it leaks."""
        hidden = self._hidden(user)
        tasks = tuple(replace(task, test=task.test.keep(set(task.test.ids) - hidden)) for task in self.tasks)
        segments = tuple(kept for segment in self.segments if (kept := segment.without(hidden)) is not None)
        return replace(self, tasks=tasks, segments=segments, **self._told_to(user))

    def resolution(self) -> Resolution:
        """The stream down to its samples, with label, subject and access labels of each."""
        tasks = [
            ResolvedTask(t.id, t.classes, t.domain, t.capacity, self._resolved(t.train), self._resolved(t.test))
            for t in self.tasks
        ]
        segments = [
            ResolvedSegment(s.id, s.domain, s.declared, {name: self._resolved(b) for name, b in s.batches.items()})
            for s in self.segments
        ]
        return Resolution(self.name, tuple(tasks), tuple(segments))

    def _hidden(self, user: str) -> set[str]:
        return self.policy.hidden(user, self.access, self.ids)

    def _told_to(self, user: str) -> dict[str, Any]:
        """What a view has beside samples: no notes, no other users, and faults without their place in the source."""
        mine = tuple(replace(one, where="") for one in self.faults if self.policy.reads(user, one.labels))
        return {"notes": (), "policy": self.policy.only(user), "faults": mine}

    def _told(self, task: Task, origin: Origin) -> Task:
        """The task with what the stream knows of its samples."""
        mine = [sample for shard in (task.train, task.test) for sample in shard.ids]
        subjects = {sample: self.subjects[sample] for sample in mine if sample in self.subjects}
        access = {sample: self.access[sample] for sample in mine if sample in self.access}
        train, test = task.train.of_origin(origin), task.test.of_origin(origin)
        return replace(task, train=train, test=test, subjects=subjects, access=access)

    def _resolved(self, shard: Samples) -> tuple[ResolvedSample, ...]:
        return tuple(
            ResolvedSample(sample, label, self.subjects.get(sample), tuple(self.access.get(sample, ())))
            for sample, label in zip(shard.ids, shard.labels, strict=True)
        )


def without(task: Task, gone: set[str]) -> Task | None:
    """What is left of a task without these samples; None if nothing is. A class without training images leaves it, with
    its test images."""
    if gone.isdisjoint(task.train.ids) and gone.isdisjoint(task.test.ids):
        return task
    train = task.train.keep(set(task.train.ids) - gone)
    present = set(train.labels)
    classes = tuple(name for name in task.classes if name in present)
    if not classes:
        return None
    test_ids = {s for s, label in zip(task.test.ids, task.test.labels, strict=True) if label in present} - gone
    return replace(task, classes=classes, train=train, test=task.test.keep(test_ids))


def _check(stream: Stream) -> None:
    for kind, members in (("tasks", stream.tasks), ("segments", stream.segments)):
        names = [one.id for one in members]
        if len(set(names)) != len(names):
            raise BadInput(f"stream '{stream.name}' has two {kind} of one id; give each its own")
    batches = [name for segment in stream.segments for name in segment.declared]
    if len(set(batches)) != len(batches):
        raise BadInput(f"stream '{stream.name}' has two batches of one id; give each its own")
    seen: set[str] = set()
    for task in stream.tasks:
        sourceless = bool(stream.segments) and not len(task.train)  # at test time a model may be given instead
        if not len(task.train) and not sourceless:
            raise BadInput(f"task '{task.id}' of stream '{stream.name}' has no training images; drop it or fill it")
        unknown = sorted({*task.train.labels, *task.test.labels} - set(task.classes))
        if unknown:
            raise BadInput(
                f"task '{task.id}' of stream '{stream.name}' has images of '{unknown[0]}', not one of its classes"
            )
        empty = sorted(set(task.classes) - set(task.train.labels))
        if empty and not sourceless:
            raise BadInput(f"class '{empty[0]}' of task '{task.id}' has no training image; drop it or fill it")
    for segment in stream.segments:
        _check_segment(stream, segment)
    for shard in stream.shards:
        odd = [sample for sample in shard.ids if composed(sample) != sample]
        if odd:
            raise BadInput(f"sample id '{odd[0]}' of stream '{stream.name}' has letters in parts; compose them (NFC)")
        twice = seen.intersection(shard.ids)
        if twice:
            raise BadInput(f"sample '{min(twice)}' is in stream '{stream.name}' twice; ids must be unique")
        seen.update(shard.ids)


def _check_segment(stream: Stream, segment: Segment) -> None:
    where = f"segment '{segment.id}' of stream '{stream.name}'"
    if not set(segment.batches) <= set(segment.declared) or len(set(segment.declared)) != len(segment.declared):
        raise BadInput(f"{where} has a batch that is not declared, or is declared twice; declare each batch once")
    empty = [name for name, batch in segment.batches.items() if not len(batch)]
    if empty or not segment.batches:
        raise BadInput(f"{where} has no images in {empty[0] if empty else 'it'}; drop it or fill it")
