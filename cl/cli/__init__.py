"""The command line. Thin: it parses, calls the engine, prints. `--help` imports no torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import typer
from typer._click.exceptions import ClickException

import cl
from cl.cli import access, forget, names, predict, runs, store
from cl.errors import BadInput, PalimpsestError

INTERRUPTED = 130
OUT_OF_MEMORY = "out of memory; use a smaller backbone, batch_size or fewer --jobs"

app = typer.Typer(
    name="palimpsest",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Continual learning with components that know what they were made from.\n\n"
    "Begin with `palimpsest compare split-digits ease simplecil --preset quick --out page.html`.",
)
for room in (names, runs, predict, access, store, forget):
    app.add_typer(room.app)


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
    except ClickException as error:
        _fail(error.format_message())
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
