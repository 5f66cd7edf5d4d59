"""`palimpsest describe`: what one strategy, stream or backbone is and takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cl.cli.common import AsJson, Data, Home, Sets, print_json, settings_of
from cl.cli.listing import first_line_of
from cl.errors import UnknownName

if TYPE_CHECKING:
    from cl.data.stream import Stream

app = typer.Typer()


@app.command(epilog="Example: palimpsest describe ease")
def describe(
    name: Annotated[str, typer.Argument(help="A strategy, stream or backbone, or a stream's TOML file.")],
    data: Data = None,
    set_: Sets = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """What a strategy takes, a stream holds or a backbone is."""
    from cl.cli.printing.names import print_description

    content = _description(name, data, settings_of(set_))
    if as_json:
        print_json(content)
        return
    print_description(content)


def _description(name: str, data: Path | None, sets: dict[str, Any]) -> dict[str, Any]:
    from cl.models.cards import shipped, summary
    from cl.registry import strategies, streams

    if name in strategies.names():
        return _strategy(name)
    if name in streams.names() or name.endswith(".toml"):
        return _stream(name, data, sets)
    cards = shipped()
    if name in cards:
        return {"name": name, "kind": "backbone", "about": summary(cards[name]), **cards[name]}
    raise UnknownName("name", name, [*strategies.names(), *streams.names(), *cards])


def _strategy(name: str) -> dict[str, Any]:
    from cl.learning.hyper import describe as describe_hyper
    from cl.registry import strategies

    method = strategies.get(name)
    return {
        "name": name,
        "kind": "strategy",
        "about": method.title,
        "paper": method.paper,
        "hyperparameters": describe_hyper(method.Hyper),
        "presets": {key: dict(value) for key, value in method.presets.items()},
        "preset_notes": {key: method.preset_notes[key] for key in method.presets if key in method.preset_notes},
    }


def _stream(name: str, data: Path | None, sets: dict[str, Any]) -> dict[str, Any]:
    from cl.data.recipes import arguments_of, resolve_stream
    from cl.registry import streams
    from cl.running.settings import STREAM, shared_out

    stream = resolve_stream(name, data, arguments=shared_out(sets, {STREAM: arguments_of(name)})[STREAM])
    stream.prepare()
    described = name.endswith(".toml")
    return {
        "name": stream.name,
        "kind": "stream",
        "about": f"described by {name}" if described else first_line_of(streams.get(name).__doc__),
        **_content(stream),
        "subjects": len(set(stream.subjects.values())),
        "notes": list(stream.notes),
    }


def _content(stream: Stream) -> dict[str, Any]:
    """Tasks, and the segments of a stream that has some."""
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
    return {"tasks": tasks, "segments": segments} if segments else {"tasks": tasks}
