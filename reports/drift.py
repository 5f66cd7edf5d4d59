"""Test time on the comparison page: errors by segment, recurrence, and what methods told of batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from markupsafe import Markup

from cl.online_metrics import stability
from reports import figures
from reports.columns import Entry, RunFigures
from reports.figures import Frame, Series
from reports.quantities import QuantityKind

Reader = Callable[[Mapping[str, Any]], Sequence[float | None]]

# What methods may tell of each batch, where the page draws it.
EVIDENCE = {
    "uncertainty": "Uncertainty of each batch",
    "lambda_high": "Factor of the wide branch",
    "lambda_low": "Factor of the narrow branch",
    "above": "Share above the threshold",
    "kept": "Share of images learnt from",
}
WINDOW = 120  # points that a line over batches has at most; more are averaged


def of(run: RunFigures) -> Mapping[str, Any] | None:
    """What the run recorded at test time."""
    return run.get("online")


def drawings(strategies: Sequence[Entry]) -> dict[str, Any]:
    """Errors by segment, recurrence and evidence, as drawings; the ids of the segments."""
    online = [told for entry in strategies for run in entry["runs"] if (told := of(run))]
    if not online:
        return {}
    evidence = [(title, _over_batches(strategies, name)) for name, title in EVIDENCE.items()]
    return {
        "segments": list(online[0]["online_error"]),
        "errors": _lines(
            "online-error", strategies, lambda online: list(online["online_error"].values()), "percent", "segment", 1040
        ),
        "recurrence": _lines(
            "recurrence",
            strategies,
            lambda online: [0.0, *online["recurrence"]] if online["recurrence"] else [],
            "points",
            "visit",
            1040,
        ),
        "evidence": [(title, drawing) for title, drawing in evidence if drawing],
        "beside": [told for entry in strategies if (told := _beside(entry, strategies))],
    }


def _beside(entry: Entry, strategies: Sequence[Entry]) -> dict[str, Any] | None:
    """How a strategy that learns stood batch by batch beside its own weights not adapted (`NAME-static`), or else the
    source: the strategy, its reference, and the mean of each figure over the seeds that both have."""
    known = {one["strategy"]: {run["seed"]: _batches(run) for run in one["runs"]} for one in strategies}
    name = entry["strategy"]
    reference = next((other for other in (f"{name}-static", "source") if other in known), None)
    if reference is None or not any((of(run) or {}).get("updates") for run in entry["runs"]):
        return None
    found = [
        stability(mine["error"], theirs["error"], mine["images"])
        for seed, mine in known[name].items()
        if mine and (theirs := known[reference].get(seed)) and theirs["images"] == mine["images"]
    ]
    if not found:
        return None
    collapses = [int(one["collapse"]) for one in found if one["collapse"]]
    means = {figure: fmean(one[figure] or 0.0 for one in found) for figure in ("above", "longest")}
    return {**entry, **means, "reference": reference, "compared": len(found), "collapses": collapses}


def _batches(run: RunFigures) -> Mapping[str, Any] | None:
    """What the run tells of its batches, if errors are among it."""
    told = (of(run) or {}).get("test_time", {}).get("batches", {})
    return told if told.get("error") else None


def _over_batches(strategies: Sequence[Entry], name: str) -> Markup | None:
    def read(online: Mapping[str, Any]) -> Sequence[float | None]:
        return _thinned(online["test_time"]["batches"].get(name, []))

    return _lines(f"batches-{name}", strategies, read, "ratio", "part of the stream", 500)


def _thinned(values: Sequence[float | None]) -> list[float]:
    """Means over neighbouring batches, so that at most `WINDOW` points are left."""
    array = np.array(values, dtype=float)
    parts = np.array_split(array, min(len(array), WINDOW)) if len(array) else []
    return [float(np.mean(known)) if len(known := part[np.isfinite(part)]) else np.nan for part in parts]


def _lines(
    name: str, strategies: Sequence[Entry], read: Reader, kind: QuantityKind, place: str, width: int
) -> Markup | None:
    found = [series for entry in strategies if (series := _series(entry, read)) is not None]
    if not found:
        return None
    frame = Frame(width, 320, from_zero=False, axis=place, place=place)
    return figures.lines(name, found, kind, name.replace("-", " "), frame)


def _series(entry: Entry, read: Reader) -> Series | None:
    """Mean and sample standard deviation over the strategy's runs; None where fewer than two places were measured."""
    rows = [read(online) for run in entry["runs"] if (online := of(run))]
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        return None
    table = np.full((len(rows), max(map(len, rows))), np.nan)
    for slot, row in zip(table, rows, strict=True):
        slot[: len(row)] = np.array(row, dtype=float)
    held = np.ma.masked_invalid(table)
    if held.count(axis=0).max() == 0:
        return None
    mean = np.ma.filled(held.mean(axis=0), np.nan)
    spread = np.ma.filled(held.std(axis=0, ddof=1), np.nan) if len(rows) > 1 else np.full_like(mean, np.nan)
    return Series(entry["strategy"], entry["index"], mean, spread)
