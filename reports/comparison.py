"""The comparison page: what several strategies reached on one stream, at what cost, in one HTML file.

A run is a mapping that JSON can carry. Accuracies are fractions; `accuracy` is a T x T list of lists (row t: after task
t; null where not measured); `curve`, `adapters` and `parameters_added` have length T. Any figure may be null or absent.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from cl.errors import BadInput
from cl.metrics import forgetting_per_task
from reports import drift, figures, growth
from reports.columns import COST, GROWTH, LEARNING, METRICS, ONLINE, Entry, Metric, RunFigures
from reports.figures import Frame, Series
from reports.pages import environment, write_page
from reports.palette import DARK, LIGHT
from reports.quantities import QuantityKind
from reports.summary import aggregate as aggregate
from reports.summary import by_strategy, places, ranking_metric
from reports.summary import paired_differences as paired_differences

RunStack = np.ma.MaskedArray[Any, Any]

# A preset's name says how a run was made; these words say what it means for the figures.
_PRESET_MEANING = {"quick": "few epochs, so figures lie below what the methods can reach"}


def write_comparison(
    runs: Sequence[RunFigures],
    out: Path,
    *,
    title: str,
    notes: Sequence[str] = (),
    links: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write the page about `runs` to `out`, whole or not at all, and return `out`.

    The page needs nothing but itself. `notes` are paragraphs above the results; `links` are (text, address) of other
    pages. The same runs, in any order, give the same bytes. Raises BadInput without runs or if `out` cannot be written.
    """
    if not runs:
        raise BadInput("no runs to compare; name at least one")
    ordered = sorted(runs, key=lambda run: (run["strategy"], run["seed"], run["run"]))
    page = environment().get_template("comparison.html.j2")
    html = page.render(title=title, notes=[*notes, *_cautions(ordered)], links=links, **_contents(ordered))
    write_page(out, html)
    return out


def _contents(runs: Sequence[RunFigures]) -> dict[str, Any]:
    """Everything that the template names, beside what the caller gave."""
    rows = aggregate(runs)
    groups, phases = by_strategy(runs), _phases(runs)
    ranking = METRICS[ranking_metric(rows)]
    strategies = [
        {
            **row,
            "place": place,
            "index": sorted(groups).index(row["strategy"]),  # Alphabetical: a colour does not hang on the ranking.
            "runs": groups[row["strategy"]],
            "built": sum(run.get("components_built") or 0 for run in groups[row["strategy"]]),
            "reused": sum(run.get("components_reused") or 0 for run in groups[row["strategy"]]),
            "spent": sum(sum((run.get("seconds") or {}).values()) for run in groups[row["strategy"]]),
        }
        for row, place in zip(rows, places(rows), strict=True)
    ]
    return {
        "strategies": strategies,
        "scope": _scope(runs),
        "hyper": _hyperparameters(strategies),
        "ranking": ranking,
        "learning": _measured(LEARNING if ranking in LEARNING else (ranking, *LEARNING), rows),
        "growth": _measured(GROWTH, rows),
        "panels": growth.panels(strategies),
        "costs": _measured(COST, rows),
        "online": {**_measured(ONLINE, rows), **drift.drawings(strategies)},
        "metrics": {name: one for name, one in METRICS.items() if one not in ONLINE or any(map(drift.of, runs))},
        "pairs": _pairs(runs, rows),
        "matrices": _matrices(strategies),
        "phases": phases,
        "figures": _figures(strategies, phases),
        "tokens": {"light": LIGHT, "dark": DARK},
        "runs": runs,
    }


def _measured(metrics: Sequence[Metric], rows: Sequence[Entry]) -> dict[str, list[Metric]]:
    """`shown`: what at least one strategy has; `absent`: the rest, which the page names instead of showing."""
    has = {metric.name: any(row["metrics"][metric.name]["n"] for row in rows) for metric in metrics}
    return {
        "shown": [metric for metric in metrics if has[metric.name]],
        "absent": [metric for metric in metrics if not has[metric.name]],
    }


def _distinct(values: Iterable[Any]) -> list[Any]:
    """The values in order of first appearance, without null and without repeats."""
    return list(dict.fromkeys(value for value in values if value is not None))


def _scope(runs: Sequence[RunFigures]) -> dict[str, Any]:
    streams = {run["stream"]: run for run in runs}
    return {
        "streams": [{"name": name, "extent": _extent(run), "tasks": run["tasks"]} for name, run in streams.items()],
        "backbones": _distinct(run.get("backbone") for run in runs),
        "seeds": sorted({run["seed"] for run in runs}),
        "presets": _presets(runs),
    }


