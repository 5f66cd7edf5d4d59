"""`palimpsest new`: a package of your own to begin with, outside this one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cl.cli.common import AsJson, Home, help_if_alone, print_json

app = typer.Typer()
new = typer.Typer(
    callback=help_if_alone, invoke_without_command=True, help="Begin a strategy or stream of your own, with its tests."
)
app.add_typer(new, name="new")

Name = Annotated[str, typer.Argument(help="What it will be called: lower-case words and hyphens, such as my-means.")]
Out = Annotated[Path, typer.Option("--out", help="Where its folder is made.", show_default="here")]


@new.command(epilog="Example: palimpsest new strategy my-means")
def strategy(name: Name, out: Out = Path(), home: Home = None, as_json: AsJson = False) -> None:
    """A small strategy that works, with its conformance test."""
    _write("strategy", name, out, as_json)


@new.command(epilog="Example: palimpsest new stream my-bars")
def stream(name: Name, out: Out = Path(), home: Home = None, as_json: AsJson = False) -> None:
    """A small stream of drawn images, with its conformance test."""
    _write("stream", name, out, as_json)


def _write(what: Literal["strategy", "stream"], name: str, parent: Path, as_json: bool) -> None:
    from cl.cli.skeletons import Skeleton, write

    skeleton = Skeleton(what, name)
    folder = write(skeleton, parent)
    files = sorted(skeleton.files())
    if as_json:
        print_json({"name": name, "folder": str(folder), "files": files})
        return
    typer.echo(f"{folder}: {', '.join(files)}")
    typer.echo(f"next: pip install -e '{folder}[test]', {skeleton.command}, pytest {folder}")
