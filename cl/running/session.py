"""Drives a strategy through a stream and records every figure."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from cl import metrics
from cl.components.builder import Builder, Handle
from cl.data.policy import Grants
from cl.data.recipes import resolve_stream, strategy_of
from cl.data.stream import Recipe, Stream, Task
from cl.digests import digest_json
from cl.errors import BadInput, CorruptComponent, DataDeleted
from cl.home.layout import default_home
from cl.home.results import Result, Results
from cl.home.runs import RUN_ID, Runs
from cl.home.store import Store
from cl.learning.hyper import resolve
from cl.learning.strategy import Model, Strategy
from cl.models.backbone import TimmBackbone, load_backbone
from cl.numerics import Numerics, configure
from cl.progress import track
from cl.running import growth, online
from cl.running.memory import Peak
from cl.running.online import Met
from cl.running.predictions import predictions
from cl.running.suppression import Suppression

MAX_SEED = 2**63  # what the results database can hold


@dataclass(frozen=True)
class Request:
    """What names a run: the same request has the same id."""

    stream: Mapping[str, Any]
    strategy: str
    hyper: Mapping[str, Any]
    backbone: str
    seed: int
    user: str | None = None

    @property
    def id(self) -> str:
        """The first digits of the request's digest."""
        return digest_json(asdict(self))[:RUN_ID]


@dataclass(frozen=True)
class Source:
    """What makes a run again on this machine. None of it is part of the run's name: the same content at another place
    is the same run. stream: recipe and place, None for an object; backbone: None for an object."""

    stream: Mapping[str, Any] | None
    backbone: str | None
    device: str
    threads: int
    presets: Sequence[str] = ()


def run(
    stream: str | Stream,
    strategy: str | type[Strategy],
    *,
    backbone: str | TimmBackbone = "glyph-vit",
    seed: int = 0,
    presets: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    home: str | Path | None = None,
    device: str = "auto",
    threads: int = 1,
    data: str | Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    user: str | None = None,
) -> Result:
    """Run `strategy` over `stream` and return its figures; what the home's store holds is not built again.

    stream, strategy, backbone: names, or objects; stream and backbone may be TOML files. presets, settings:
    hyperparameters by preset, then by name. data: where the files of a stream by name lie, if it has any. arguments: of
    a stream by name, such as `people`. user: run on what this user may read, and on nothing else. Raises
    PalimpsestError (a subclass) with one line for anything that cannot be used.
    """
    if not 0 <= seed < MAX_SEED:
        raise BadInput(f"seed must be from 0 to {MAX_SEED - 1}, not {seed}")
    numerics = configure(device, threads)
    method, name = _strategy(strategy)
    hyper: Any = resolve(method.Hyper, method.presets, list(presets), settings or {})
    place = Path(home) if home is not None else default_home()
    everything = Grants(place).govern(resolve_stream(stream, data, place, arguments))
    whole = readable(everything, user, method.isolates(hyper))
    store = Store(place)
    network = load_backbone(backbone, numerics.device) if isinstance(backbone, str) else backbone
    request = Request(_recipe(whole), name, _values(hyper), network.digest, seed, user)
    source = Source(_replayable(everything), _place(backbone), numerics.device, threads, tuple(presets))
    return Result(Session(store, network, numerics, request, source, whole, method, hyper).run())


def assembled(
    strategy: str | type[Strategy],
    *,
    backbone: str | TimmBackbone = "glyph-vit",
    seed: int = 0,
    presets: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    home: str | Path | None = None,
    device: str = "auto",
    threads: int = 1,
) -> Strategy:
    """The strategy on a home's store, for loops that are not ours: `extended(model, task, remaining)` learns a task,
    `scores(model, samples)` scores. No figures are recorded. Arguments and errors are those of `run`."""
    numerics = configure(device, threads)
    method, _ = _strategy(strategy)
    hyper: Any = resolve(method.Hyper, method.presets, list(presets), settings or {})
    network = load_backbone(backbone, numerics.device) if isinstance(backbone, str) else backbone
    store = Store(Path(home) if home is not None else default_home())
    return method(hyper, Builder(store, network, numerics, seed))


def readable(stream: Stream, user: str | None, isolated: bool) -> Stream:
    """What a run of `user` is given of the stream; None: whoever may read everything. Who may read nothing is given
    nothing, also where the strategy does not isolate."""
    if user is None:
        return stream
    view = stream.view(user)
    return view if isolated or not view.tasks else stream.tested_by(user)


def _strategy(strategy: str | type[Strategy]) -> tuple[type[Strategy], str]:
    if isinstance(strategy, str):
        return strategy_of(strategy), strategy
    return strategy, f"{strategy.__module__}:{strategy.__qualname__}"


def _replayable(stream: Stream) -> dict[str, Any] | None:
    recipe = stream.recipe
    return None if recipe is None else {**recipe.as_json(), "place": dict(recipe.place)}


