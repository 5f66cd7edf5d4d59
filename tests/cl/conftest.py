"""What tests of the engine share."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from tests.cl.sources import Write, write_package


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes modules and imports them (see `write_package`)."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return partial(write_package, tmp_path)
