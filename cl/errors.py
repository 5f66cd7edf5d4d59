"""Every error a user can meet, in one tree. The command line prints each as one line and ends with exit code 2."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

SHOWN = 24  # names that fit into a line


def shown(name: object) -> str:
    """A name or path as it may stand in a one-line message: what cannot be printed is escaped."""
    text = str(name)
    return text if text.isprintable() else ascii(text)[1:-1]


def first_line(error: Exception) -> str:
    """The first line of a foreign error's message, or its kind where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


class PalimpsestError(Exception):
    """Base class. The message is one line that names the thing and the mend."""


class BadInput(PalimpsestError):
    """A value, file or option that cannot be used as given."""


class UnknownName(BadInput):
    """A name that is not registered; the message carries the nearest known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str | None = None) -> None:
        self.kind, self.name, self.known, self.where = kind, name, sorted(known), where
        near = get_close_matches(name, self.known, n=3, cutoff=0.5)
        if near:
            mend = f"did you mean {' or '.join(near)}?"
        elif len(self.known) > SHOWN:
            mend = f"none of the {len(self.known)} known names is near it; see palimpsest list"
        else:
            mend = f"known: {', '.join(self.known) or 'none'}"
        place = f" in {where}" if where else ""
        super().__init__(f"unknown {kind} '{shown(name)}'{place}; {mend}")

    def __reduce__(self) -> tuple[Any, ...]:  # by default an exception is made again from its message alone
        return type(self), (self.kind, self.name, self.known, self.where)


class StoreError(PalimpsestError):
    """The home folder cannot be read or written (full disk, read-only, a file in its place, a newer format)."""


class Unusable(StoreError):
    """A file of the home that cannot be used now, though nothing is wrong with it: a newer release wrote it, or the
    disk is full."""


class CorruptComponent(StoreError):
    """A stored component whose bytes do not match its record."""


class NonFinite(PalimpsestError):
    """A loss, feature or statistic became NaN or infinite."""


class UndeclaredRead(PalimpsestError):
    """A strategy reached for data or a component that it did not declare."""


class DataDeleted(PalimpsestError):
    """Samples that a run was reading were deleted while it ran; what it built from them is not stored."""


class AccessRevoked(PalimpsestError):
    """Samples that a user's run was reading were revoked while it ran; nothing of it is live."""


class ProcessLost(PalimpsestError):
    """A process that was running part of a command was killed."""


class DeletionError(PalimpsestError):
    """A deletion that cannot be planned, carried out, verified or certified as asked."""


class LedgerError(PalimpsestError):
    """The ledger was edited, cut or reordered."""
