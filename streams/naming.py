"""Names of tasks that their stream does not name itself."""

from __future__ import annotations


def ordinal(place: int) -> str:
    """The task at this place of its declaration. It holds no class's name: a deleted one must not live on in it."""
    return f"task-{place:02d}"
