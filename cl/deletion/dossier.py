"""What the later steps of a deletion need to know of the request and of the run as it was; for the vault alone."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cl.deletion.forget_set import ForgottenSample, Selector, traces_of
from cl.deletion.graph import ComponentGraph, component_graph
from cl.deletion.oracle import Finding
from cl.deletion.plan import DeletionPlan, Scope
from cl.deletion.taint import closure
from cl.deletion.vault import Vault
from cl.documents import Document
from cl.home.shards import Traces
from cl.home.store import Store

Method = Literal["exact", "drop", "retrain"]
NONCE = 16  # bytes of what hides a person's commitment


@dataclass(frozen=True)
class Order:
    """What was asked for. method: `exact`, or a baseline measured on a copy."""

    run: str
    selectors: tuple[Selector, ...]
    scope: Scope
    method: Method
    reason: str

    def same(self, other: Order) -> bool:
        """Whether both ask for the same, whatever the reason."""
        mine, theirs = ((one.run, one.selectors, one.scope, one.method) for one in (self, other))
        return mine == theirs


@dataclass(frozen=True)
class ForgottenSamples:
    """samples: by id, `train` and `test` of them, all of one stream. subjects: the people that were named. twins: how
    many of them were taken along as copies. kept: (stream, id) of copies that stay."""

    stream: str
    samples: Mapping[str, ForgottenSample]
    subjects: tuple[str, ...]
    train: int
    test: int
    classes_emptied: int
    tasks_emptied: int
    twins: int
    kept: tuple[tuple[str, str], ...]
    again: Mapping[str, ForgottenSample] = field(default_factory=dict)

    @property
    def kept_out(self) -> Traces:
        """How all that the request names is kept out: also what was deleted before."""
        return traces_of(self.stream, {**self.again, **self.samples}, self.kept)

    @property
    def traces(self) -> Traces:
        """How they are known again in the home."""
        return traces_of(self.stream, self.samples, self.kept)


@dataclass(frozen=True)
class RunBefore:
    """The run as it was. manifest: its digest. keys, names: of the components that it used."""

    manifest: str
    keys: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Taint:
    """names, keys: of the run's tainted components. digests: of all that was made from the samples in the home."""

    names: tuple[str, ...]
    keys: tuple[str, ...]
    digests: tuple[str, ...]
    graph: ComponentGraph


@dataclass(frozen=True)
class Forecast:
    """What the plan foretold. build: components. See `cl.deletion.plan.DeletionPlan`."""

    build: int
    predicted_seconds: float
    full_retrain_seconds: float
    blast_radius: Mapping[str, float]
    amplification: float
    raw_data_needed: tuple[str, ...]


@dataclass(frozen=True)
class MeasuredCopy:
    """What a baseline came to. left: components made from the samples that its copy serves."""

    finding: Finding
    left: int


@dataclass(frozen=True)
class Dossier(Document):
    """A request's sealed content. stale: runs that it made stale; exceptions: runs that read the samples and were left
    as they are; copy: of a baseline; nonces: of each person's receipt."""

    order: Order
    forgotten: ForgottenSamples
    before: RunBefore
    taint: Taint
    forecast: Forecast
    stale: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()
    nonces: Mapping[str, str] = field(default_factory=dict)
    copy: MeasuredCopy | None = None


def read_dossier(vault: Vault, request: str) -> Dossier:
    """What was sealed of `request`. Raises DeletionError once it was destroyed, or if it was edited."""
    return Dossier.from_json(vault.get(request), f"the sealed content of request {request}", "restore it")


def dossier_of(store: Store, plan: DeletionPlan, order: Order) -> Dossier:
    """The dossier of a plan that was approved."""
    forget = plan.forget
    return Dossier(
        order,
        ForgottenSamples(
            stream=forget.stream,
            samples=dict(forget.samples),
            subjects=forget.subjects,
            train=forget.train,
            test=forget.test,
            classes_emptied=len(forget.classes_emptied),
            tasks_emptied=len(forget.tasks_emptied),
            twins=len(forget.twins),
            kept=forget.kept,
            again=dict(forget.again),
        ),
        RunBefore(
            manifest=plan.live.digest,
            keys=tuple(sorted(plan.live.keys)),
            names=tuple(sorted(plan.live.names)),
        ),
        _taint(store, plan),
        Forecast(
            build=plan.build,
            predicted_seconds=plan.predicted_seconds,
            full_retrain_seconds=plan.full_retrain_seconds,
            blast_radius=dict(plan.blast_radius),
            amplification=plan.amplification,
            raw_data_needed=plan.raw_data_needed,
        ),
        nonces=_nonces(forget.samples),
    )


def _nonces(samples: Mapping[str, ForgottenSample]) -> dict[str, str]:
    """One for each person, that nobody can guess."""
    people = {one.subject for one in samples.values()}
    return {who: secrets.token_hex(NONCE) for who in sorted(who for who in people if who)}


def _taint(store: Store, plan: DeletionPlan) -> Taint:
    """What was made from the samples is to vanish; what was made from data that the run's user may not read any more
    leaves the run with it, and is built again without."""
    touched = closure(store, plan.forget.traces)
    parts = {part["digest"] for record in touched.components.values() for part in record.parts.values()}
    revoked = frozenset((plan.forget.stream, sample) for sample in plan.revoked)
    leaving = {**touched.components, **closure(store, Traces(revoked)).components}
    names = {use.name for use in plan.live.uses if use.key in leaving}
    names |= {entry.name for entry in plan.live.entries if entry.key in leaving}
    return Taint(
        names=tuple(sorted(plan.tainted | names)),
        keys=tuple(sorted({step.key for step in plan.steps})),
        digests=tuple(sorted({*touched.shards, *touched.components, *parts})),
        graph=component_graph(store, plan),
    )