def _presets(runs: Sequence[RunFigures]) -> list[dict[str, Any]]:
    """Each preset with its meaning, if known, and the strategies that it holds for, if not for all."""
    used: dict[str, set[str]] = {}
    for run in runs:
        for preset in run.get("presets") or ():
            used.setdefault(preset, set()).add(run["strategy"])
    everyone = {run["strategy"] for run in runs}
    return [
        {
            "name": preset,
            "meaning": _PRESET_MEANING.get(preset),
            "strategies": [] if strategies == everyone else sorted(strategies),
        }
        for preset, strategies in sorted(used.items())
    ]


def _extent(run: RunFigures) -> str:
    """Tasks and classes of the run's stream in words. In a domain stream tasks share classes, which is then said."""
    sizes = run["classes_per_task"]
    classes = {name for task in run["tasks"] for name in task["classes"]}
    each = f"{min(sizes)}" if min(sizes) == max(sizes) else f"{min(sizes)}–{max(sizes)}"
    text = f"{_counted(len(run['tasks']), 'task')}, {_counted(len(classes), 'class', 'classes')}"
    if len(run["tasks"]) == 1:
        return text
    if all(set(task["classes"]) == classes for task in run["tasks"]):
        return f"{text}, the same in each task"
    return f"{text}, {each} in each task" + (", some shared between tasks" if sum(sizes) > len(classes) else "")


