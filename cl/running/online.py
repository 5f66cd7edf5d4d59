"""The part of a run that happens at test time: segments arrive, are scored and learnt from, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from cl import online_metrics as metrics
from cl.components.builder import Builder
from cl.components.handles import Handle, Part
from cl.data.stream import Segment
from cl.data.veil import veil
from cl.home.store import Tensors
from cl.learning.strategy import Adaptation, Model, Strategy
from cl.progress import track
from cl.running.predictions import online_predictions


@dataclass(frozen=True)
class Met:
    """A piece of segment `segment` once it was scored. judged: predictions against labels, in the order of ids."""

    segment: Segment
    piece: Segment
    judged: Handle
    evidence: Part | None


def adaptations(
    strategy: Strategy, builder: Builder, model: Model, segments: Sequence[Segment], label: str
) -> Iterator[tuple[Segment, Segment, Adaptation, Model]]:
    """Hand the segments to the strategy, piece by piece: (segment, piece, what it came to, the model from then on)."""
    learnt = model
    for segment in track(segments, label):
        model = learnt if strategy.forgets_segments else model
        for piece in segment.pieces(strategy.batches_kept):
            with builder.in_phase("adapt"), builder.at(piece.id):
                found = strategy.adapt(model, veil(piece))
            model = model.with_entries(found.entries)
            yield segment, piece, found, model


def judge(builder: Builder, segment: Segment, piece: Segment, found: Adaptation, classes: list[str]) -> Met:
    """Compare the scores of a piece with its labels, which only this reads."""
    with builder.in_phase("evaluate"), builder.at(piece.id):
        judged = builder.component("predictions", online_predictions, piece.samples, found.scores, classes=classes)
    return Met(segment, piece, judged, found.evidence)


def online_figures(
    met: Sequence[Met], before: float | None, after: float | None, cost: Mapping[str, float]
) -> dict[str, Any]:
    """What a run at test time records beside the common figures, as plain JSON.

    before, after: error on the clean test set with the source model and with the model at the end. cost: seconds and
    passes of all that was built to adapt.
    """
    segments = _by_segment(met)
    errors = {name: metrics.error(rows) for name, rows in segments.items()}
    domains = {one.segment.id: one.segment.domain for one in met}
    images = sum(len(one.piece) for one in met)
    batches = _batches(met)
    return {
        "online_error": errors,
        "mean_error": metrics.mean(errors.values()),
        "source_error_before": before,
        "source_error_after": after,
        "recurrence": metrics.recurrence(list(errors.values()), list(domains.values())),
        "updates": int(sum(value or 0 for value in batches.get("updated", ()))),
        "test_time": {
            "segments": [_segment(name, domains[name], rows) for name, rows in segments.items()],
            "sample_error": metrics.error(_joined(list(segments.values()))),
            "domain_error": metrics.by_domain(list(errors.values()), list(domains.values())),
            "calibration": metrics.calibration(_joined(list(segments.values()))),
            "batches": batches,
            "images": images,
            "per_image": {name: value / images for name, value in cost.items()} if images else {},
        },
    }


def _by_segment(met: Sequence[Met]) -> dict[str, Tensors]:
    """The judged rows of each segment, in order of arrival of the pieces."""
    pieces: dict[str, list[Tensors]] = {}
    for one in met:
        pieces.setdefault(one.segment.id, []).append(one.judged.open())
    return {name: _joined(parts) for name, parts in pieces.items()}


def _joined(parts: Sequence[Tensors]) -> Tensors:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _segment(name: str, domain: str, rows: Tensors) -> dict[str, Any]:
    return {"id": name, "domain": domain, "images": len(rows["target"]), **metrics.calibration(rows)}


def _batches(met: Sequence[Met]) -> dict[str, list[Any]]:
    """What was recorded of every batch, in order of arrival: its segment, size and error, and the method's evidence."""
    found: dict[str, list[Any]] = {"segment": [], "images": [], "error": []}
    for one in met:
        wrong = _wrong(one)
        for batch in one.piece.batches.values():
            found["segment"].append(one.segment.id)
            found["images"].append(len(batch))
            found["error"].append(sum(wrong[sample] for sample in batch.ids) / len(batch))
        for name, values in (one.evidence.open() if one.evidence else {}).items():
            found.setdefault(name, []).extend(None if value != value else value for value in values.tolist())
    return found


def _wrong(one: Met) -> dict[str, bool]:
    rows = one.judged.open()
    wrong = (rows["predicted"] != rows["target"]).tolist()
    return dict(zip(one.piece.samples.ids, wrong, strict=True))
