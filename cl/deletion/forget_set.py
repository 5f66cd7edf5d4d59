"""What a request names: selectors, and the samples of a run that they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cl.errors import BadInput, DeletionError, UnknownName
from cl.home.runs import Live
from cl.home.shards import contents_of
from cl.running.session import Session

Kind = Literal["task", "class", "subject", "sample"]


@dataclass(frozen=True)
class Selector:
    """One thing to forget."""

    kind: Kind
    value: str


@dataclass(frozen=True)
class Row:
    """One sample of a resolved stream. task: the segment, for a sample that arrives at test time (`streamed`)."""

    id: str
    label: str
    subject: str | None
    task: str
    train: bool
    streamed: bool = False


@dataclass(frozen=True)
class ForgetSet:
    """What selectors resolved to. samples: id -> content digest; gone: how many of the selected were deleted before.

    twins: (id, id elsewhere) of equal content that is not selected.
    """

    samples: Mapping[str, str]
    train: int
    test: int
    gone: int
    classes_emptied: tuple[str, ...]
    tasks_emptied: tuple[str, ...]
    twins: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...] = ()


def resolve(session: Session, live: Live, selectors: Sequence[Selector]) -> ForgetSet:
    """The samples that the selectors mean, in the stream as this run resolved it. Raises BadInput, UnknownName."""
    rows = rows_of(live.resolution)
    before = [row for row in rows_of(session.whole.resolution()) if row.id in session.suppressed]
    chosen = {row.id: row for selector in selectors for row in _matches(selector, [*rows, *before])}
    fresh = {name: row for name, row in chosen.items() if name not in session.suppressed}
    left = [row for row in rows if row.id not in fresh]
    contents = _contents(session, set(fresh) | {row.id for row in rows})
    missing = sorted(set(fresh) - set(contents))
    if missing:
        raise DeletionError(f"nothing is known of the content of sample '{missing[0]}'; run it again, then forget")
    samples = {name: contents[name] for name in fresh}
    return ForgetSet(
        samples=samples,
        train=sum(row.train for row in fresh.values()),
        test=sum(not row.train for row in fresh.values()),
        gone=len(chosen) - len(fresh),
        classes_emptied=_emptied(rows, left, "label"),
        tasks_emptied=_emptied(rows, left, "task"),
        twins=_twins(samples, contents),
        warnings=tuple(_small_classes(rows, left)),
    )


def rows_of(resolution: Mapping[str, Any]) -> list[Row]:
    learnt = [
        Row(sample, label, subject, task["id"], split == "train")
        for task in resolution["tasks"]
        for split in ("train", "test")
        for sample, label, subject, _ in task[split]
    ]
    streamed = [
        Row(sample, label, subject, segment["id"], train=False, streamed=True)
        for segment in resolution.get("segments", ())
        for batch in segment["batches"].values()
        for sample, label, subject, _ in batch
    ]
    return learnt + streamed


def _matches(selector: Selector, rows: Sequence[Row]) -> list[Row]:
    attribute = {"task": "task", "class": "label", "subject": "subject", "sample": "id"}[selector.kind]
    found = [row for row in rows if getattr(row, attribute) == selector.value]
    if not found:
        known = {value for row in rows if (value := getattr(row, attribute)) is not None}
        raise UnknownName(f"{selector.kind} of this run", selector.value, known)
    return found


def _contents(session: Session, wanted: set[str]) -> dict[str, str]:
    """Content digests by id: from the source, and from the store for samples that the source has lost already."""
    shards = session.whole.shards
    found = {name: digest for shard in shards for name, digest in zip(shard.ids, shard.contents, strict=True)}
    if not wanted <= set(found):
        found = {name: digest for _, held in session.store.shards for name, digest in contents_of(held).items()} | found
    return {name: digest for name, digest in found.items() if name in wanted}


def _emptied(rows: Iterable[Row], left: Iterable[Row], attribute: str) -> tuple[str, ...]:
    """Classes or tasks that keep no training sample, segments that keep no sample."""
    kept = {getattr(row, attribute) for row in left if row.train or (row.streamed and attribute == "task")}
    return tuple(dict.fromkeys(name for row in rows if (name := getattr(row, attribute)) not in kept))


def _twins(samples: Mapping[str, str], contents: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    others: dict[str, list[str]] = {}
    for name, digest in contents.items():
        if name not in samples:
            others.setdefault(digest, []).append(name)
    return tuple((name, twin) for name, digest in sorted(samples.items()) for twin in others.get(digest, []))


def _small_classes(rows: Iterable[Row], left: Iterable[Row]) -> Iterable[str]:
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
