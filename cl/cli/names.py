"""`palimpsest list` and `describe`: what there is, and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from cl import registry
from cl.cli.common import AsJson, Data, Home, Sets, out, print_json, settings_of
from cl.errors import BadInput, UnknownName

app = typer.Typer()


@app.command("list", epilog="Example: palimpsest list strategies --json")
def list_names(
    kind: Annotated[
        str | None, typer.Argument(help="strategies, streams or backbones; all of them if left out.")
    ] = None,
    home: Home = None,  # read by none of them, but no command refuses it
    as_json: AsJson = False,
) -> None:
    """Names of strategies, streams and backbones, one line each."""
    kinds = {"strategies": _strategies, "streams": _streams, "backbones": _backbones}
    if kind is not None and kind not in kinds:
        raise UnknownName("kind", kind, kinds)
    found = {name: kinds[name]() for name in ([kind] if kind else kinds)}
    if as_json:
        print_json(found[kind] if kind else found)
        return
    for title, rows in found.items():
        out.print(f"[bold]{title}[/bold]")
        width = max(len(row["name"]) for row in rows)
        for row in rows:
            paper = f" [dim]({row['paper']})[/dim]" if row.get("paper") else ""
            out.print(f"  {row['name']:<{width}}  {row['about']}{paper}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: palimpsest describe ease")
def describe(
    name: Annotated[str, typer.Argument(help="A strategy, stream or backbone, or a stream's TOML file.")],
    data: Data = None,
    set_: Sets = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """A strategy's hyperparameters and presets, a stream's tasks, or a backbone's card."""
    content = _description(name, data, settings_of(set_))
    if as_json:
        print_json(content)
        return
    _print_description(content)


def _strategies() -> list[dict[str, Any]]:
    return _rows(registry.strategies, lambda method: {"about": method.title, "paper": method.paper})


def _streams() -> list[dict[str, Any]]:
    return _rows(registry.streams, lambda factory: {"about": _first_line(factory)})


def _rows(known: registry.Registry, row: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each name; where another's package cannot be loaded, what is wrong with it."""
    found = []
    for name in known.names():
        try:
            found.append({"name": name, **row(known.get(name))})
        except BadInput as error:
            found.append({"name": name, "about": str(error)})
    return found


def _backbones() -> list[dict[str, Any]]:
    from cl.models.loading import shipped

    cards = [{"name": name, "about": _card_line(card)} for name, card in shipped().items()]
    return [*cards, {"name": "NAME", "about": "any timm network by name, with pretrained weights; random:NAME without"}]


def _card_line(card: Mapping[str, Any]) -> str:
    return f"{card['parameters'] / 1e6:.1f} M parameters, pretrained on glyphs; comes with the package"


def _first_line(factory: Callable[..., Any]) -> str:
    return (factory.__doc__ or "").strip().splitlines()[0] if factory.__doc__ else ""


def _description(name: str, data: Path | None, sets: dict[str, Any]) -> dict[str, Any]:
    from cl.models.loading import shipped

    if name in registry.strategies.names():
        return _describe_strategy(name)
    if name in registry.streams.names() or name.endswith(".toml"):
        return _describe_stream(name, data, sets)
    cards = shipped()
    if name in cards:
        return {"name": name, "kind": "backbone", "about": _card_line(cards[name]), **cards[name]}
    raise UnknownName("name", name, [*registry.strategies.names(), *registry.streams.names(), *cards])


def _describe_strategy(name: str) -> dict[str, Any]:
    from cl.learning.hyper import describe as describe_hyper

    method = registry.strategies.get(name)
    return {
        "name": name,
        "kind": "strategy",
        "about": method.title,
        "paper": method.paper,
        "hyperparameters": describe_hyper(method.Hyper),
        "presets": {key: dict(value) for key, value in method.presets.items()},
        "preset_notes": {key: method.preset_notes[key] for key in method.presets if key in method.preset_notes},
    }


def _describe_stream(name: str, data: Path | None, sets: dict[str, Any]) -> dict[str, Any]:
    from cl.data.recipes import arguments_of, resolve_stream
    from cl.running.settings import STREAM, shared_out

    stream = resolve_stream(name, data, arguments=shared_out(sets, {STREAM: arguments_of(name)})[STREAM])
    stream.prepare()
    about = f"described by {name}" if name.endswith(".toml") else _first_line(registry.streams.get(name))
    tasks = [
        {
            "id": task.id,
            "classes": list(task.classes),
            "train": len(task.train),
            "test": len(task.test),
            "domain": task.domain,
        }
        for task in stream.tasks
    ]
    segments = [
        {"id": one.id, "domain": one.domain, "batches": len(one.batches), "images": len(one)} for one in stream.segments
    ]
    people = len(set(stream.subjects.values()))
    return {
        "name": stream.name,
        "kind": "stream",
        "about": about,
        "tasks": tasks,
        **({"segments": segments} if segments else {}),
        "subjects": people,
        "notes": list(stream.notes),
    }


def _print_description(content: dict[str, Any]) -> None:
    out.print(
        f"[bold]{escape(content['name'])}[/bold] ({content['kind']}): {escape(content['about'])}",
        highlight=False,
        soft_wrap=True,
    )
    if content["kind"] == "strategy":
        out.print(content["paper"], style="dim", highlight=False)
        table = Table("hyperparameter", "default", "type", "range", "meaning", "source", box=None)
        for one in content["hyperparameters"]:
            table.add_row(
                one["name"], str(one["default"]), one["type"], one["range"] or "", one["about"], one["source"] or ""
            )
        out.print(table)
        for name, values in content["presets"].items():
            note = content["preset_notes"].get(name)
            what = ", ".join(f"{k}={v}" for k, v in values.items()) or "the defaults"
            out.print(f"preset {name}: {what}" + (f"  # {note}" if note else ""), soft_wrap=True)
    elif content["kind"] == "stream":
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
    else:
        for key, value in content.items():
            if key not in ("name", "kind", "about"):
                out.print(f"{key}: {value}", highlight=False, markup=False, soft_wrap=True)
