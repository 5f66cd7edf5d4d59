"""Whether Avalanche is there."""

from __future__ import annotations

import warnings

from cl.errors import BadInput


def require_avalanche() -> None:
    """Import Avalanche, quietly. Raises BadInput where it is not installed."""
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"avalanche\b")
    try:
        import avalanche  # noqa: F401
    except ImportError as error:
        raise BadInput(f"Avalanche cannot be imported ({error}); pip install 'palimpsest-cl[avalanche]'") from error
