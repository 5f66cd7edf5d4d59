"""Palimpsest's engine: streams, components and their store, strategies, runs and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cl.home.results import Result as Result
    from cl.running.run import run as run

__all__ = ["Result", "run"]


def __getattr__(name: str) -> Any:
    # Deferred, so that `import cl` and `palimpsest --help` load no torch.
    if name == "run":
        from cl.running.run import run

        return run
    if name == "Result":
        from cl.home.results import Result

        return Result
    raise AttributeError(f"module 'cl' has no attribute '{name}'")
