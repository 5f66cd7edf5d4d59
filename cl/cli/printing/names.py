"""Names with their lines, and what one of them takes, as text and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from cl.cli.printing import out


def print_names(kinds: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """One line a name, under the heading of its kind."""
    for title, rows in kinds.items():
        out.print(f"[bold]{title}[/bold]")
        width = max(len(row["name"]) for row in rows)
        for row in rows:
            paper = f" [dim]({escape(row['paper'])})[/dim]" if row.get("paper") else ""
            out.print(f"  {row['name']:<{width}}  {escape(row['about'])}{paper}", highlight=False, soft_wrap=True)


def print_description(content: Mapping[str, Any]) -> None:
    """All that `describe` tells of one name."""
    title = f"[bold]{escape(content['name'])}[/bold] ({content['kind']}): {escape(content['about'])}"
    out.print(title, highlight=False, soft_wrap=True)
    if content["kind"] == "strategy":
        _print_strategy(content)
    elif content["kind"] == "stream":
        _print_stream(content)
    else:
        for key, value in content.items():
            if key not in ("name", "kind", "about"):
                out.print(f"{key}: {value}", highlight=False, markup=False, soft_wrap=True)


def _print_strategy(content: Mapping[str, Any]) -> None:
    out.print(escape(content["paper"]), style="dim", highlight=False)
    table = Table("hyperparameter", "default", "type", "range", "meaning", "source", box=None)
    for one in content["hyperparameters"]:
        cells = (one["name"], str(one["default"]), one["type"], one["range"] or "", one["about"], one["source"] or "")
        table.add_row(*map(escape, cells))
    out.print(table)
    for name, values in content["presets"].items():
        note = content["preset_notes"].get(name)
        what = ", ".join(f"{k}={v}" for k, v in values.items()) or "the defaults"
        out.print(escape(f"preset {name}: {what}" + (f"  # {note}" if note else "")), soft_wrap=True)


def _print_stream(content: Mapping[str, Any]) -> None:
    table = Table("task", "classes", "train", "test", box=None)
    for task in content["tasks"]:
        names = escape(", ".join(task["classes"]))
        table.add_row(escape(task["id"]), names, str(task["train"]), str(task["test"]))
    out.print(table)
    if "segments" in content:
        table = Table("segment", "domain", "batches", "images", box=None)
        for one in content["segments"]:
            table.add_row(escape(one["id"]), escape(one["domain"]), str(one["batches"]), str(one["images"]))
        out.print(table)
    out.print(f"{content['subjects']} subjects. " + escape(" ".join(content["notes"])))