def _counted(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _cautions(runs: Sequence[RunFigures]) -> list[str]:
    """What a reader must know before trusting the ranking: runs that differ in more than strategy and seed."""
    cautions = []
    for name in ("stream", "backbone"):
        values = _distinct(run.get(name) for run in runs)
        if len(values) > 1:
            cautions.append(f"Caution: not a fair comparison, for the runs differ in {name} ({', '.join(values)}).")
    for strategy, group in by_strategy(runs).items():
        if len({json.dumps(run.get("hyper"), sort_keys=True) for run in group}) > 1:
            cautions.append(f"Caution: the runs of {strategy} differ in hyperparameters; its mean and spread mix them.")
        repeated = [seed for seed, count in Counter(run["seed"] for run in group).items() if count > 1]
        if repeated:
            seeds = ", ".join(map(str, repeated))
            cautions.append(f"Caution: {strategy} has several runs with seed {seeds}; its mean and spread count each.")
    return cautions


def _hyperparameters(strategies: Sequence[Entry]) -> dict[str, Any]:
    """`shared`: name and value where all strategies agree; `own`: the rest by strategy, several values joined."""
    values: dict[str, dict[str, str]] = {}
    for entry in strategies:
        named = [run.get("hyper") or {} for run in entry["runs"]]
        values[entry["strategy"]] = {
            name: " / ".join(_distinct(_plain(hyper[name]) for hyper in named if name in hyper))
            for name in sorted({name for hyper in named for name in hyper})
        }
    common = set.intersection(*(set(named.items()) for named in values.values()))
    shared = dict(sorted(common)) if len(values) > 1 else {}
    own = {
        strategy: {name: value for name, value in named.items() if name not in shared}
        for strategy, named in values.items()
    }
    return {"shared": shared, "own": {strategy: named for strategy, named in own.items() if named}}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _pairs(runs: Sequence[RunFigures], rows: Sequence[Entry]) -> dict[str, Any]:
    """The differences to each possible reference, and the largest of all, which sets the scale of the dots."""
    metric = ranking_metric(rows)
    tables = {row["strategy"]: paired_differences(runs, metric, row["strategy"]) for row in rows}
    sizes = [abs(value) for table in tables.values() for row in table for value in row["differences"].values()]
    return {"tables": tables if sizes else {}, "largest": max(sizes, default=0) or 1}


def _stack(lists: Iterable[Sequence[Any] | None]) -> RunStack:
    """The lists of several runs as one array (runs, ...), masked where a run has no number."""
    arrays = [np.array(values, dtype=float) for values in lists if values]
    shape = np.max([array.shape for array in arrays], axis=0) if arrays else (0,)
    stack = np.full((len(arrays) or 1, *shape), np.nan)
    for slot, array in zip(stack, arrays, strict=False):
        slot[tuple(map(slice, array.shape))] = array
    return np.ma.masked_invalid(stack)


def _series(entry: Entry, stack: RunStack) -> Series:
    """Mean and sample standard deviation of `stack` over its first axis, NaN where there is none."""
    mean = np.ma.filled(stack.mean(axis=0), np.nan)
    spread = np.ma.filled(stack.std(axis=0, ddof=1), np.nan) if len(stack) > 1 else np.full_like(mean, np.nan)
    return Series(entry["strategy"], entry["index"], mean, spread)


def _matrices(strategies: Sequence[Entry]) -> dict[str, Any]:
    """Mean accuracy matrices by strategy (None where blank), with the range that their shades span together."""
    series = (_series(entry, _stack(run.get("accuracy") for run in entry["runs"])) for entry in strategies)
    means = {one.label: one.mean for one in series if one.mean.ndim == 2}
    values = np.concatenate([np.zeros(0), *(mean[np.isfinite(mean)] for mean in means.values())])
    low, high = (float(values.min()), float(values.max())) if len(np.unique(values)) > 1 else (0.0, 1.0)
    return {
        "low": low,
        "high": high,
        "cells": {
            name: [[float(cell) if np.isfinite(cell) else None for cell in row] for row in mean]
            for name, mean in means.items()
        },
    }


def _phases(runs: Sequence[RunFigures]) -> list[str]:
    """The phases that cost something, the longest first."""
    seconds: Counter[str] = Counter()
    for run in runs:
        seconds.update({name: phase.get("seconds") or 0 for name, phase in (run.get("cost") or {}).items()})
    return sorted(seconds, key=lambda name: (-seconds[name], name))


def _adapters(run: RunFigures) -> Any:
    """Adapters after each task, those of each layer counted by themselves where that is known."""
    layers = (run.get("growth") or {}).get("adapters")
    return [sum(row) for row in layers] if layers else run.get("adapters")


def _figures(strategies: Sequence[Entry], phases: Sequence[str]) -> dict[str, Any]:
    """All drawings by name; nothing where no run has the figures for it."""
    curves = _per_task(strategies, lambda run: run.get("curve"))
    adapters = _per_task(strategies, _adapters)
    added = _per_task(strategies, lambda run: list(accumulate(run.get("parameters_added") or ())))
    return {
        "curve": _lines("curve", curves, "percent", "Accuracy", width=1040, height=430),
        "curve_narrow": _lines("curve-narrow", curves, "percent", "Accuracy", width=400, height=360),
        "adapters": _lines("adapters", adapters, "number", "Adapters", width=500, height=280),
        "added": _lines("added", added, "count", "Parameters added", width=500, height=280),
        "forgetting": _forgetting_panels(strategies),
        "backward": _seed_dots(strategies, METRICS["backward_transfer"]),
        "forward": _seed_dots(strategies, METRICS["forward_transfer"]),
        "seconds": _cost_bars(strategies, phases, "seconds", "seconds", "Time"),
        "passes": _cost_bars(strategies, phases, "passes", "count", "Forward passes"),
    }


def _per_task(strategies: Sequence[Entry], read: Callable[[RunFigures], Sequence[Any] | None]) -> list[Series]:
    """What `read` finds in the runs, one number per task, for each strategy that has any."""
    series = (_series(entry, _stack(map(read, entry["runs"]))) for entry in strategies)
    return [one for one in series if np.isfinite(one.mean).any()]


def _lines(
    name: str, series: Sequence[Series], kind: QuantityKind, what: str, *, width: int, height: int
) -> Markup | None:
    if all(len(one.mean) < 2 for one in series):
        return None  # A single task is told by the tables already.
    return figures.lines(name, series, kind, what, Frame(width, height, from_zero=kind != "percent"))


def _forgetting_panels(strategies: Sequence[Entry]) -> list[dict[str, Any]]:
    """A small bar chart for each strategy whose forgetting can be told, all with one vertical range."""
    series = _per_task(strategies, lambda run: forgetting_per_task(run["accuracy"]) if run.get("accuracy") else None)
    if not series:
        return []
    ends = np.concatenate([one.mean + sign * np.nan_to_num(one.spread) for one in series for sign in (-1, 1)])
    limits = (min(0.0, float(np.nanmin(ends))), max(0.01, float(np.nanmax(ends))) * 1.05)
    return [
        {
            "strategy": one.label,
            "index": one.index,
            "drawing": figures.task_bars(f"forgetting-{one.index}", one, limits, width=200, height=116),
        }
        for one in series
    ]


def _seed_dots(strategies: Sequence[Entry], metric: Metric) -> Markup | None:
    series, samples = [], []
    for entry in strategies:
        values = [value for run in entry["runs"] if (value := metric.read(run)) is not None]
        if values:
            series.append(_series(entry, np.ma.array(values)))
            samples.append(np.array(values))
    return figures.dots(metric.name, series, samples, metric.title, width=500) if series else None


def _cost_bars(
    strategies: Sequence[Entry], phases: Sequence[str], item: str, kind: QuantityKind, what: str
) -> Markup | None:
    """Seconds or passes of each phase, mean over runs; a phase that a run does not have cost it nothing."""
    series = []
    for entry in strategies:
        costs = [run["cost"] for run in entry["runs"] if run.get("cost")]
        if costs:
            amounts = [[(cost.get(phase) or {}).get(item) or 0 for phase in phases] for cost in costs]
            series.append(_series(entry, np.ma.array(amounts, dtype=float)))
    return figures.stacked_bars(item, series, phases, kind, what, width=500) if series else None
