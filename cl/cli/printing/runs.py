"""One run as tables, many runs as rows, and components as a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Column, Table
from rich.tree import Tree

from cl.cli.printing import out, percent


def print_results(live: Sequence[Mapping[str, Any]], apart: Sequence[Mapping[str, Any]]) -> None:
    """A row a run; those that a deletion took out of service have no figures and come last."""
    run = Column("run", no_wrap=True)
    table = Table(run, "stream", "strategy", "seed", "average", "incremental", "forgetting", "created", box=None)
    for one in live:
        figures = (one["average_accuracy"], one["average_incremental_accuracy"], one["forgetting"])
        name = f"{one['strategy']} as {one['user']}" if one.get("user") else one["strategy"]
        row = (one["run"], escape(one["stream"]), escape(name), str(one["seed"]))
        table.add_row(*row, *map(percent, figures), one["created"][:16])
    for one in apart:
        table.add_row(one["run"], escape(one["stream"]), escape(one["strategy"]), str(one["seed"]), one["state"])
    out.print(table)


def print_run(figures: Mapping[str, Any]) -> None:
    """Accuracy after each task, the figures that are single values, what it took."""
    title = f"[bold]{escape(figures['strategy'])}[/bold] on {escape(figures['stream'])}"
    whose = f", as {escape(figures['user'])}" if figures.get("user") else ""
    out.print(f"{title}{whose}, seed {figures['seed']}, run {figures['run']}", highlight=False)
    names = [escape(task["id"]) for task in figures["tasks"]]
    table = Table("after task", "seen", *names, "adapters", "parameters", box=None)
    total = 0
    for t, row in enumerate(figures["accuracy"]):
        total += figures["parameters_added"][t]
        table.add_row(
            names[t],
            percent(figures["curve"][t]),
            *map(percent, row),
            str(figures["adapters"][t]),
            f"{total:,}",
        )
    out.print(table)
    shown = ("average_accuracy", "average_incremental_accuracy", "forgetting", "backward_transfer")
    out.print(", ".join(f"{name.replace('_', ' ')} {percent(figures[name])}" for name in shown), highlight=False)
    if "online" in figures:
        _print_online(figures["online"])
    out.print(_confusion(figures), highlight=False)
    seconds = ", ".join(f"{phase} {value:.1f} s" for phase, value in figures["seconds"].items())
    out.print(f"built {figures['components_built']}, reused {figures['components_reused']}; {seconds}", highlight=False)
    out.print(f"manifest {figures['manifest'][:16]}", highlight=False)


def _print_online(online: Mapping[str, Any]) -> None:
    """What happened at test time: error by segment, then the summary."""
    table = Table("segment", "domain", "images", "online error", box=None)
    for one in online["test_time"]["segments"]:
        table.add_row(escape(one["id"]), escape(one["domain"]), str(one["images"]), percent(one["error"]))
    out.print(table)
    before, after = percent(online["source_error_before"]), percent(online["source_error_after"])
    line = f"mean online error {percent(online['mean_error'])}, on the source {before} before and {after} after"
    out.print(f"{line}, {online['updates']} updates", highlight=False)


def _confusion(figures: Mapping[str, Any]) -> str:
    """Where the last model's loss comes from: the wrong task, or the wrong class within the right one."""
    from cl.metrics import average_accuracy  # this loads NumPy, which other tables do without

    known, task = (average_accuracy(figures[name] or [[None]]) for name in ("known_task_accuracy", "task_correct"))
    return f"accuracy with known task {percent(known)}, task correct {percent(task)}"


def print_components(rows: Sequence[Mapping[str, Any]]) -> None:
    """Every component that a run used, with what it read."""
    table = Table("component", "role", "parameters", "seconds", "reads", box=None)
    for row in rows:
        reads = escape(", ".join(row["reads"]))
        table.add_row(escape(row["name"]), row["role"], f"{row['numel']:,}", f"{row['seconds']:.2f}", reads)
    out.print(table)


def print_tree(top: str, rows: Sequence[Mapping[str, Any]], below: Mapping[str, Sequence[str]]) -> None:
    """The component `top` and, indented, what is `below` each; what came before is not unfolded again."""
    roles = {row["name"]: row["role"] for row in rows}
    root, shown = Tree(top, hide_root=True), set[str]()
    todo = [(root, top)]
    while todo:
        branch, name = todo.pop()
        notes = [roles[name]] if name in roles else []
        if name in shown and name in below:
            notes.append("see above")
        leaf = branch.add(f"{name} ({', '.join(notes)})" if notes else name)
        if name not in shown:
            shown.add(name)
            todo += [(leaf, other) for other in reversed(below.get(name, []))]
    out.print(root, highlight=False, markup=False)


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """A row a strategy, over its seeds."""
    names = ["average_accuracy", "average_incremental_accuracy", "forgetting"]
    if any(row["metrics"]["mean_error"]["n"] for row in rows):
        names = ["mean_error", "source_error_before", "source_error_after"]
    costs = ("passes an image", "ms an image")
    heads = ["strategy", *(name.replace("_", " ") for name in names), *costs, "seeds"]
    # Between words a heading may break, but no word of it is cut.
    table = Table(*(Column(head, min_width=max(map(len, head.split()))) for head in heads), box=None)
    for row in rows:
        found = [row["metrics"][name] for name in names]
        spread = [
            percent(one["mean"]) + (f" ± {100 * one['std']:.2f}" if one["std"] is not None else "") for one in found
        ]
        passes, seconds = (row["metrics"][name]["mean"] for name in ("passes_per_image", "seconds_per_image"))
        cost = [
            "-" if passes is None else f"{passes:.2f}",
            "-" if seconds is None else f"{1000 * seconds:.2f}",
        ]
        table.add_row(row["strategy"], *spread, *cost, str(found[0]["n"]))
    out.print(table)
