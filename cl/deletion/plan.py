"""Exact deletion: selectors -> forget set -> tainted closure -> plan. Carrying it out is in `cl.deletion.execution`.

Deleting samples from a run means: its strategy, run on the resolved stream without them, against the store as it is.
Strategies know nothing of it. Planning drives the strategy over that stream without building (`cl.deletion.dry_run`)
and compares with what the lineage says must be touched.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cl.code import code_digest
from cl.data.stream import Stream
from cl.data.veil import origins
from cl.deletion.dry_run import RehearsingBuilder, rehearse
from cl.deletion.taint import Closure, closure
from cl.errors import BadInput, DeletionError, PalimpsestError, UnknownName
from cl.home.results import Results
from cl.home.runs import Live, Runs
from cl.home.store import DURABLE, Record, Store
from cl.running.rerun import replay
from cl.running.session import Session

Kind = Literal["task", "class", "subject", "sample"]
Scope = Literal["home", "run"]
WRITE_SECONDS = 0.02  # what a component costs beside its build where the run's own log does not tell


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


@dataclass(frozen=True)
class Step:
    """What happens to one tainted component, and the reads that lead from the data to it."""

    name: str
    key: str
    roles: tuple[str, ...]
    action: Literal["keep", "rebuild", "drop", "purge"]
    path: tuple[str, ...]
    grade: str = "E0"


@dataclass(frozen=True)
class Plan:
    """What a deletion will do and cost, before anything is touched. Seconds are predictions."""

    run: str
    scope: Scope
    forget: ForgetSet
    steps: tuple[Step, ...]
    build: int
    reuse: int
    predicted_seconds: float
    full_retrain_seconds: float
    blast_radius: Mapping[str, float]
    amplification: float
    raw_data_needed: tuple[str, ...]
    other_runs: tuple[str, ...]
    tainted_shards: tuple[str, ...]
    changed: tuple[str, ...]
    live: Live = field(repr=False)

    @property
    def tainted(self) -> set[str]:
        """Names of the run's tainted components."""
        return {step.name for step in self.steps}

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; it names samples, so it is for the person who asks, not for a record."""
        forget = {**self.forget.__dict__, "samples": sorted(self.forget.samples)}
        own = {name: value for name, value in self.__dict__.items() if name not in ("forget", "steps", "live")}
        return {**own, "forget": forget, "tainted": len(self.steps), "steps": [step.__dict__ for step in self.steps]}


def open_run(home: Path, run: str) -> Session:
    """The run whose id begins with `run`, ready to be driven again. Raises BadInput where it cannot be replayed."""
    runs = Runs(Store(home))
    found = runs.find(run)
    return replay(home, runs.request(found), runs.source(found))


def plan(session: Session, selectors: Sequence[Selector], scope: Scope = "home") -> Plan:
    """What deleting the selected samples from this run takes. Writes nothing.

    Raises BadInput for a selector that names nothing of this run, DeletionError where its raw data changed, or for a
    run that is stale, quarantined or has not finished.
    """
    live = Runs(session.store).served(session.request.id)
    forget = resolve(session, live, selectors)
    rest = _rest(session, live, forget)
    uses = _uses(session.store, live)
    start = time.perf_counter()
    touched = closure(session.store, forget.samples)
    rehearsal = rehearse(session, rest, uses)
    walks = time.perf_counter() - start  # executing goes the same ways: through the lineage, then through the stream
    beside = _seconds_beside(session)
    return Plan(
        run=session.request.id,
        scope=scope,
        forget=forget,
        steps=_steps(uses, touched, rehearsal),
        build=len(rehearsal.planned),
        reuse=len({use.key for use in rehearsal.uses if not use.built}),
        predicted_seconds=walks + _seconds(rehearsal, beside, built=True),
        full_retrain_seconds=_seconds(rehearsal, beside, built=True) + _seconds(rehearsal, beside, built=False),
        blast_radius=_blast(uses, touched),
        amplification=_visits(rehearsal) / max(1, len(forget.samples)),
        raw_data_needed=_raw_data(rest, rehearsal),
        other_runs=tuple(_other_runs(session, touched)),
        tainted_shards=tuple(sorted(touched.shards)),
        changed=_changed(session, uses),
        live=live,
    )


def resolve(session: Session, live: Live, selectors: Sequence[Selector]) -> ForgetSet:
    """The samples that the selectors mean, in the stream as this run resolved it. Raises BadInput, UnknownName."""
    rows = _rows(live.resolution)
    before = [row for row in _rows(session.whole.resolution()) if row.id in session.suppressed]
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


def _rows(resolution: Mapping[str, Any]) -> list[Row]:
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
        found = {name: digest for _, held in session.store.shards() for name, digest in held.items()} | found
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


def _rest(session: Session, live: Live, forget: ForgetSet) -> Stream:
    """The stream without the forget set, if its source still holds exactly what the run has seen otherwise."""
    rest = session.whole.without(session.suppressed | set(forget.samples))
    rows = _rows(live.resolution)
    new = rest.ids - {row.id for row in rows}
    lost = {row.id for row in rows if row.train or row.streamed} - set(forget.samples) - rest.ids
    if new:
        raise DeletionError(f"the stream's source has {len(new)} samples that the run never saw; run it again first")
    if lost:
        raise DeletionError(
            f"raw data of {len(lost)} more samples is gone, the first '{min(lost)}'; put it back, or forget them too"
        )
    return rest


def _uses(store: Store, live: Live) -> list[tuple[str, Record]]:
    """Names and records of all that the run used, evicted caches included."""
    records = store.lineage()
    return [(name, records[key]) for name, key in live.manifest["uses"] if key in records]


def _steps(uses: Sequence[tuple[str, Record]], touched: Closure, rehearsal: RehearsingBuilder) -> tuple[Step, ...]:
    names = {record.key: name for name, record in uses}
    kept = {use.key for use in rehearsal.uses if not use.built}
    built = {use.name for use in rehearsal.uses if use.built}
    return tuple(
        Step(name, record.key, roles, _action(name, record, kept, built), tuple(touched.path(record.key, names)))
        for name, record in uses
        if record.key in touched.components
        for roles in [tuple(sorted({part["role"] for part in record.parts.values()}))]
    )


def _action(name: str, record: Record, kept: set[str], built: set[str]) -> Literal["keep", "rebuild", "drop", "purge"]:
    if record.key in kept:
        return "keep"
    if name in built:
        return "rebuild"
    return "drop" if any(part["role"] in DURABLE for part in record.parts.values()) else "purge"


def _seconds(rehearsal: RehearsingBuilder, beside: float, built: bool) -> float:
    """What it takes to make the components to be built, or those to be reused: builds, and `beside` for each."""
    return sum({use.key: use.seconds + beside for use in rehearsal.uses if use.built == built}.values())


def _seconds_beside(session: Session) -> float:
    """What a component cost this run beside its build: opening what it reads, digests, two files made safe."""
    rows = [row for row in Results(session.store.home).all() if row["run"] == session.request.id]
    cold = [row for row in rows if row["components_built"] > row["components_reused"]]
    return float(cold[0]["seconds"]["other"]) / cold[0]["components_built"] if cold else WRITE_SECONDS


def _visits(rehearsal: RehearsingBuilder) -> int:
    return sum(len(shard) for shards in rehearsal.planned.values() for shard in shards)


def _blast(uses: Sequence[tuple[str, Record]], touched: Closure) -> dict[str, float]:
    """Share of the run's components, durable parameters and build seconds that is tainted."""
    records = {record.key: record for _, record in uses}
    weights = {
        "components": {key: 1.0 for key in records},
        "parameters": {key: float(_parameters(record)) for key, record in records.items()},
        "seconds": {key: record.seconds for key, record in records.items()},
    }
    return {
        name: sum(value for key, value in weight.items() if key in touched.components) / (sum(weight.values()) or 1.0)
        for name, weight in weights.items()
    }


