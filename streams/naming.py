"""Names of tasks: made from their classes, so that no task's name depends on those before it."""

from __future__ import annotations

from collections.abc import Sequence


def task_id(classes: Sequence[str]) -> str:
    """Up to three class names joined, else the first and how many more; without slashes, which part component names."""
    name = "-".join(classes) if len(classes) <= 3 else f"{classes[0]}+{len(classes) - 1}"
    return name.replace("/", "_")
