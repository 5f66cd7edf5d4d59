"""The command line. Thin: it parses, calls the engine, prints. `--help` loads neither torch nor rich."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import cl
from cl.cli import access, describing, evidence, forget, listing, new, predict, results, running, store
from cl.cli.common import help_if_alone
from cl.errors import BadInput, PalimpsestError

INTERRUPTED = 130
OUT_OF_MEMORY = "out of memory; use a smaller backbone, batch_size or fewer --jobs"

app = typer.Typer(
    name="palimpsest",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help as plain text: loading what frames it takes as long as all the rest
    help="Continual learning with components that know what they were made from.\n\n"
    "Begin with `palimpsest compare split-digits ease simplecil --preset quick --out page.html`.",
)
for room in (listing, describing, running, results, predict, access, store, forget, evidence, new):
    app.add_typer(room.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"palimpsest {version('palimpsest-cl')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _palimpsest(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
    ] = False,
) -> None:
    help_if_alone(context)


def main() -> None:
    """Entry point: every error is one line on stderr and exit code 2, Ctrl-C is exit code 130."""
    try:
        _check_rooms()
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # typer has caught it and gives the code alone
            raise KeyboardInterrupt
        if code:
            sys.exit(code)
    except PalimpsestError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; run the same command again and it goes on from what is stored", code=INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _fail(f"{error.filename or 'file'}: {error.strerror or error}; check the path, permissions and disk space")
    except MemoryError:
        _fail(OUT_OF_MEMORY)
    except RuntimeError as error:  # torch has no kind of its own for this on the CPU
        if "out of memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        _fail(OUT_OF_MEMORY)
    except Exception as error:  # errors of usage have no public class that all releases of typer know
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        _fail(message())


def _fail(message: str, code: int = 2) -> None:
    sys.stderr.write(f"palimpsest: {' '.join(message.split())}\n")
    sys.stderr.flush()
    sys.exit(code)


def _check_rooms() -> None:
    """The engine's neighbours have generic names: a foreign package of one of them on the path is named here."""
    from importlib.util import find_spec

    for room in ("strategies", "streams", "reports"):
        spec = find_spec(room)
        where = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if where is None or where.parent != Path(cl.__file__).resolve().parent.parent:
            raise BadInput(
                f"package '{room}' is taken from {where or 'nowhere'}, not from palimpsest; run from another folder"
            )
