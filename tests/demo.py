"""The demo: six methods compared on real digits, then one person's samples deleted from an EASE run, verified against
cold oracles and certified. The page is FOLDER/comparison.html; it links the certificate.

    python -m tests.demo FOLDER

The commands are those of the command line, in one process: each would load the network libraries again.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from cl.cli import main as command_line

METHODS = ("ease", "mos", "ssiat", "simplecil", "finetune", "joint")


def palimpsest(*words: str) -> None:
    """One command. Ends the demo where it fails, with the command's own line and exit code."""
    print(f"$ palimpsest {shlex.join(words)}", file=sys.stderr, flush=True)
    sys.argv = ["palimpsest", *words]
    command_line()


def found(*words: str) -> dict[str, Any]:
    """What a command tells as JSON."""
    with redirect_stdout(io.StringIO()) as told:
        palimpsest(*words, "--json")
    answer: dict[str, Any] = json.loads(told.getvalue())
    return answer


def compare(folder: Path) -> None:
    """Three seeds, few epochs, and a page with everything."""
    where = ("--home", str(folder / "home"), "--out", str(folder / "comparison.html"))
    link = ("--link", "Certificate of a deletion=certificate.html")
    how = ("--preset", "quick", "--set", "joint.when=last", "--seeds", "3")
    palimpsest("compare", "split-mnist-5k", *METHODS, *how, *where, *link)


def delete(folder: Path) -> None:
    """One person's samples: run, delete, verify, certify, in a home of its own."""
    os.environ["PALIMPSEST_HOME"] = str(folder / "deletion-home")
    print("One person's samples (synthetic subjects on real images) are deleted from an EASE run ...", flush=True)
    run = found("run", "split-digits", "ease", "--set", "epochs=1")["run"]
    request = found("forget", "execute", run, "--subject", "person-007", "--reason", "demo", "--yes")["request"]
    palimpsest("forget", "verify", request)
    palimpsest("forget", "certify", request, "--out", str(folder))
    (folder / f"certificate-{request}.html").rename(folder / "certificate.html")


def main() -> None:
    """Compare, then delete."""
    folder = Path(sys.argv[1])  # each command has arguments of its own
    compare(folder)
    delete(folder)


if __name__ == "__main__":
    main()
