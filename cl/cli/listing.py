"""`palimpsest list`: what there is, each in a line."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cl.cli.common import AsJson, Home, print_json
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
    from cl.cli.printing.names import print_names

    kinds = {"strategies": _strategies, "streams": _streams, "backbones": _backbones}
    if kind is not None and kind not in kinds:
        raise UnknownName("kind", kind, kinds)
    found = {name: kinds[name]() for name in ([kind] if kind else kinds)}
    if as_json:
        print_json(found[kind] if kind else found)
        return
    print_names(found)


def _strategies() -> list[dict[str, Any]]:
    from cl.registry import strategies

    return [
        {"name": name, "about": str(told)}
        if isinstance(told, BadInput)
        else {"name": name, "about": told["title"], "paper": told["paper"]}
        for name, told in strategies.texts("title", "paper").items()
    ]


def _streams() -> list[dict[str, Any]]:
    from cl.registry import streams

    return [
        {"name": name, "about": str(told) if isinstance(told, BadInput) else first_line_of(told["__doc__"])}
        for name, told in streams.texts("__doc__").items()
    ]


def _backbones() -> list[dict[str, Any]]:
    from cl.models.cards import shipped, summary

    cards = [{"name": name, "about": summary(card)} for name, card in shipped().items()]
    return [*cards, {"name": "NAME", "about": "any timm network by name, with pretrained weights; random:NAME without"}]


def first_line_of(docstring: str | None) -> str:
    """The summary of a docstring; empty where there is none."""
    return (docstring or "").strip().partition("\n")[0]