def _place(backbone: str | TimmBackbone) -> str | None:
    if not isinstance(backbone, str):
        return None
    return os.path.abspath(backbone) if backbone.endswith(".toml") else backbone


def _recipe(stream: Stream) -> dict[str, Any]:
    if stream.recipe is not None:
        return stream.recipe.as_json()
    shards = [shard.digest for shard in stream.shards]
    return Recipe("object", {"content": digest_json(shards)}).as_json()


def _values(hyper: Any) -> dict[str, Any]:
    return {name: getattr(hyper, name) for name in type(hyper).__dataclass_fields__}


@dataclass
class Journal:
    """What was learnt and measured, task by task, then segment by segment (`met`). again: predictions on the tasks'
    test sets with the model as it is after the last segment."""

    model: Model = field(default_factory=Model)
    models: list[Model] = field(default_factory=list)
    accuracy: list[list[float | None]] = field(default_factory=list)
    known_task: list[list[float | None]] = field(default_factory=list)
    task_correct: list[list[float | None]] = field(default_factory=list)
    curve: list[float | None] = field(default_factory=list)
    adapters: list[int] = field(default_factory=list)
    parameters: list[int] = field(default_factory=list)
    sizes: list[growth.Size] = field(default_factory=list)
    predictions: dict[str, str] = field(default_factory=dict)
    blocks: Mapping[str, Handle] = field(default_factory=dict)
    met: list[Met] = field(default_factory=list)
    again: list[Handle] = field(default_factory=list)
    inference: dict[str, float] = field(default_factory=dict)

    @property
    def components(self) -> dict[str, str]:
        """Durable parts of the model and predictions: name -> content digest."""
        return {name: part.digest for name, part in self.model.parts} | self.predictions

    @property
    def manifest(self) -> str:
        """One digest over all of them."""
        return digest_json(self.components)


@dataclass(frozen=True)
class Outcome:
    """Of the images of one test shard, those that got the right class, the right one among their own task's classes
    alone, and any class of their own task."""

    images: int
    right: int
    within: int
    task: int


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
        quality = _quality(journal)
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
            **quality,
            "adapters": journal.adapters,
            "parameters_added": _differences(journal.parameters),
            "growth": growth.figures(
                journal.model,
                journal.sizes,
                [task.domain for task in self.stream.tasks],
                quality["average_accuracy"],
            ),
            **_effort(self.builder, self.elapsed()),
            "inference": journal.inference,
            **({"online": self._online(journal)} if journal.met else {}),
            "blocks": {name: _plain(handle) for name, handle in journal.blocks.items()},
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


def _plain(handle: Handle) -> dict[str, Any]:
    """The tensors of a block of figures as JSON, NaN as null."""
    return {name: _nulled(tensor.tolist()) for name, tensor in sorted(handle.open().items())}


def _nulled(value: Any) -> Any:
    if isinstance(value, list):
        return [_nulled(one) for one in value]
    return None if value != value else value


def _differences(totals: list[int]) -> list[int]:
    return [after - before for before, after in zip([0, *totals], totals, strict=False)]


def _quality(journal: Journal) -> dict[str, Any]:
    accuracy, curve = journal.accuracy, journal.curve
    return {
        "accuracy": accuracy,
        "curve": curve,
        # A deletion may leave no task at all, and then there is nothing to measure.
        "average_accuracy": metrics.average_accuracy(accuracy) if accuracy else None,
        "average_incremental_accuracy": metrics.average_incremental_accuracy(curve) if accuracy else None,
        # Where the loss comes from: the right class among the task's own, and a class of the right task at all.
        "known_task_accuracy": journal.known_task,
        "task_correct": journal.task_correct,
        "forgetting": metrics.forgetting(accuracy) if accuracy else None,
        "backward_transfer": metrics.backward_transfer(accuracy) if accuracy else None,
        "forward_transfer": None,
        "intransigence": None,
    }


def _effort(builder: Builder, wall: float) -> dict[str, Any]:
    """Now: components built and reused, images run, seconds. `cost`: what the components cost when they were built."""
    phases = ["train", "statistics", "evaluate"]
    phases += ["adapt"] if any(use.phase == "adapt" for use in builder.uses) else []
    built = {use.key for use in builder.uses if use.built}
    every = {use.key: use for use in reversed(builder.uses)}
    now = [use for use in builder.uses if use.built]
    seconds = {phase: sum(use.seconds for use in now if use.phase == phase) for phase in phases}
    return {
        "components_built": len(built),
        "components_reused": len(every.keys() - built),
        "forward_passes": {phase: sum(use.passes for use in now if use.phase == phase) for phase in phases},
        "seconds": {**seconds, "other": max(0.0, wall - sum(seconds.values()))},
        "cost": {
            phase: {
                "seconds": sum(use.seconds for use in every.values() if use.phase == phase),
                "samples": sum(use.samples for use in every.values() if use.phase == phase),
                "passes": sum(use.passes for use in every.values() if use.phase == phase),
            }
            for phase in phases
        },
    }
