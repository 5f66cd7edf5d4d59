"""Where store and results lie. Loads nothing else, so that commands that only read them begin at once."""

from __future__ import annotations

import os
from pathlib import Path

STALE = "stale"  # in the folder of a run that a deletion took out of service: which deletion


def default_home() -> Path:
    """`PALIMPSEST_HOME`, else `.palimpsest` in the working directory."""
    return Path(os.environ.get("PALIMPSEST_HOME") or ".palimpsest")


def stale_runs(home: Path) -> dict[str, str]:
    """Every stale run of a home, and the deletion that made it so."""
    return {path.parent.name: path.read_text(encoding="ascii") for path in sorted(home.glob(f"runs/*/{STALE}"))}
