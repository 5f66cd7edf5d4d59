"""How models grew, for the comparison page: adapters by layer, what decided on them, and what the router mixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from reports import figures
from reports.columns import Entry, RunFigures
from reports.quantities import quantity

GridCell = dict[str, Any]  # `value`: shade and text; `tip`: what the pointer is told
Grid = dict[str, Any]  # `columns` and `rows` of cells, each row with its `head`; `high`: the value of the deepest shade


def panels(strategies: Sequence[Entry]) -> list[dict[str, Any]]:
    """For each strategy with adapters, its growth at its lowest seed: grid, signals and routing."""
    found = []
    for entry in strategies:
        run = min(entry["runs"], key=lambda one: one["seed"])
        growth = run.get("growth")
        if growth and any(map(any, growth["adapters"])):
            routing = growth["routing"] if growth["decisions"] else []
            found.append(
                {
                    "strategy": entry["strategy"],
                    "index": entry["index"],
                    "seed": run["seed"],
                    "exponents": _exponents(growth),
                    "layers": _layers(growth["adapters"]),
                    "signals": _signals(entry["index"], growth["decisions"], run),
                    "routing": [_routing(routing, block, run) for block in sorted({one["block"] for one in routing})],
                }
            )
    return found


def _exponents(growth: Mapping[str, Any]) -> str:
    """The growth exponents with their intervals, in words."""
    told = []
    for name, title in (("growth_exponent", "growth exponent"), ("expansion_exponent", "expansion exponent")):
        found = growth.get(name)
        if found:
            low, high = quantity(found["low"], "ratio"), quantity(found["high"], "ratio")
            told.append(f"{title} {quantity(found['slope'], 'ratio')} [{low}, {high}]")
    return ", ".join(told)


def _layers(adapters: Sequence[Sequence[int]]) -> Grid:
    """One row a layer, the deepest first; one column a task."""
    rows = [
        {"head": str(layer + 1), "cells": [_count(layer, task, value) for task, value in enumerate(column)]}
        for layer, column in enumerate(zip(*adapters, strict=True))
    ]
    return {"columns": len(adapters), "rows": rows[::-1], "high": max(map(max, adapters))}


def _count(layer: int, task: int, value: int) -> GridCell:
    return {"value": value, "text": str(value), "tip": f"layer {layer + 1}, after task {task + 1}: {value}"}


def _routing(routing: Sequence[Mapping[str, Any]], block: int, run: RunFigures) -> Grid:
    """One row a task, one column for the task that made the adapter: mean router weight on the row's task."""
    names = [task["id"] for task in run["tasks"]]
    weights = {one["task"]: one["weights"] for one in routing if one["block"] == block}
    rows = [
        {"head": str(number + 1), "cells": [_weight(names, number, maker, weights.get(name, {})) for maker in names]}
        for number, name in enumerate(names)
    ]
    return {"layer": block + 1, "columns": len(names), "rows": rows, "high": 1}


def _weight(names: Sequence[str], task: int, maker: str, weights: Mapping[str, float]) -> GridCell:
    if maker not in weights:
        return {"value": None, "text": "", "tip": ""}
    share = quantity(weights[maker], "percent")
    tip = f"task {task + 1} gives {share} % to the adapter of task {names.index(maker) + 1}"
    return {"value": weights[maker], "text": f"{100 * weights[maker]:.0f}", "tip": tip}


def _signals(index: int, decisions: Sequence[Mapping[str, Any]], run: RunFigures) -> Markup | None:
    """The signal of each block and task against the threshold; of several scans of one task the highest counts."""
    names = [task["id"] for task in run["tasks"]]
    blocks = sorted({one["block"] for one in decisions})
    if not blocks:
        return None
    signal = np.full((len(blocks), len(names)), np.nan)
    expanded = np.zeros(signal.shape, dtype=bool)
    for one in decisions:
        place = blocks.index(one["block"]), names.index(one["task"])
        expanded[place] |= one["expand"]
        if one["signal"] is not None:
            signal[place] = np.fmax(signal[place], one["signal"])
    layers = [f"layer {block + 1}" for block in blocks]
    truth = run["growth"].get("truth")
    new = [False, *truth["new"][1:]] if truth else []
    return figures.signals(
        f"signals-{index}", signal, expanded, layers, decisions[0]["threshold"], new, width=500, height=260
    )
