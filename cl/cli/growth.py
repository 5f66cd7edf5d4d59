"""`palimpsest show RUN --growth`: how a run's model grew, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from cl.cli.common import out, percent

_SHARE = 0.1  # router weight from which a task is said to use an adapter


def print_growth(figures: Mapping[str, Any]) -> None:
    """Adapters by layer, parameters, what was decided and why, what the router mixes, and the growth figures."""
    growth, tasks = figures["growth"], [task["id"] for task in figures["tasks"]]
    domains = [task["domain"] for task in figures["tasks"]]
    out.print(_grid(growth["adapters"]))
    out.print(_sizes(growth, tasks, domains))
    if growth["decisions"]:
        out.print(_decisions(growth["decisions"]))
        out.print(_reuse(growth["routing"]))
    for line in _summary(growth):
        out.print(line, highlight=False, soft_wrap=True)


def _grid(adapters: Sequence[Sequence[int]]) -> Table:
    """One row a layer, the deepest first, one column a task; an addition is bold."""
    table = Table("layer", *map(str, range(1, len(adapters) + 1)), box=None, title="adapters after each task")
    for layer, counts in reversed(list(enumerate(zip(*adapters, strict=True)))):
        grew = [count > before for before, count in zip([0, *counts], counts, strict=False)]
        cells = [f"[bold]{count}[/bold]" if new else str(count) for count, new in zip(counts, grew, strict=True)]
        table.add_row(str(layer + 1), *cells)
    return table


def _sizes(growth: Mapping[str, Any], tasks: Sequence[str], domains: Sequence[str | None]) -> Table:
    roles = list(growth["parameters_added"])
    table = Table("task", "domain", "adapters added", *[f"{role} added" for role in roles], "parameters", box=None)
    for place, task in enumerate(tasks):
        added = [f"{growth['parameters_added'][role][place]:,}" for role in roles]
        count, total = growth["adapters_added"][place], growth["parameters"][place]
        table.add_row(task, domains[place] or "", str(count), *added, f"{total:,}")
    return table


def _decisions(decisions: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("task", "layer", "z-score to each descriptor", "signal", "threshold", "decision", box=None)
    for one in decisions:
        scores = " ".join(map(_number, one["z"]))
        signal, threshold = _number(one["signal"]), "inf" if one["threshold"] is None else _number(one["threshold"])
        decision = "[bold]expand[/bold]" if one["expand"] else "reuse"
        table.add_row(one["task"], str(one["block"] + 1), scores, signal, threshold, decision)
    return table


def _reuse(routing: Sequence[Mapping[str, Any]]) -> Table:
    """Mean router weight of each adapter, named by the task that made it; earlier ones of some weight are reused."""
    table = Table("task", "layer", "router weight of each adapter", "reuses", box=None)
    for one in routing:
        weights = [f"{owner} {percent(weight)} %" for owner, weight in one["weights"].items()]
        reused = [owner for owner, weight in one["weights"].items() if owner != one["task"] and weight >= _SHARE]
        table.add_row(one["task"], str(one["block"] + 1), ", ".join(weights), ", ".join(reused))
    return table


def _summary(growth: Mapping[str, Any]) -> list[str]:
    """The growth figures in words; what cannot be told is left out."""
    lines = [f"expanded at {len(growth['expansions'])} of {max(0, len(growth['adapters']) - 1)} later tasks"]
    for name, title in (
        ("growth_exponent", "growth exponent (parameters; 1 is linear)"),
        ("expansion_exponent", "expansion exponent (adapters after the first task; 1 is as many with every task)"),
    ):
        found = growth[name]
        interval = found and f"{found['slope']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
        lines.append(f"{title}: {interval or 'too few additions to tell'}")
    ratios = {
        "fill of one set a task": growth["fill"],
        "second half of the stream over the first": growth["half_ratio"],
        "accuracy per million parameters": growth["accuracy_per_million_parameters"],
    }
    lines += [f"{title}: {value:.3f}" for title, value in ratios.items() if value is not None]
    truth = growth["truth"]
    if truth is not None:
        shares = [f"{name} {_number(truth[name])}" for name in ("precision", "recall")]
        lines.append(f"expansion against the {sum(truth['new'])} domains of the stream: {', '.join(shares)}")
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
