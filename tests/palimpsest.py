"""The command line, in this process."""

from __future__ import annotations

import sys

import pytest

from cl.cli import main


def palimpsest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of one command."""
    monkeypatch.setattr(sys, "argv", ["palimpsest", *words])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err
