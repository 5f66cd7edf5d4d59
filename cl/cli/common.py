"""What the commands share: their options, and how they print."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cl.errors import BadInput

Home = Annotated[
    Path | None, typer.Option("--home", help="Store and results [default: $PALIMPSEST_HOME, else .palimpsest].")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
BackboneName = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="A shipped backbone, a timm name, random:TIMM-NAME, module:factory, or a TOML file "
        "[default: $PALIMPSEST_BACKBONE, else glyph-vit].",
    ),
]
Presets = Annotated[list[str] | None, typer.Option("--preset", help="A named set of hyperparameters; may be repeated.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="One hyperparameter, or argument of the stream, as key=value; may be repeated. Where both have it: "
        "stream.key, STRATEGY.key.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Threads = Annotated[int, typer.Option("--threads", help="Torch threads of each run; part of every component's key.")]
StreamName = Annotated[str, typer.Argument(help="A stream's name (see palimpsest list streams), or a TOML file.")]
Data = Annotated[Path | None, typer.Option("--data", help="Where the files of split-mnist, split-cifar10 ... lie.")]
User = Annotated[str | None, typer.Option("--as", help="Only with what this user may read (see docs/access.md).")]


def settings_of(pairs: list[str] | None) -> dict[str, Any]:
    """`--set` options as name -> text. Raises BadInput for one without an equals sign."""
    for pair in pairs or []:
        if "=" not in pair:
            raise BadInput(f"--set {pair}: write it as key=value")
    return dict(pair.split("=", 1) for pair in pairs or [])


def help_if_alone(context: typer.Context) -> None:
    """What a group of commands says when none of them is named."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def existing_home(home: Path | None) -> Path:
    """The home that a command reads. Raises BadInput if it is not there: a path that was mistyped holds no results."""
    from cl.home.layout import default_home

    place = home if home is not None else default_home()
    if not place.exists():
        raise BadInput(f"there is no home at {place}; give the right one with --home")
    return place


def find_run(home: Path, run: str) -> str:
    """The id that begins with `run`, of a run with results or a stale one. Raises BadInput if there is none."""
    from cl.home.layout import stale_runs
    from cl.home.results import Results

    stale = [name for name in stale_runs(home) if name.startswith(run)]
    return stale[0] if len(stale) == 1 else Results(home).find(run).id


def print_json(content: Any) -> None:
    """One JSON value on one line of standard output; file names that are no text, with escapes."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False)
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")


def warn(figures: Any) -> None:
    """Repeat a run's warnings on standard error."""
    for warning in figures["warnings"]:
        sys.stderr.write(f"palimpsest: {warning}\n")


@contextmanager
def progress(quiet: bool) -> Iterator[None]:
    """Bars on a terminal, one line a task elsewhere; nothing under --json off a terminal."""
    from cl.cli.bars import bars
    from cl.cli.printing import err

    with bars(err, quiet):
        yield
