"""Drives a strategy through a stream and records every figure."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from cl.components.builder import Builder
from cl.components.handles import Handle
from cl.data.stream import Stream, Task
from cl.errors import CorruptComponent, DataDeleted
from cl.home.results import Results
from cl.home.runs import Runs
from cl.home.store import Store
from cl.learning.strategy import PastTask, Strategy
from cl.models.vit import TimmBackbone
from cl.numerics import Numerics
from cl.progress import track
from cl.running import growth, online
from cl.running.journal import Journal, Outcome, as_lists, differences, effort, quality
from cl.running.memory import Peak
from cl.running.predictions import predictions
from cl.running.request import Request, Source
from cl.running.suppression import Suppression


@dataclass
class Session:
    """One run: `whole` is all that its user may read, `stream` what is left without samples that must not come back."""

    store: Store
    backbone: TimmBackbone
    numerics: Numerics
    request: Request
    source: Source
    whole: Stream
    method: type[Strategy]
    hyper: Any

    def __post_init__(self) -> None:
        self._start, self._peak = time.perf_counter(), Peak()
        self.builder = Builder(self.store, self.backbone, self.numerics, self.request.seed)
        self.suppression = Suppression(self.store.home)
        self._stamp = self.suppression.stamp()
        self.suppressed = self.suppression.of(self.whole, self.request.id)
        self.stream = self.whole.without(self.suppressed)
        self.store.guard = self._refuse_deleted

    def run(self) -> dict[str, Any]:
        """Learn, measure, and make the outcome the run's live generation; every figure."""
        Results(self.store.home).check()
        Runs(self.store).begin(self.request.id, asdict(self.request), asdict(self.source))
        journal = self.drive()
        figures = self.figures(journal)
        self.save(figures, journal)
        return figures

    def strategy(self) -> Strategy:
        """The run's strategy, knowing what the run's user may read."""
        made, user, policy = self.method(self.hyper, self.builder), self.request.user, self.whole.policy
        if user is not None:
            made.readable = lambda atom: policy.reads(user, atom)
        return made

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
            journal.sizes.append(growth.size(journal.model, self.backbone.blocks))
        with self.builder.in_phase("evaluate"):
            journal.blocks = strategy.figures(journal.models, tasks) if journal.models else {}
        if tasks and self.stream.segments:
            self._go_online(strategy, journal)
        return journal

    def _go_online(self, strategy: Strategy, journal: Journal) -> None:
        """Meet the segments one after another; then look at the source again, with the model as it is at the end."""
        classes, label = list(journal.model.classes), f"{self.request.strategy} on {self.stream.name}, test time"
        for segment, piece, found, model in online.adapted(
            strategy, self.builder, journal.model, self.stream.segments, label
        ):
            met = online.judge(self.builder, segment, piece, found, classes)
            journal.predictions[f"{piece.id}/predictions"] = met.judged.sole.digest
            journal.met.append(met)
            journal.model = model
        with self.builder.in_phase("evaluate"), self.builder.at("adapted"):
            for task in self.stream.tasks:
                if len(task.test):
                    journal.again.append(self.prediction(strategy, self.stream.tasks[-1], task, journal, classes))

    def _evaluate(self, strategy: Strategy, after: Task, journal: Journal, measured: bool) -> None:
        journal.models.append(journal.model)
        outcomes: list[Outcome | None] = []
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

    def _outcome(self, strategy: Strategy, after: Task, task: Task, journal: Journal, classes: list[str]) -> Outcome:
        found = self.prediction(strategy, after, task, journal, classes).open()
        own = torch.tensor([column for column, name in enumerate(classes) if name in task.classes])
        right, within = found["predicted"] == found["target"], found["within"] == found["target"]
        return Outcome(len(right), int(right.sum()), int(within.sum()), int(torch.isin(found["predicted"], own).sum()))

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
            "backbone": self.backbone.name,
            "presets": list(self.source.presets),
            "hyper": dict(self.request.hyper),
            "tasks": [
                {"id": task.id, "classes": list(task.classes), "domain": task.domain} for task in self.stream.tasks
            ],
            "classes_per_task": [len(task.classes) for task in self.stream.tasks],
            **measured,
            "adapters": journal.adapters,
            "parameters_added": differences(journal.parameters),
            "growth": growth.figures(
                journal.model,
                journal.sizes,
                [task.domain for task in self.stream.tasks],
                measured["average_accuracy"],
            ),
            **effort(self.builder, self.elapsed()),
            "inference": journal.inference,
            **({"online": self._online(journal)} if journal.met else {}),
            "blocks": {name: as_lists(handle) for name, handle in journal.blocks.items()},
            "peak_memory_bytes": self._peak.bytes(),
            "manifest": journal.manifest,
            "components": dict(sorted(components.items())),
            "notes": list(self.stream.notes),
            "numerics": self.numerics.as_json(),
            "warnings": [*self.store.warnings, *self._skipped()],
            "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        }

    def _online(self, journal: Journal) -> dict[str, Any]:
        used = {use.key: use for use in self.builder.uses if use.phase == "adapt"}.values()
        cost = {"seconds": sum(use.seconds for use in used), "passes": sum(use.passes for use in used)}
        tests = sum(len(task.test) for task in self.stream.tasks)
        right = sum(int((found["predicted"] == found["target"]).sum()) for found in map(Handle.open, journal.again))
        last = journal.curve[-1]
        before, after = None if last is None else 1 - last, 1 - right / tests if tests else None
        return online.figures(journal.met, before, after, cost)

    def save(self, figures: Mapping[str, Any], journal: Journal) -> None:
        """Switch the run to what was built now, then record the figures."""
        manifest = {
            "entries": {name: _entry(handle) for name, handle in journal.model.entries.items()},
            "tasks": [_row(task) for task in journal.model.tasks],
            "image_size": self.stream.image_size,
            "components": figures["components"],
            "manifest": figures["manifest"],
            "uses": [list(use) for use in sorted({(use.name, use.key) for use in self.builder.uses})],
        }
        with self.store.locked(exclusive=False):
            self.store.guard()
            Runs(self.store).switch(self.request.id, self.stream.resolution(), manifest)
            Results(self.store.home).save(figures)

    def elapsed(self) -> float:
        """Seconds since the session was opened."""
        return time.perf_counter() - self._start

    def _refuse_deleted(self) -> None:
        """The store's guard: nothing that this run makes may be written once data that it reads was deleted."""
        stamp = self.suppression.stamp()
        if stamp == self._stamp:
            return
        gone = self.suppression.of(self.stream, self.request.id)
        if gone:
            raise DataDeleted(
                f"{len(gone)} samples of this run were deleted while it ran; run the same command again without them"
            )
        self._stamp = stamp

    def _skipped(self) -> list[str]:
        if not self.suppressed:
            return []
        return [f"skipped {len(self.suppressed)} samples that were deleted; palimpsest forget status names the request"]


def _entry(handle: Handle) -> dict[str, Any]:
    return {"key": handle.key, "parts": {name: part.digest for name, part in handle.parts.items()}}


def _row(task: PastTask) -> dict[str, Any]:
    return {"id": task.id, "classes": list(task.classes), "domain": task.domain}
