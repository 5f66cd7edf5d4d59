"""The usual practice, measured beside exact deletion: drop the task's own parts and keep the rest, or train everything
again. Both work on a copy that is thrown away; the run itself stays as it is.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl.components.builder import Builder, Plan
from cl.components.handles import Handle, Part, Read, shards_of
from cl.deletion.oracle import Finding, cold_run, observe, run_cold
from cl.deletion.plan import DeletionPlan
from cl.errors import DeletionError
from cl.home.store import DURABLE, Record
from cl.running.session import Session


@dataclass(frozen=True)
class BaselineResult:
    """finding: what the copy came to. built, reused, left: components; left: those made from the deleted samples."""

    finding: Finding
    built: int
    reused: int
    left: int
    seconds: float


def measure(session: Session, plan: DeletionPlan, method: str) -> BaselineResult:
    """What `method` (drop or retrain) makes of the run. Raises DeletionError where there is nothing to drop."""
    return _retrain(session, plan) if method == "retrain" else _drop(session, plan)


def _retrain(session: Session, plan: DeletionPlan) -> BaselineResult:
    work = cold_run(session, session.suppressed | set(plan.forget.samples), plan.forget.samples)
    with tempfile.TemporaryDirectory(prefix="palimpsest-retrain-") as folder:
        finding = run_cold(work, Path(folder))
    return BaselineResult(finding, plan.build + plan.reuse, 0, 0, finding.seconds)


def _drop(session: Session, plan: DeletionPlan) -> BaselineResult:
    """The strategy on the stream without the tasks that lose training samples; durable parts that should be trained
    again are kept as they were."""
    start = time.perf_counter()
    uses = [(use.name, record) for use in plan.live.uses if (record := session.store.find(use.key))]
    gone = [one for one in session.stream.tasks if not set(plan.forget.samples).isdisjoint(one.train.ids)]
    shards = [shard for one in gone for shard in (one.train, one.test)]
    ids = {sample for shard in shards for sample in shard.ids} | set(plan.forget.samples)
    setup = session.setup
    builder = _KeepingBuilder(session.store, setup.backbone, setup.numerics, setup.request.seed, before=uses)
    copy = Session(setup, session.stream.without(ids), session.absent, builder)
    journal = copy.drive()
    kept = {use.key for use in builder.uses}
    left = kept & {step.key for step in plan.steps}
    seconds = time.perf_counter() - start
    finding = observe(copy, journal, plan.forget.samples, seconds)
    return BaselineResult(finding, builder.built, len(kept), len(left), seconds)


@dataclass
class _KeepingBuilder(Builder):
    """A builder that trains nothing again and stores nothing: a durable part of the old run stands in for a new one."""

    before: Sequence[tuple[str, Record]] = ()
    built: int = 0

    def component(
        self, name: str, build: Callable[..., Any], *reads: Read, controls: Sequence[Part] = (), **arguments: Any
    ) -> Handle:
        plan = self._plan(name, build, reads, controls, arguments)
        if any(shard.transient for shard in shards_of(plan.reads)):
            return self._build(plan, store=False)
        record = self.store.find(plan.key)
        if record is None and not set(DURABLE).isdisjoint(plan.roles.values()):
            record = self._kept(plan)
        if record is not None:
            return self._reuse(plan, record)
        self.built += 1
        return self._build(plan, store=False)

    def build_together(self, *_: Any, **__: Any) -> None:
        """Each one when it is asked for: what is built here is not stored."""

    def _kept(self, plan: Plan) -> Record:
        matches = [record for name, record in self.before if name == plan.name]
        same = [one for one in matches if one.arguments.get("classes") == plan.arguments.get("classes")]
        if len(matches) != 1 or not same:
            raise DeletionError(
                f"nothing can be dropped: '{plan.name}' is shared by all tasks; use --method exact or retrain"
            )
        return same[0]
