"""Exact deletion: selectors -> forget set -> tainted closure -> plan. Carrying it out is in `cl.deletion.execution`.

Deleting samples from a run means: its strategy, run on the resolved stream without them, against the store as it is.
Strategies know nothing of it. Planning drives the strategy over that stream without building (`cl.deletion.dry_run`)
and compares with what the lineage says must be touched.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from cl.code import code_digest
from cl.components.builder import builds_named
from cl.data.stream import Stream
from cl.deletion.dry_run import DryBuilder, dry_run
from cl.deletion.forget_set import ForgetSet, Selector, candidates, forget_set_of
from cl.deletion.taint import Closure, closure
from cl.documents import plain
from cl.errors import DeletionError, PalimpsestError
from cl.home.records import Manifest, Resolution
from cl.home.results import Results
from cl.home.runs import Runs
from cl.home.shards import Traces
from cl.home.store import DURABLE, Record, Store
from cl.running.session import Session, as_resolved
from cl.running.suppression import Suppression

Scope = Literal["home", "run"]
WRITE_SECONDS = 0.02  # what a component costs beside its build where the run's own log does not tell


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
class DeletionPlan:
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
    revoked: tuple[str, ...]
    tainted_shards: tuple[str, ...]
    changed: tuple[str, ...]
    live: Manifest = field(repr=False)
    resolution: Resolution = field(repr=False)

    @property
    def tainted(self) -> set[str]:
        """Names of the run's tainted components."""
        return {step.name for step in self.steps}

    def as_json(self) -> dict[str, Any]:
        """Plain JSON; it names samples, so it is for the person who asks, not for a record."""
        others = ("forget", "steps", "live", "resolution")
        own = {name: plain(value) for name, value in self.__dict__.items() if name not in others}
        forget = {**plain(self.forget), "samples": sorted(self.forget.samples), "again": len(self.forget.again)}
        return {
            **own,
            "forget": forget,
            "tainted": len(self.steps),
            "steps": plain(self.steps),
            "revoked": len(self.revoked),
        }


def plan(
    session: Session, selectors: Sequence[Selector], scope: Scope = "home", keep: Sequence[str] = ()
) -> DeletionPlan:
    """What deleting the selected samples from this run takes. Writes nothing.

    keep: copies of them that stay, see `forget_set_of`.
    Raises BadInput for a selector that names nothing of this run, DeletionError where its raw data changed, or for a
    run that is stale, quarantined or has not finished.
    """
    live = Runs(session.store).served(session.request.id)
    resolution = Runs(session.store).resolution(session.request.id)
    alone = session.request.id if scope == "run" else None
    deleted = Suppression(session.store.home).of(session.whole, alone).deleted
    forget = forget_set_of(session, resolution, selectors, keep, deleted)
    revoked = _revoked(session, resolution)
    rest = _rest(session, resolution, forget, revoked)
    uses = _uses(session.store, live)
    start = time.perf_counter()
    touched = closure(session.store, forget.traces)
    dry = dry_run(session, rest, uses)
    walks = time.perf_counter() - start  # executing goes the same ways: through the lineage, then through the stream
    beside = _seconds_beside(session)
    return DeletionPlan(
        run=session.request.id,
        scope=scope,
        forget=forget,
        steps=_steps(uses, touched, dry),
        build=len(dry.planned),
        reuse=len({use.key for use in dry.uses if not use.built}),
        predicted_seconds=walks + _seconds(dry, beside, built=True),
        full_retrain_seconds=_seconds(dry, beside, built=True) + _seconds(dry, beside, built=False),
        blast_radius=_blast(uses, touched),
        amplification=_visits(dry) / max(1, len(forget.samples)),
        raw_data_needed=_raw_data(rest, dry),
        other_runs=tuple(sorted(runs_with(session.store, forget.traces, touched) - {session.request.id})),
        revoked=tuple(sorted(revoked)),
        tainted_shards=tuple(sorted(touched.shards)),
        changed=changed_builds(session, uses),
        live=live,
        resolution=resolution,
    )


def _rest(session: Session, resolution: Resolution, forget: ForgetSet, revoked: frozenset[str]) -> Stream:
    """What the run has read, without the forget set. What was added to the source since waits for the next run.

    Raises DeletionError where the source has lost something else, or holds it with another content.
    """
    rest = as_resolved(session.whole, resolution).without(session.suppressed | set(forget.samples))
    needed = {row.id for row in candidates(resolution) if row.train or row.streamed}
    lost = needed - set(forget.samples) - revoked - rest.ids
    if lost:
        raise DeletionError(
            f"raw data of {len(lost)} more samples is gone, the first '{min(lost)}'; put it back, or forget them too"
        )
    changed = _changed_since(session.store, rest)
    if changed:
        raise DeletionError(
            f"the image of sample '{changed[0]}' is not the one that the run read; run it again first, or forget it too"
        )
    return rest


