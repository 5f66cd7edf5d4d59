"""Drives a strategy through a stream and records every figure."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cl.components.builder import Builder
from cl.components.handles import Handle
from cl.data.stream import Stream, Task
from cl.errors import CorruptComponent
from cl.home.records import Entry, LearntTask, Manifest, Reference, Request, Resolution
from cl.home.results import Results
from cl.home.runs import Runs
from cl.home.store import Store
from cl.learning.strategy import Strategy
from cl.progress import track
from cl.running.grants import Grants
from cl.running.growth_figures import growth_figures, size
from cl.running.journal import Journal, Tally, as_lists, differences, effort, quality
from cl.running.memory import Peak
from cl.running.online import adaptations, judge, online_figures
from cl.running.predictions import predictions
from cl.running.setup import Setup
from cl.running.suppression import Absent, Guard, Suppression


@dataclass(frozen=True)
class Session:
    """One run on the store of a home.

    stream: what is left of all that its user may read without `absent`, what must not come back.
    """

    setup: Setup
    stream: Stream
    absent: Absent
    builder: Builder
    _begun: float = field(default_factory=time.perf_counter)
    _peak: Peak = field(default_factory=Peak)

    @property
    def request(self) -> Request:
        return self.setup.request

    @property
    def whole(self) -> Stream:
        """All that the run's user may read."""
        return self.setup.whole

    @property
    def suppressed(self) -> frozenset[str]:
        """The samples that must not come back."""
        return self.absent.ids

    @property
    def store(self) -> Store:
        return self.builder.store

    def run(self) -> dict[str, Any]:
        """Learn, measure, and make the outcome the run's live generation; every figure."""
        Results(self.store.home).check()
        Runs(self.store).begin(self.request, self.setup.source)
        journal = self.drive()
        figures = self.figures(journal)
        self.save(figures, journal)
        return figures

    def strategy(self) -> Strategy:
        """The run's strategy."""
        return self.setup.strategy(self.builder)

    def drive(self) -> Journal:
        """Learn and evaluate every task. A damaged component is set aside, and the run goes through the store again."""
        while True:
            try:
                return self._drive()
            except CorruptComponent:
                continue

    def _drive(self) -> Journal:
        strategy = self.strategy()
        journal = Journal()
        tasks = self.stream.tasks
        for position, task in enumerate(track(tasks, f"{self.request.strategy} on {self.stream.name}")):
            remaining = len(tasks) - position - 1
            with self.builder.in_phase("learn"):
                journal.model = strategy.extended(journal.model, task, remaining)
            with self.builder.in_phase("evaluate"):
                self._evaluate(strategy, task, journal, measured=strategy.learns(task, remaining))
            journal.adapters.append(sum(part.role == "adapter" for _, part in journal.model.parts))
            journal.parameters.append(sum(part.numel for _, part in journal.model.parts))
            journal.sizes.append(size(journal.model, self.setup.backbone.blocks))
        with self.builder.in_phase("evaluate"):
            journal.blocks = strategy.figures(journal.models, tasks) if journal.models else {}
        if tasks and self.stream.segments:
            self._go_online(strategy, journal)
        return journal

    def _go_online(self, strategy: Strategy, journal: Journal) -> None:
        """Meet the segments one after another; then look at the source again, with the model as it is at the end."""
        classes, label = list(journal.model.classes), f"{self.request.strategy} on {self.stream.name}, test time"
        for one in adaptations(strategy, self.builder, journal.model, self.stream.segments, label):
            scored = judge(self.builder, one, classes)
            journal.predictions[f"{one.piece.id}/predictions"] = scored.judged.sole.digest
            journal.pieces.append(scored)
            journal.model = one.model
        with self.builder.in_phase("evaluate"), self.builder.at("adapted"):
            for task in self.stream.tasks:
                if len(task.test):
                    journal.again.append(self.prediction(strategy, self.stream.tasks[-1], task, journal, classes))

    def _evaluate(self, strategy: Strategy, after: Task, journal: Journal, measured: bool) -> None:
        journal.models.append(journal.model)
        outcomes: list[Tally | None] = []
        hits = total = used = 0
        before = len(self.builder.uses)
        seen, classes = {past.id for past in journal.model.tasks}, list(journal.model.classes)
        for task in self.stream.tasks:
            # A task still to come is measured where its classes are known already (domain-incremental streams).
            known = task.id in seen or not set(classes).isdisjoint(task.classes)
            if not (measured and known and len(task.test)):
                outcomes.append(None)
                continue
            outcome = self._outcome(strategy, after, task, journal, classes)
            outcomes.append(outcome)
            used += len(task.test)
            if task.id in seen:
                hits, total = hits + outcome.right, total + len(task.test)
        journal.accuracy.append([one.right / one.images if one else None for one in outcomes])
        journal.known_task.append([one.within / one.images if one else None for one in outcomes])
        journal.task_correct.append([one.task / one.images if one else None for one in outcomes])
        journal.curve.append(hits / total if total else None)
        journal.inference = self._inference(before, used)

    def _inference(self, before: int, images: int) -> dict[str, float]:
        """What scoring `images` test images with the model as it is costs: all that was used for it, from the use
        number `before` on, whether built now or not."""
        used = {use.key: use for use in self.builder.uses[before:]}.values()
        return {"images": images, "passes": sum(u.passes for u in used), "seconds": sum(u.seconds for u in used)}

    def _outcome(self, strategy: Strategy, after: Task, task: Task, journal: Journal, classes: list[str]) -> Tally:
        found = self.prediction(strategy, after, task, journal, classes).open()
        own = torch.tensor([column for column, name in enumerate(classes) if name in task.classes])
        right, within = found["predicted"] == found["target"], found["within"] == found["target"]
        return Tally(len(right), int(right.sum()), int(within.sum()), int(torch.isin(found["predicted"], own).sum()))

    def prediction(self, strategy: Strategy, after: Task, task: Task, journal: Journal, classes: list[str]) -> Handle:
        """The component that holds the predictions of the model after task `after` on `task`'s test shard."""
        scores = strategy.scores(journal.model, task.test)
        name = f"{after.id}/predictions/{task.id}"
        known = [label for label in classes if label in task.classes]
        handle = self.builder.component(name, predictions, task.test, scores, classes=classes, known=known)
        journal.predictions[f"{self.builder.place}{name}"] = handle.sole.digest
        return handle

    def figures(self, journal: Journal) -> dict[str, Any]:
        """Every figure of the run, as plain JSON."""
        components = journal.components
        measured = quality(journal)
        return {
            "run": self.request.id,
            "stream": self.stream.name,
            "strategy": self.request.strategy,
            "seed": self.request.seed,
            "user": self.request.user,
            "backbone": self.setup.backbone.name,
            "presets": list(self.setup.source.presets),
            "hyper": dict(self.request.hyper),
            "tasks": [
                {"id": task.id, "classes": list(task.classes), "domain": task.domain} for task in self.stream.tasks
            ],
            "classes_per_task": [len(task.classes) for task in self.stream.tasks],
            **measured,
            "adapters": journal.adapters,
            "parameters_added": differences(journal.parameters),
            "growth": growth_figures(
                journal.model,
                journal.sizes,
                [task.domain for task in self.stream.tasks],
                measured["average_accuracy"],
            ),
            **effort(self.builder, self.elapsed()),
            "inference": journal.inference,
            **({"online": self._online(journal)} if journal.pieces else {}),
            "blocks": {name: as_lists(handle) for name, handle in journal.blocks.items()},
            "peak_memory_bytes": self._peak.bytes(),
            "manifest": journal.manifest,
            "components": dict(sorted(components.items())),
            "notes": list(self.stream.notes),
            "numerics": self.setup.numerics.as_json(),
            "warnings": [*self.store.warnings, *self.absent.notes],
            "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        }

    def _online(self, journal: Journal) -> dict[str, Any]:
        used = {use.key: use for use in self.builder.uses if use.phase == "adapt"}.values()
        cost = {"seconds": sum(use.seconds for use in used), "passes": sum(use.passes for use in used)}
        tests = sum(len(task.test) for task in self.stream.tasks)
        right = sum(int((found["predicted"] == found["target"]).sum()) for found in map(Handle.open, journal.again))
        last = journal.curve[-1]
        before, after = None if last is None else 1 - last, 1 - right / tests if tests else None
        return online_figures(journal.pieces, before, after, cost)

    def save(self, figures: Mapping[str, Any], journal: Journal) -> None:
        """Switch the run to what was built now, then record the figures."""
        manifest = self.manifest(journal)
        with self.store.locked(exclusive=False):
            self.store.guard()
            Runs(self.store).switch(self.request.id, self.stream.resolution(), manifest)
            Results(self.store.home).save(figures)

    def manifest(self, journal: Journal) -> Manifest:
        """What the run came to, as its folder keeps it."""
        model = journal.model
        return Manifest(
            entries=tuple(_entry(name, handle) for name, handle in model.entries.items()),
            tasks=tuple(LearntTask(task.id, task.classes, task.domain) for task in model.tasks),
            image_size=self.stream.image_size,
            components=dict(sorted(journal.components.items())),
            digest=journal.manifest,
            uses=tuple(Reference(*use) for use in sorted({(use.name, use.key) for use in self.builder.uses})),
        )

    def elapsed(self) -> float:
        """Seconds since the session was opened."""
        return time.perf_counter() - self._begun


def session_on(
    home: Path,
    setup: Setup,
    stream: Stream | None = None,
    make_builder: Callable[[Setup, Store], Builder] = Setup.builder,
) -> Session:
    """The run on the store of `home`, into which it writes nothing once data that it reads was deleted or revoked.

    stream: what it may read, where that is not all that its user may.
    """
    suppression = Suppression(home)
    stamp = suppression.stamp()
    absent = suppression.of(setup.whole, setup.request.id)
    rest = (setup.whole if stream is None else stream).without(absent.ids)
    store = Store(home, Guard(suppression, rest, setup.request.id, stamp, partial(_revoked, home, setup, rest)))
    return Session(setup, rest, absent, make_builder(setup, store))


def _revoked(home: Path, setup: Setup, stream: Stream) -> set[str]:
    """What the run's user may not read any more of `stream`; where the strategy does not isolate, of its tests."""
    user = setup.request.user
    if user is None:
        return set()
    isolated = setup.method.isolates(setup.hyper)
    mine = stream.ids if isolated else stream.ids.difference(*(task.train.ids for task in stream.tasks))
    return Grants(home).revoked(stream, user, mine)


def as_resolved(whole: Stream, resolution: Resolution) -> Stream:
    """Of a stream what a run has read: what was added to its source since waits for the next run."""
    return whole.without(whole.ids - resolution.ids)


def _entry(name: str, handle: Handle) -> Entry:
    return Entry(name, handle.key, {part.name: part.digest for part in handle.parts.values()})
