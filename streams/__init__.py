"""Families of task streams, one file each. They are found by name through the entry points `palimpsest.streams`."""

from __future__ import annotations

from typing import Any

__all__ = ["from_avalanche", "to_avalanche"]


def __getattr__(name: str) -> Any:
    # Deferred, so that `import streams` loads no torch.
    if name in __all__:
        from streams import avalanche

        return getattr(avalanche, name)
    raise AttributeError(f"module 'streams' has no attribute '{name}'")
