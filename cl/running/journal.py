"""What a session learnt and measured, and the figures made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cl import metrics
from cl.components.builder import Builder
from cl.components.handles import Handle
from cl.digests import digest_json
from cl.learning.strategy import Model
from cl.running.growth_figures import Size
from cl.running.online import ScoredPiece


@dataclass
class Journal:
    """What was learnt and measured, task by task, then segment by segment (`pieces`). again: predictions on the tasks'
    test sets with the model as it is after the last segment."""

    model: Model = field(default_factory=Model)
    models: list[Model] = field(default_factory=list)
    accuracy: list[list[float | None]] = field(default_factory=list)
    known_task: list[list[float | None]] = field(default_factory=list)
    task_correct: list[list[float | None]] = field(default_factory=list)
    curve: list[float | None] = field(default_factory=list)
    adapters: list[int] = field(default_factory=list)
    parameters: list[int] = field(default_factory=list)
    sizes: list[Size] = field(default_factory=list)
    predictions: dict[str, str] = field(default_factory=dict)
    blocks: Mapping[str, Handle] = field(default_factory=dict)
    pieces: list[ScoredPiece] = field(default_factory=list)
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
class Tally:
    """Of the images of one test shard, those that got the right class, the right one among their own task's classes
    alone, and any class of their own task."""

    images: int
    right: int
    within: int
    task: int


def as_lists(handle: Handle) -> dict[str, Any]:
    """The tensors of a block of figures as JSON, NaN as null."""
    return {name: _nulled(tensor.tolist()) for name, tensor in sorted(handle.open().items())}


def _nulled(value: Any) -> Any:
    if isinstance(value, list):
        return [_nulled(one) for one in value]
    return None if value != value else value


def differences(totals: list[int]) -> list[int]:
    return [after - before for before, after in zip([0, *totals], totals, strict=False)]


def quality(journal: Journal) -> dict[str, Any]:
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


def effort(builder: Builder, wall: float) -> dict[str, Any]:
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
