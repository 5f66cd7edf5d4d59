"""How results look on a terminal. Commands import these files when they print: rich takes a while to load."""

from __future__ import annotations

from rich.console import Console

out, err = Console(), Console(stderr=True)


def percent(value: float | None) -> str:
    """A fraction in percent; empty where nothing was measured."""
    return "" if value is None else f"{100 * value:.2f}"
