"""Numbers as a reader wants them: percent, signed points, and counts, times and sizes in a unit that fits."""

from __future__ import annotations

import math
from typing import Literal

QuantityKind = Literal["percent", "points", "number", "ratio", "count", "seconds", "bytes"]

MINUS = "\N{MINUS SIGN}"
_NARROW_SPACE = "\N{NARROW NO-BREAK SPACE}"

# (size of the unit, its symbol), largest first; the last one is for everything smaller.
_UNITS: dict[QuantityKind, tuple[tuple[float, str], ...]] = {
    "percent": ((0.01, ""),),
    "points": ((0.01, ""),),
    "number": ((1, ""),),
    "ratio": ((1, ""),),
    "count": ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")),
    "seconds": ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")),
    "bytes": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")),
}


def quantity(value: float | None, kind: QuantityKind, spread: float | None = None) -> str:
    """`value`, in the unit of its size, with `spread` in that same unit; an en dash where there is no value.

    Percent and points take fractions and print no sign of percent: 0.712 is "71.2". Points carry their sign.
    """
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    size, symbol = _unit(value, kind)
    places = _places(value, size, kind)
    text = _fixed(value / size, places, signed=kind == "points")
    if spread is not None and math.isfinite(spread):
        text += f" ± {_fixed(spread / size, places)}"
    return _with_unit(text, symbol)


def tick(value: float, kind: QuantityKind) -> str:
    """`value` for an axis: in the unit of its size, with as few digits as tell it."""
    size, symbol = _unit(value, kind)
    return _with_unit(f"{value / size:g}".replace("-", MINUS), symbol if value else "")


def _unit(value: float, kind: QuantityKind) -> tuple[float, str]:
    return next((unit for unit in _UNITS[kind] if abs(value) >= unit[0]), _UNITS[kind][-1])


def _with_unit(text: str, symbol: str) -> str:
    return f"{text}{_NARROW_SPACE}{symbol}" if symbol else text


def _places(value: float, size: float, kind: QuantityKind) -> int:
    if kind in ("percent", "points"):
        return 1
    if kind in ("number", "count", "bytes") and size == 1:
        return 0 if value == int(value) else 1
    scaled = abs(value) / size
    return 0 if scaled >= 100 else 1 if scaled >= 10 else 2


def _fixed(value: float, places: int, *, signed: bool = False) -> str:
    text = f"{value:+.{places}f}" if signed else f"{value:.{places}f}"
    if float(text) == 0:
        text = text.lstrip("+-")  # Neither +0.0 nor -0.0: rounded to nothing.
    return text.replace("-", MINUS)
