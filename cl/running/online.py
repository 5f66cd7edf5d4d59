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
class ScoredPiece:
    """A piece of segment `segment` once it was scored. judged: predictions against labels, in the order of ids."""

    segment: Segment
    piece: Segment
    judged: Handle
    evidence: Part | None


@dataclass(frozen=True)
class AdaptedPiece:
    """A piece of segment `segment`, what the strategy made of it, and the model from then on."""

    segment: Segment
    piece: Segment
    adaptation: Adaptation
    model: Model


def adaptations(
    strategy: Strategy, builder: Builder, model: Model, segments: Sequence[Segment], label: str
) -> Iterator[AdaptedPiece]:
    """Hand the segments to the strategy, piece by piece."""
    learnt = model
    for segment in track(segments, label):
        model = learnt if strategy.forgets_segments else model
        for piece in segment.pieces(strategy.batches_kept):
            with builder.in_phase("adapt"), builder.at(piece.id):
                adaptation = strategy.adapt(model, veil(piece))
            model = model.with_entries(adaptation.entries)
            yield AdaptedPiece(segment, piece, adaptation, model)


def judge(builder: Builder, one: AdaptedPiece, classes: list[str]) -> ScoredPiece:
    """Compare the scores of a piece with its labels, which only this reads."""
    scores = one.adaptation.scores
    with builder.in_phase("evaluate"), builder.at(one.piece.id):
        judged = builder.component("predictions", online_predictions, one.piece.samples, scores, classes=classes)
    return ScoredPiece(one.segment, one.piece, judged, one.adaptation.evidence)


def online_figures(
    pieces: Sequence[ScoredPiece], before: float | None, after: float | None, cost: Mapping[str, float]
) -> dict[str, Any]:
    """What a run at test time records beside the common figures, as plain JSON.

    before, after: error on the clean test set with the source model and with the model at the end. cost: seconds and
    passes of all that was built to adapt.
    """
    segments = _by_segment(pieces)
    errors = {name: metrics.error(rows) for name, rows in segments.items()}
    domains = {one.segment.id: one.segment.domain for one in pieces}
    images = sum(len(one.piece) for one in pieces)
    batches = _batches(pieces)
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


def _by_segment(pieces: Sequence[ScoredPiece]) -> dict[str, Tensors]:
    """The judged rows of each segment, in order of arrival of the pieces."""
    rows: dict[str, list[Tensors]] = {}
    for one in pieces:
        rows.setdefault(one.segment.id, []).append(one.judged.open())
    return {name: _joined(parts) for name, parts in rows.items()}


def _joined(parts: Sequence[Tensors]) -> Tensors:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _segment(name: str, domain: str, rows: Tensors) -> dict[str, Any]:
    return {"id": name, "domain": domain, "images": len(rows["target"]), **metrics.calibration(rows)}


def _batches(pieces: Sequence[ScoredPiece]) -> dict[str, list[Any]]:
    """What was recorded of every batch, in order of arrival: its segment, size and error, and the method's evidence."""
    found: dict[str, list[Any]] = {"segment": [], "images": [], "error": []}
    for one in pieces:
        wrong = _wrong(one)
        for batch in one.piece.batches.values():
            found["segment"].append(one.segment.id)
            found["images"].append(len(batch))
            found["error"].append(sum(wrong[sample] for sample in batch.ids) / len(batch))
        for name, values in (one.evidence.open() if one.evidence else {}).items():
            found.setdefault(name, []).extend(None if value != value else value for value in values.tolist())
    return found


def _wrong(one: ScoredPiece) -> dict[str, bool]:
    rows = one.judged.open()
    wrong = (rows["predicted"] != rows["target"]).tolist()
    return dict(zip(one.piece.samples.ids, wrong, strict=True))
