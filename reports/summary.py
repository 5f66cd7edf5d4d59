"""Figures of runs, summed up over seeds: what each metric means, means and spreads, ranking, paired differences.

A run is a mapping that JSON can carry; accuracies in it are fractions. Any of its figures may be null or absent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from cl.errors import UnknownName
from reports.columns import METRICS, Metric, RunFigures


def aggregate(runs: Sequence[RunFigures]) -> list[dict[str, Any]]:
    """One row per strategy, best first: `{"strategy": str, "metrics": {name: {"mean", "std", "n"}}}`.

    Mean and sample standard deviation (ddof 1; None below two seeds) over the runs that have the figure; n counts
    them. Rows are ranked by `ranking_metric`, then by average accuracy; a strategy without figures comes last.
    """
    rows = [
        {"strategy": name, "metrics": {metric.name: _summary(map(metric.read, group)) for metric in METRICS.values()}}
        for name, group in by_strategy(runs).items()
    ]
    merit = _merit(rows)
    return sorted(rows, key=lambda row: (*merit(row), row["strategy"]))


def places(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The place of each of the rows of `aggregate`; those that nothing sets apart share one."""
    merits = list(map(_merit(rows), rows))
    return [1 + merits.index(one) for one in merits]


def _merit(rows: Sequence[Mapping[str, Any]]) -> Callable[[Mapping[str, Any]], tuple[float, ...]]:
    """What a row is ranked by, the least first."""
    keys = [METRICS[ranking_metric(rows)], METRICS["average_accuracy"]]

    def merit(row: Mapping[str, Any]) -> tuple[float, ...]:
        means = ((row["metrics"][key.name]["mean"], key.better) for key in keys)
        return tuple(math.inf if m is None else m if better == "lower" else -m for m, better in means)

    return merit


def ranking_metric(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean online error where all strategies met segments at test time. Else average incremental accuracy; average
    accuracy if some strategy (joint, trained last) has no incremental one."""
    if all(row["metrics"]["mean_error"]["n"] for row in rows):
        return "mean_error"
    incremental = "average_incremental_accuracy"
    return incremental if all(row["metrics"][incremental]["n"] for row in rows) else "average_accuracy"


def paired_differences(runs: Sequence[RunFigures], metric: str, reference: str) -> list[dict[str, Any]]:
    """Each other strategy less `reference`, seed by seed, in the order of `aggregate`.

    Rows are `{"strategy", "differences": {seed: float}, "mean", "std", "n"}`; n counts the seeds that both have (a seed
    run twice counts once, by its mean). Raises UnknownName for a metric or a reference that is not there.
    """
    if metric not in METRICS:
        raise UnknownName("metric", metric, METRICS)
    groups = by_strategy(runs)
    if reference not in groups:
        raise UnknownName("strategy", reference, groups)
    base = _by_seed(groups[reference], METRICS[metric])
    rows = []
    for name in (row["strategy"] for row in aggregate(runs) if row["strategy"] != reference):
        values = _by_seed(groups[name], METRICS[metric])
        differences = {seed: values[seed] - base[seed] for seed in sorted(values.keys() & base.keys())}
        rows.append({"strategy": name, "differences": differences, **_summary(differences.values())})
    return rows


def by_strategy(runs: Sequence[RunFigures]) -> dict[str, list[RunFigures]]:
    return {name: [run for run in runs if run["strategy"] == name] for name in sorted({r["strategy"] for r in runs})}


def _by_seed(runs: Sequence[RunFigures], metric: Metric) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for run in runs:
        if (value := metric.read(run)) is not None:
            values.setdefault(run["seed"], []).append(value)
    return {seed: float(np.mean(several)) for seed, several in values.items()}


def _summary(values: Iterable[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "n": len(known),
    }
