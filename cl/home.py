"""Where store and results lie. Loads nothing else, so that commands that only read them begin at once."""

from __future__ import annotations

import os
from pathlib import Path


def default_home() -> Path:
    """`PALIMPSEST_HOME`, else `.palimpsest` in the working directory."""
    return Path(os.environ.get("PALIMPSEST_HOME") or ".palimpsest")
