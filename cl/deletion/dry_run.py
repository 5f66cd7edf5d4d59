"""A run without its work: the strategy is driven through a stream, and what is not stored is noted, not built.

So a deletion is planned by the strategy's own code, whatever the strategy is. What will be built has no bytes yet;
components made from it get a stand-in digest, hence count as built too, even where equal bytes would stop there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from cl.components.builder import Builder, Plan, Use
from cl.components.handles import Handle, Part, Read, shards_of
from cl.data.samples import Samples
from cl.data.stream import Stream, Task
from cl.errors import DeletionError
from cl.home.store import Record, Tensors
from cl.learning.strategy import Strategy
from cl.running.journal import Journal, Tally
from cl.running.session import Session


class History:
    """What the run's components cost when they were built, by name and by build."""

    def __init__(self, uses: Sequence[tuple[str, Record]]) -> None:
        self.named = dict(uses)
        self._rates: dict[str, list[float]] = {}
        for _, record in uses:
            self._rates.setdefault(record.build, []).append(record.seconds / max(1, record.samples))

    def seconds(self, name: str, build: str, samples: int) -> float:
        """Seconds that building `name` will take over this many samples, 0 for a build that never ran."""
        before = self.named.get(name)
        if before is not None and before.build == build:
            return before.seconds * max(1, samples) / max(1, before.samples)
        return fmean(self._rates.get(build, [0.0])) * max(1, samples)


@dataclass
class DryBuilder(Builder):
    """A builder that builds nothing. planned: key -> the shards that the build will read."""

    history: History = field(default_factory=lambda: History([]))
    planned: dict[str, list[Samples]] = field(default_factory=dict)

    def component(
        self, name: str, build: Callable[..., Any], *reads: Read, controls: Sequence[Part] = (), **arguments: Any
    ) -> Handle:
        plan = self._plan(name, build, reads, controls, arguments)
        record = self.store.find(plan.key)
        if record is not None:
            return self._reuse(plan, record)
        self.planned[plan.key] = shards_of(plan.reads)
        expected = self._expected(plan)
        self.uses.append(Use(plan.name, plan.key, self.phase, True, expected.seconds, 0, expected.samples))
        return Handle(expected, lambda _, part: self._before(plan.name, part))

    def build_together(self, *_: Any, **__: Any) -> None:
        """Nothing is built."""

    def _reuse(self, plan: Plan, record: Record) -> Handle:
        self._log(plan, record, built=False)
        return Handle(record, self._open)

    def _expected(self, plan: Plan) -> Record:
        record = self._record(plan, (), {}, 0.0, 0)
        parts = {
            part: {"role": role, "digest": f"planned {plan.key} {part}", "numel": 0, "bytes": 0}
            for part, role in plan.roles.items()
        }
        return replace(record, parts=parts, seconds=self.history.seconds(plan.name, record.build, record.samples))

    def _before(self, name: str, part: str) -> Tensors:
        """The value before the deletion: the likeliest of a decision that will be taken again."""
        record = self.history.named.get(name)
        if record is None:
            raise DeletionError(f"'{name}' depends on a decision still to be taken, so the cost cannot be foretold")
        return self.store.load(record, part)


class DrySession(Session):
    """A session that measures nothing."""

    def _outcome(self, strategy: Strategy, after: Task, task: Task, journal: Journal, classes: list[str]) -> Tally:
        self.prediction(strategy, after, task, journal, classes)
        return Tally(images=len(task.test), right=0, within=0, task=0)


def dry_run(session: Session, stream: Stream, uses: Sequence[tuple[str, Record]]) -> DryBuilder:
    """Drive the run of `session` over `stream`; uses: names and records of the run so far. Writes nothing."""
    setup = session.setup
    builder = DryBuilder(session.store, setup.backbone, setup.numerics, setup.request.seed, history=History(uses))
    DrySession(setup, stream, session.absent, builder).drive()
    return builder
