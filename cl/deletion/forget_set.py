"""What a request names: selectors, and the samples that they stand for, wherever the home or the source knows them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from cl.data.names import composed, normalised, sounded
from cl.errors import BadInput, DeletionError, UnknownName
from cl.home.records import Resolution
from cl.home.shards import ShardRow, Traces
from cl.running.session import Session

Kind = Literal["task", "class", "subject", "sample"]
ATTRIBUTE = {"task": "task", "class": "label", "subject": "subject", "sample": "id"}


@dataclass(frozen=True)
class Selector:
    """One thing to forget, spelled as streams spell it."""

    kind: Kind
    value: str

    def __post_init__(self) -> None:
        spelled = composed(self.value) if self.kind == "sample" else normalised(self.value)
        object.__setattr__(self, "value", spelled)


@dataclass(frozen=True)
class Candidate:
    """One sample that may be meant. task: the segment, for a sample that arrives at test time (`streamed`); empty for
    one of a task that the stream has no more."""

    id: str
    label: str
    subject: str | None
    task: str
    train: bool
    streamed: bool = False


@dataclass(frozen=True)
class ForgottenSample:
    """What is known of a sample that is to be forgotten. content: its digest as the run read it; marks: the digests by
    which it is known again; subject: the person, if one is recorded."""

    content: str
    marks: tuple[str, ...]
    subject: str | None = None


@dataclass(frozen=True)
class ForgetSet:
    """What selectors resolved to, in one stream. samples: by id, copies included; gone: how many of the selected were
    deleted before. subjects: the people who were selected. twins: (id, id of its copy), identical in file or pixels;
    elsewhere: how many copies lie in other streams of the home. kept: (stream, id) of copies that stay. again: what was
    selected and had been deleted before; it stays out for this request too, should another one be readmitted."""

    stream: str
    samples: Mapping[str, ForgottenSample]
    train: int
    test: int
    gone: int
    subjects: tuple[str, ...]
    classes_emptied: tuple[str, ...]
    tasks_emptied: tuple[str, ...]
    twins: tuple[tuple[str, str], ...]
    elsewhere: int = 0
    kept: tuple[tuple[str, str], ...] = ()
    again: Mapping[str, ForgottenSample] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def traces(self) -> Traces:
        """How these samples are known again in the home."""
        return traces_of(self.stream, self.samples, self.kept)


def traces_of(stream: str, samples: Mapping[str, ForgottenSample], kept: Iterable[tuple[str, str]] = ()) -> Traces:
    """How samples of `stream` are known again anywhere in a home."""
    return Traces(
        names=frozenset((stream, sample) for sample in samples),
        marks=frozenset(mark for one in samples.values() for mark in one.marks),
        kept=frozenset(kept),
    )


def forget_set_of(
    session: Session,
    resolution: Resolution,
    selectors: Sequence[Selector],
    keep: Sequence[str] = (),
    deleted: frozenset[str] = frozenset(),
) -> ForgetSet:
    """The samples that the selectors mean: in the stream as the run resolved it, in its source as it is now, and among
    all that the home has ever read of it.

    keep: ids of copies that are another person's and stay, `STREAM:ID` where they are another stream's. deleted: ids
    that were deleted before from as much as now. Raises BadInput, UnknownName.
    """
    knowledge = _Knowledge(session, resolution, deleted)
    chosen = {one.id: one for selector in selectors for one in knowledge.matches(selector)}
    selected = {name: one for name, one in chosen.items() if name not in deleted}
    kept = tuple(_kept(keep, resolution.stream))
    twins = knowledge.twins(set(selected), {sample for stream, sample in kept if stream == resolution.stream})
    fresh = selected | {copy: knowledge.candidates[copy] for _, copy in twins}
    samples = {name: knowledge.told(name) for name in fresh}
    again = {name: knowledge.told(name) for name in chosen if name not in fresh} if fresh else {}
    rows = candidates(resolution)
    left = [row for row in rows if row.id not in fresh]
    return ForgetSet(
        stream=resolution.stream,
        samples=samples,
        train=sum(row.train for row in fresh.values()),
        test=sum(not row.train for row in fresh.values()),
        gone=len(chosen) - len(selected),
        subjects=tuple(sorted({one.value for one in selectors if one.kind == "subject"})),
        classes_emptied=_emptied(rows, left, "label"),
        tasks_emptied=_emptied(rows, left, "task"),
        twins=twins,
        elsewhere=knowledge.elsewhere(traces_of(resolution.stream, samples, kept)),
        kept=kept,
        again=again,
        warnings=(*_small_classes(rows, left), *knowledge.near(selectors)),
    )


class _Knowledge:
    """Every sample of a stream that the run, its source or the home knows."""

    def __init__(self, session: Session, resolution: Resolution, deleted: frozenset[str]) -> None:
        self._deleted = deleted
        self._session, self._stream = session, resolution.stream
        self._read = {row.id: row for row in self._rows_of_the_home()}
        source = candidates(session.whole.resolution())
        self.candidates = {name: _orphan(row) for name, row in self._read.items()}
        self.candidates |= {one.id: one for one in [*source, *candidates(resolution)]}

    def matches(self, selector: Selector) -> list[Candidate]:
        """Those that the selector names. Raises UnknownName, with the nearest, where there are none."""
        attribute = ATTRIBUTE[selector.kind]
        found = [one for one in self.candidates.values() if getattr(one, attribute) == selector.value]
        if not found:
            known = {value for one in self.candidates.values() if (value := getattr(one, attribute))}
            raise UnknownName(f"{selector.kind} of this run", selector.value, known)
        return found

    def told(self, sample: str) -> ForgottenSample:
        """What is known of its content. Raises DeletionError where nothing is."""
        if sample in self._source:
            return self._source[sample]
        if sample in self._read:
            row = self._read[sample]
            return ForgottenSample(row.content, row.marks, row.subject)
        raise DeletionError(f"nothing is known of the content of sample '{sample}'; run it again, then forget")

    def twins(self, selected: Collection[str], kept: Collection[str]) -> tuple[tuple[str, str], ...]:
        """(id, id of a copy) for copies of the selected samples in the stream that were not selected and stay not."""
        by_mark: dict[str, list[str]] = {}
        for name in self.candidates:
            if name in self._source or name in self._read:
                for mark in self.told(name).marks:
                    by_mark.setdefault(mark, []).append(name)
        free = self.candidates.keys() - selected - set(kept) - self._deleted
        pairs = {
            copy: name
            for name in sorted(selected)
            for mark in self.told(name).marks
            for copy in by_mark.get(mark, ())
            if copy in free
        }
        return tuple(sorted((name, copy) for copy, name in pairs.items()))

    def elsewhere(self, traces: Traces) -> int:
        """How many copies other streams of the home have read."""
        others = (shard for _, found in self._session.store.shards for shard in found if shard.stream != self._stream)
        return len({(shard.stream, row.id) for shard in others for row in traces.among([shard])})

    def near(self, selectors: Sequence[Selector]) -> Iterator[str]:
        """People and classes that are spelled almost as one that was selected: perhaps the same."""
        for selector in selectors:
            if selector.kind not in ("class", "subject"):
                continue
            known = {getattr(one, ATTRIBUTE[selector.kind]) for one in self.candidates.values()}
            others = (name for name in known if name and name != selector.value)
            for name in sorted(name for name in others if sounded(name) == sounded(selector.value)):
                yield f"{selector.kind} '{name}' is spelled almost like '{selector.value}' and is not selected"

    @cached_property
    def _source(self) -> Mapping[str, ForgottenSample]:
        shards = self._session.whole.shards
        rows = (row for shard in shards for row in zip(shard.ids, shard.contents, shard.marks, strict=True))
        people = self._session.whole.subjects
        return {name: ForgottenSample(content, marks, people.get(name)) for name, content, marks in rows}

    def _rows_of_the_home(self) -> Iterator[ShardRow]:
        for _, found in self._session.store.shards:
            yield from (row for shard in found if shard.stream == self._stream for row in shard.rows)


def _orphan(row: ShardRow) -> Candidate:
    """A sample that was read once and that the stream has no more."""
    return Candidate(row.id, row.label, row.subject, "", train=False)


def _kept(keep: Sequence[str], stream: str) -> Iterator[tuple[str, str]]:
    for name in keep:
        other, colon, sample = name.partition(":")
        yield (normalised(other), composed(sample)) if colon else (stream, composed(name))


def candidates(resolution: Resolution) -> list[Candidate]:
    """Every sample of a resolved stream."""
    learnt = [
        Candidate(row.id, row.label, row.subject, task.id, train)
        for task in resolution.tasks
        for rows, train in ((task.train, True), (task.test, False))
        for row in rows
    ]
    streamed = [
        Candidate(row.id, row.label, row.subject, segment.id, train=False, streamed=True)
        for segment in resolution.segments
        for row in segment.rows
    ]
    return learnt + streamed


def _emptied(rows: Iterable[Candidate], left: Iterable[Candidate], attribute: str) -> tuple[str, ...]:
    """Classes or tasks that keep no training sample, segments that keep no sample."""
    kept = {getattr(row, attribute) for row in left if row.train or (row.streamed and attribute == "task")}
    return tuple(dict.fromkeys(name for row in rows if (name := getattr(row, attribute)) not in kept))


def _small_classes(rows: Iterable[Candidate], left: Iterable[Candidate]) -> Iterable[str]:
    """A class mean of one or two samples is nearly a sample."""
    before = [row.label for row in rows if row.train]
    after = [row.label for row in left if row.train]
    for name in dict.fromkeys(after):
        if after.count(name) <= 2 < before.count(name):
            yield f"class '{name}' keeps {after.count(name)} training samples, so its prototype nearly is a sample"


def need_selectors(selectors: Sequence[Selector]) -> None:
    """Raises BadInput if nothing was selected."""
    if not selectors:
        raise BadInput("say what to forget: --task, --class, --subject, --sample or --ids-file")
