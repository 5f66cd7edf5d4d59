"""Domains that come back: which task of a long stream is in which domain."""

from __future__ import annotations

from collections.abc import Sequence


def recurring(tasks: int, domains: Sequence[str]) -> list[str]:
    """The domain of each task: a new one at tasks 0, 1, 3, 6, 10, ... while there are any, else the one longest unseen.

    So new domains come ever more rarely: after t tasks about the square root of 2 t of them have been seen.
    """
    found: list[str] = []
    seen: list[str] = []  # longest unseen first
    for task in range(tasks):
        due = len(seen) * (len(seen) + 1) // 2 == task and len(seen) < len(domains)
        chosen = domains[len(seen)] if due else seen[0]
        seen = [*(one for one in seen if one != chosen), chosen]
        found.append(chosen)
    return found