def _revoked(session: Session, resolution: Resolution) -> frozenset[str]:
    """What a user's run has read that the user may read no more: it leaves the run with the rest."""
    user, policy = session.request.user, session.whole.policy
    if user is None:
        return frozenset()
    return frozenset(row.id for row in resolution.rows if not policy.reads(user, row.access))


def _changed_since(store: Store, rest: Stream) -> list[str]:
    """Samples whose content the home has read otherwise, and never as it is now."""
    read: dict[str, set[str]] = {}
    for _, found in store.shards:
        for row in (row for shard in found if shard.stream == rest.name for row in shard.rows):
            read.setdefault(row.id, set()).add(row.content)
    pairs = (pair for shard in rest.shards for pair in zip(shard.ids, shard.contents, strict=True))
    return sorted(sample for sample, content in pairs if content not in read.get(sample, {content}))


def _uses(store: Store, live: Manifest) -> list[tuple[str, Record]]:
    """Names and records of all that the run used, evicted caches included."""
    records = store.lineage()
    return [(use.name, records[use.key]) for use in live.uses if use.key in records]


def _steps(uses: Sequence[tuple[str, Record]], touched: Closure, dry: DryBuilder) -> tuple[Step, ...]:
    names = {record.key: name for name, record in uses}
    kept = {use.key for use in dry.uses if not use.built}
    built = {use.name for use in dry.uses if use.built}
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


def _seconds(dry: DryBuilder, beside: float, built: bool) -> float:
    """What it takes to make the components to be built, or those to be reused: builds, and `beside` for each."""
    return sum({use.key: use.seconds + beside for use in dry.uses if use.built == built}.values())


def _seconds_beside(session: Session) -> float:
    """What a component cost this run beside its build: opening what it reads, digests, two files made safe."""
    rows = [row for row in Results(session.store.home).all() if row["run"] == session.request.id]
    cold = [row for row in rows if row["components_built"] > row["components_reused"]]
    return float(cold[0]["seconds"]["other"]) / cold[0]["components_built"] if cold else WRITE_SECONDS


def _visits(dry: DryBuilder) -> int:
    return sum(len(shard) for shards in dry.planned.values() for shard in shards)


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


def _raw_data(rest: Stream, dry: DryBuilder) -> tuple[str, ...]:
    """Tasks and segments whose images are read again: what a deployment that kept none would lack."""
    read = {sample for shards in dry.planned.values() for shard in shards for sample in shard.origins}
    tasks = [task.id for task in rest.tasks if not read.isdisjoint(task.train.ids)]
    return (*tasks, *(segment.id for segment in rest.segments if not read.isdisjoint(segment.samples.ids)))


def runs_with(store: Store, traces: Traces, touched: Closure) -> set[str]:
    """Runs with a live generation that read what the traces mean, by what they used or by what they say they read."""
    runs = Runs(store)
    using = {run for run, live in runs.all_live() if live.keys & touched.components.keys()}
    return using | {run for run, _ in runs.all_live() if _reads(runs.resolution(run), traces)}


def _reads(resolution: Resolution, traces: Traces) -> bool:
    return any((resolution.stream, row.id) in traces.names for row in resolution.rows)


def changed_builds(session: Session, uses: Sequence[tuple[str, Record]]) -> tuple[str, ...]:
    """Builds whose code, or libraries and device, are not those of the run: then nothing could be reused."""
    numerics = session.setup.numerics.as_json()
    codes = {(record.build, record.code) for _, record in uses}
    changed = {build for build, code in codes if not _has(build, code)}
    return tuple(sorted(changed | {record.build for _, record in uses if record.numerics != numerics}))


def _has(build: str, code: str) -> bool:
    """Whether a build of this name still has this code, in the module where it was or in another one by now."""
    module, _, name = build.rpartition(".")
    with suppress(ImportError):
        importlib.import_module(module)
    return any(_code(one) == code for one in builds_named(name))


def _code(build: Callable[..., Any]) -> str | None:
    try:
        return code_digest(build)
    except PalimpsestError:
        return None
