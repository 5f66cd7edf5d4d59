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
from cl.deletion.dry_run import RehearsingBuilder, rehearse
from cl.deletion.forget_set import ForgetSet, Selector, resolve, rows_of
from cl.deletion.taint import Closure, closure
from cl.errors import DeletionError, PalimpsestError
from cl.home.results import Results
from cl.home.runs import Live, Runs
from cl.home.store import DURABLE, Record, Store
from cl.running.session import Session

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


def _rest(session: Session, live: Live, forget: ForgetSet) -> Stream:
    """The stream without the forget set, if its source still holds exactly what the run has seen otherwise."""
    rest = session.whole.without(session.suppressed | set(forget.samples))
    rows = rows_of(live.resolution)
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
    read = {sample for shards in rehearsal.planned.values() for shard in shards for sample in shard.origins}
    tasks = [task.id for task in rest.tasks if not read.isdisjoint(task.train.ids)]
    return (*tasks, *(segment.id for segment in rest.segments if not read.isdisjoint(segment.samples.ids)))


def _other_runs(session: Session, touched: Closure) -> list[str]:
    runs = Runs(session.store).all_live()
    return [run for run, live in runs if run != session.request.id and live.keys & touched.components.keys()]


def _changed(session: Session, uses: Sequence[tuple[str, Record]]) -> tuple[str, ...]:
    """Builds whose code, or libraries and device, are not those of the run: then nothing could be reused."""
    numerics = session.numerics.as_json()
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
