"""The demo's second half: one person's samples are deleted from an EASE run on real digits, in a home of its own;
verified against cold oracles, with the certificate in FOLDER/certificate.html.

    python -m tests.demo_deletion FOLDER

The commands are those of the command line, in one process: each would load the network libraries again.
"""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from cl.cli import app


def palimpsest(*words: str) -> None:
    """One command. Ends the demo where it ends with another exit code than 0."""
    code = app(list(words), standalone_mode=False)
    if code:
        sys.exit(code)


def found(*words: str) -> dict[str, Any]:
    """What a command tells as JSON."""
    with redirect_stdout(io.StringIO()) as told:
        palimpsest(*words, "--json")
    answer: dict[str, Any] = json.loads(told.getvalue())
    return answer


def main() -> None:
    """Run, delete, verify, certify."""
    folder = Path(sys.argv[1])
    os.environ["PALIMPSEST_HOME"] = str(folder / "deletion-home")
    print("One person's samples (synthetic subjects on real images) are deleted from an EASE run ...", flush=True)
    run = found("run", "split-digits", "ease", "--preset", "quick")["run"]
    request = found("forget", "execute", run, "--subject", "person-007", "--reason", "demo", "--yes")["request"]
    palimpsest("forget", "verify", request)
    palimpsest("forget", "certify", request, "--out", str(folder))
    (folder / f"certificate-{request}.html").rename(folder / "certificate.html")


if __name__ == "__main__":
    main()
