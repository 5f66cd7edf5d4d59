"""`palimpsest show RUN --growth`: how a run's model grew, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from cl.cli.printing import out

_SHARE = 0.1  # router weight from which a task is said to use an adapter


def print_growth(figures: Mapping[str, Any]) -> None:
    """Adapters by layer, parameters, what was decided and why, what the router mixes, and the growth figures."""
    growth, tasks = figures["growth"], [task["id"] for task in figures["tasks"]]
    domains = [task["domain"] for task in figures["tasks"]]
    out.print(_grid(growth["adapters"]))
    out.print(_sizes(growth, tasks, domains))
    if growth["decisions"]:
        out.print(_decisions(growth["decisions"], tasks))
        for block in sorted({one["block"] for one in growth["routing"]}):
            out.print(_routing([one for one in growth["routing"] if one["block"] == block], block, tasks))
    for line in _summary(growth):
        out.print(line, highlight=False, soft_wrap=True)


def _grid(adapters: Sequence[Sequence[int]]) -> Table:
    """One row a layer, the deepest first, one column a task; an addition is bold."""
    table = _table("adapters after each task", "layer", *map(str, range(1, len(adapters) + 1)))
    for layer, counts in reversed(list(enumerate(zip(*adapters, strict=True)))):
        grew = [count > before for before, count in zip([0, *counts], counts, strict=False)]
        cells = [f"[bold]{count}[/bold]" if new else str(count) for count, new in zip(counts, grew, strict=True)]
        table.add_row(str(layer + 1), *cells)
    return table


def _sizes(growth: Mapping[str, Any], tasks: Sequence[str], domains: Sequence[str | None]) -> Table:
    """Adapters and parameters after each task; a domain is marked where it is new."""
    known = ["domain"] if any(domains) else []
    table = _table("size", "", "task", *known, "adapters added", "parameters added", "parameters")
    for place, task in enumerate(tasks):
        total, added = growth["parameters"][place], sum(row[place] for row in growth["parameters_added"].values())
        domain = [f"{domains[place]}{' (new)' if domains[place] not in domains[:place] else ''}"] if known else []
        cells = (str(growth["adapters_added"][place]), f"{added:,}", f"{total:,}")
        table.add_row(str(place + 1), task, *domain, *cells)
    return table


def _decisions(decisions: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> Table:
    table = _table("decisions", "task", "layer", "signal", "threshold", "decision", "z-score to each descriptor")
    for one in decisions:
        signal, threshold = _number(one["signal"]), "inf" if one["threshold"] is None else _number(one["threshold"])
        decision = "[bold]expand[/bold]" if one["expand"] else "reuse"
        task, scores = str(tasks.index(one["task"]) + 1), " ".join(map(_number, one["z"]))
        table.add_row(task, str(one["block"] + 1), signal, threshold, decision, scores)
    return table


def _routing(routing: Sequence[Mapping[str, Any]], block: int, tasks: Sequence[str]) -> Table:
    """Mean router weight of each adapter on each task, in percent; earlier adapters of some weight are reused."""
    makers = list(routing[-1]["weights"])
    numbers = [str(tasks.index(maker) + 1) for maker in makers]
    table = _table(f"layer {block + 1}: router weights of the adapters by task", "task", *numbers, "reuses those of")
    for one in routing:
        cells = [f"{100 * one['weights'][maker]:.0f}" if maker in one["weights"] else "" for maker in makers]
        reused = [maker for maker, weight in one["weights"].items() if maker != one["task"] and weight >= _SHARE]
        told = " ".join(str(tasks.index(maker) + 1) for maker in reused)
        table.add_row(str(tasks.index(one["task"]) + 1), *cells, told)
    return table


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, box=None, title=title, title_justify="left")


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