def _parameters(record: Record) -> int:
    return sum(part["numel"] for part in record.parts.values() if part["role"] in DURABLE)


def _raw_data(rest: Stream, rehearsal: RehearsingBuilder) -> tuple[str, ...]:
    """Tasks and segments whose images are read again: what a deployment that kept none would lack."""
    read = {sample for shards in rehearsal.planned.values() for shard in shards for sample in origins(shard)}
    tasks = [task.id for task in rest.tasks if not read.isdisjoint(task.train.ids)]
    return (*tasks, *(segment.id for segment in rest.segments if not read.isdisjoint(segment.samples.ids)))


def _other_runs(session: Session, touched: Closure) -> list[str]:
    runs = Runs(session.store).all_live()
    return [run for run, live in runs if run != session.request.id and live.keys & touched.components.keys()]


def _changed(session: Session, uses: Sequence[tuple[str, Record]]) -> tuple[str, ...]:
    """Builds whose code, or libraries and device, are not those of the run: then nothing could be reused."""
    numerics = session.numerics.as_json()
    codes = {(record.build, record.code) for _, record in uses}
    changed = {build for build, code in codes if _code(build) != code}
    return tuple(sorted(changed | {record.build for _, record in uses if record.numerics != numerics}))


def _code(build: str) -> str | None:
    module, _, name = build.rpartition(".")
    try:
        return code_digest(getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError, PalimpsestError):
        return None


def need_selectors(selectors: Sequence[Selector]) -> None:
    """Raises BadInput if nothing was selected."""
    if not selectors:
        raise BadInput("say what to forget: --task, --class, --subject, --sample or --ids-file")
