"""What a home remembers of its deletions outside `audit/`, in its marker: lost with nothing but the home itself.

The list of deleted samples fits this memory and the ledger, or no run is safe. How far the ledger had come is
remembered too, so that records that are cut off its end are missed. A change of the list is told here first
(`next`), then made, then recorded, then settled here: after a crash anywhere between, list and ledger are those of
before or of after.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from filelock import FileLock

from cl.digests import canonical
from cl.documents import plain, typed
from cl.errors import StoreError
from cl.home.layout import FORMAT, MARKER
from cl.home.writing import write_atomic


@dataclass(frozen=True)
class ListState:
    """Which list of deleted samples: how many entries, a keyed digest over them, and the fingerprint of the key."""

    entries: int
    root: str
    key: str


@dataclass(frozen=True)
class LedgerState:
    """How far the ledger had come: so many records, the newest with the hash `head`. key: the public key that signed
    the first. Told after a record is written, so the ledger may be further, never less far."""

    records: int
    head: str
    key: str


@dataclass(frozen=True)
class Memory:
    """deletions: request -> how many samples it deleted, while they must not come back. current, next: the list as it
    is, and as a change that is under way makes it. ledger: None until a record is written."""

    deletions: Mapping[str, int] = field(default_factory=dict)
    current: ListState | None = None
    next: ListState | None = None
    ledger: LedgerState | None = None

    @property
    def expected(self) -> set[ListState | None]:
        """What list and ledger may be."""
        return {self.current} if self.next is None else {self.current, self.next}

    @property
    def blank(self) -> bool:
        """Whether nothing was ever deleted here."""
        return self.current is None and self.next is None


def remembered(home: Path) -> Memory:
    """What the marker says. Raises StoreError for a damaged one."""
    path = home / MARKER
    if not path.exists():
        return Memory()
    try:
        return typed(Memory, json.loads(path.read_bytes()).get("memory", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is damaged; put back the one that was there") from error


def remember(home: Path, memory: Memory) -> None:
    """Write what it says of the list into the marker. The caller holds the home's lock alone."""
    with _alone(home):
        _write(home, replace(memory, ledger=remembered(home).ledger))


def remember_ledger(home: Path, state: LedgerState) -> None:
    """Write into the marker how far the ledger has come. The caller holds the ledger's lock."""
    with _alone(home):
        _write(home, replace(remembered(home), ledger=state))


def settle(home: Path, state: ListState) -> None:
    """A change of the list is made and recorded."""
    memory = remembered(home)
    if memory.next == state:
        remember(home, replace(memory, current=state, next=None))


def _alone(home: Path) -> FileLock:
    """Held from reading to writing: deletions and the ledger tell the marker each its own part."""
    path = home / "locks" / "marker"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def _write(home: Path, memory: Memory) -> None:
    write_atomic(home / MARKER, canonical({"format": FORMAT, "memory": plain(memory)}))
