"""Drives a strategy through a stream and records every figure."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cl import metrics, registry
from cl.backbone import TimmBackbone, load_backbone
from cl.build import Builder, Handle
from cl.digests import canonical, digest_json
from cl.errors import CorruptComponent
from cl.evaluate import predictions
from cl.hyper import resolve
from cl.memory import Peak
from cl.numerics import Numerics, configure
from cl.progress import track
from cl.recipes import resolve_stream
from cl.results import Result, Results
from cl.store import Store
from cl.strategy import Model, Strategy
from cl.stream import Recipe, Stream, Task

UNFINISHED = "unfinished"  # a file in the folder of a run that has begun and not ended
RUN_ID = 12  # hexadecimal digits of the request's digest


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


def default_home() -> Path:
    """`PALIMPSEST_HOME`, else `.palimpsest` in the working directory."""
    return Path(os.environ.get("PALIMPSEST_HOME") or ".palimpsest")


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
) -> Result:
    """Run `strategy` over `stream` and return its figures; what the home's store holds is not built again.

    stream, strategy, backbone: names, or objects; stream and backbone may be TOML files. presets, settings:
    hyperparameters by preset, then by name. data: where the files of a stream by name lie, if it has any. Raises
    PalimpsestError (a subclass) with one line for anything that cannot be used.
    """
    start = time.perf_counter()
    peak = Peak()
    numerics = configure(device, threads)
    method, name = _strategy(strategy)
    hyper: Any = resolve(method.Hyper, method.presets, list(presets), settings or {})
    place = Path(home) if home is not None else default_home()
    tasks = resolve_stream(stream, data, place)
    store = Store(place)
    network = load_backbone(backbone, numerics.device) if isinstance(backbone, str) else backbone
    request = Request(_recipe(tasks), name, _values(hyper), network.digest, seed)
    session = _Session(store, network, numerics, request, tasks, method, hyper)
    session.remember_source(backbone)
    journal = session.drive()
    figures = session.figures(journal, list(presets), time.perf_counter() - start, peak.bytes())
    session.save(figures, journal)
    return Result(figures)


def _strategy(strategy: str | type[Strategy]) -> tuple[type[Strategy], str]:
    if isinstance(strategy, str):
        return registry.strategies.get(strategy), strategy
    return strategy, f"{strategy.__module__}:{strategy.__qualname__}"


def _recipe(stream: Stream) -> dict[str, Any]:
    if stream.recipe is not None:
        return stream.recipe.as_json()
    shards = [shard.digest for task in stream.tasks for shard in (task.train, task.test)]
    return Recipe("object", {"content": digest_json(shards)}).as_json()


def _values(hyper: Any) -> dict[str, Any]:
    return {name: getattr(hyper, name) for name in type(hyper).__dataclass_fields__}


@dataclass
class _Journal:
    """What was learnt and measured, task by task."""

    model: Model = field(default_factory=Model)
    accuracy: list[list[float | None]] = field(default_factory=list)
    curve: list[float | None] = field(default_factory=list)
    adapters: list[int] = field(default_factory=list)
    parameters: list[int] = field(default_factory=list)
    predictions: dict[str, str] = field(default_factory=dict)


@dataclass
class _Session:
    """One run in progress."""

    store: Store
    backbone: TimmBackbone
    numerics: Numerics
    request: Request
    stream: Stream
    method: type[Strategy]
    hyper: Any

    def __post_init__(self) -> None:
        self.builder = Builder(self.store, self.backbone, self.numerics, self.request.seed)
        self.folder = self.store.home / "runs" / self.request.id
        if not (self.folder / UNFINISHED).exists():
            self.store.write(self.folder / UNFINISHED, b"")
        self._write("request.json", asdict(self.request))
        self._write("resolution.json", self.stream.resolution())

    def remember_source(self, backbone: str | TimmBackbone) -> None:
        """Keep what makes stream, backbone and arithmetic again on this machine. None of it is part of the run's name:
        the same content at another place is the same run."""
        recipe = self.stream.recipe
        stream = {**recipe.as_json(), "place": dict(recipe.place)} if recipe is not None else None
        name = backbone if isinstance(backbone, str) else None
        if name is not None and name.endswith(".toml"):
            name = os.path.abspath(name)
        machine = {"device": self.numerics.device, "threads": self.numerics.threads}
        self._write("source.json", {"stream": stream, "backbone": name, **machine})

    def drive(self) -> _Journal:
        """Learn and evaluate every task. A damaged component is set aside, and the run goes through the store again."""
        while True:
            try:
                return self._drive()
            except CorruptComponent:
                continue

    def _drive(self) -> _Journal:
        strategy = self.method(self.hyper, self.builder)
        journal = _Journal()
        tasks = self.stream.tasks
        for position, task in enumerate(track(tasks, f"{self.request.strategy} on {self.stream.name}")):
            remaining = len(tasks) - position - 1
            with self.builder.in_phase("learn"):
                journal.model = strategy.extended(journal.model, task, remaining)
            with self.builder.in_phase("evaluate"):
                self._evaluate(strategy, task, journal, measured=strategy.learns(task, remaining))
            journal.adapters.append(sum(part.role == "adapter" for _, part in journal.model.parts))
            journal.parameters.append(sum(part.numel for _, part in journal.model.parts))
        return journal

    def _evaluate(self, strategy: Strategy, after: Task, journal: _Journal, measured: bool) -> None:
        row: list[float | None] = []
        hits = total = 0
        seen, classes = {past.id for past in journal.model.tasks}, list(journal.model.classes)
        for task in self.stream.tasks:
            # A task still to come is measured where its classes are known already (domain-incremental streams).
            known = task.id in seen or not set(classes).isdisjoint(task.classes)
            if not (measured and known and len(task.test)):
                row.append(None)
                continue
            right = self._right(strategy, after, task, journal, classes)
            row.append(right / len(task.test))
            if task.id in seen:
                hits, total = hits + right, total + len(task.test)
        journal.accuracy.append(row)
        journal.curve.append(hits / total if total else None)

    def _right(self, strategy: Strategy, after: Task, task: Task, journal: _Journal, classes: list[str]) -> int:
        scores = strategy.scores(journal.model, task.test)
        name = f"{after.id}/predictions/{task.id}"
        handle = self.builder.component(name, predictions, task.test, scores, classes=classes)
        journal.predictions[name] = handle.sole.digest
        found = handle.open()
        return int((found["predicted"] == found["target"]).sum())

    def figures(self, journal: _Journal, presets: list[str], wall: float, peak: int) -> dict[str, Any]:
        """Every figure of the run, as plain JSON."""
        components = {name: part.digest for name, part in journal.model.parts} | journal.predictions
        return {
            "run": self.request.id,
            "stream": self.stream.name,
            "strategy": self.request.strategy,
            "seed": self.request.seed,
            "backbone": self.backbone.name,
            "presets": presets,
            "hyper": dict(self.request.hyper),
            "tasks": [
                {"id": task.id, "classes": list(task.classes), "domain": task.domain} for task in self.stream.tasks
            ],
            "classes_per_task": [len(task.classes) for task in self.stream.tasks],
            **_quality(journal),
            "adapters": journal.adapters,
            "parameters_added": _differences(journal.parameters),
            **_effort(self.builder, wall),
            "peak_memory_bytes": peak,
            "manifest": digest_json(components),
            "components": dict(sorted(components.items())),
            "notes": list(self.stream.notes),
            "subjects": _subjects(self.stream),
            "numerics": self.numerics.as_json(),
            "warnings": list(self.store.warnings),
            "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        }

    def save(self, figures: Mapping[str, Any], journal: _Journal) -> None:
        """Write the manifest and switch the run to it, then record the figures."""
        manifest = {
            "entries": {name: _entry(handle) for name, handle in journal.model.entries.items()},
            "components": figures["components"],
            "manifest": figures["manifest"],
            "uses": sorted({(use.name, use.key) for use in self.builder.uses}),
        }
        self._write("manifest.json", manifest)
        Results(self.store.home).save(figures)
        (self.folder / UNFINISHED).unlink(missing_ok=True)

    def _write(self, name: str, content: Any) -> None:
        data = canonical(content)
        path = self.folder / name
        if not path.exists() or path.read_bytes() != data:
            self.store.write(path, data)


def _subjects(stream: Stream) -> str | None:
    if not stream.subjects:
        return None
    return "synthetic, by stable hash" if any("synthetic" in note for note in stream.notes) else "as the data name them"


def _entry(handle: Handle) -> dict[str, Any]:
    return {"key": handle.key, "parts": {name: part.digest for name, part in handle.parts.items()}}


def _differences(totals: list[int]) -> list[int]:
    return [after - before for before, after in zip([0, *totals], totals, strict=False)]


def _quality(journal: _Journal) -> dict[str, Any]:
    accuracy, curve = journal.accuracy, journal.curve
    return {
        "accuracy": accuracy,
        "curve": curve,
        "average_accuracy": metrics.average_accuracy(accuracy),
        "average_incremental_accuracy": metrics.average_incremental_accuracy(curve),
        "forgetting": metrics.forgetting(accuracy),
        "backward_transfer": metrics.backward_transfer(accuracy),
        "forward_transfer": None,
        "intransigence": None,
    }


def _effort(builder: Builder, wall: float) -> dict[str, Any]:
    """Now: components built and reused, images run, seconds. `cost`: what the components cost when they were built."""
    phases = ("train", "statistics", "evaluate")
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
