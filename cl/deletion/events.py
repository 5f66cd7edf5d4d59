"""What the ledger records of a deletion, one kind of body a class. Bodies have no fractions and name no sample.

Seconds are texts of three decimals: no canonical form agrees on how a fraction is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from cl.documents import plain, typed
from cl.errors import LedgerError
from cl.home.chain import LedgerRecord
from cl.home.deletions import ListState
from cl.home.ledger import Ledger


class Event:
    """Base of a frozen dataclass that is the body of a record of type TYPE; what is None is left out."""

    TYPE: ClassVar[str]
    STEP: ClassVar[str | None] = None  # of several kinds under one type, the step that this one is about

    @property
    def body(self) -> dict[str, Any]:
        """Plain JSON."""
        return {name: value for name, value in plain(self).items() if value is not None}


Kind = TypeVar("Kind", bound=Event)


@dataclass(frozen=True)
class KeyedSelector:
    """A selector with its value under the request's key."""

    kind: str
    value: str


@dataclass(frozen=True)
class Received(Event):
    """What was asked for."""

    TYPE = "received"

    run: str
    scope: str
    method: str
    reason: str
    selectors: tuple[KeyedSelector, ...]


@dataclass(frozen=True)
class Resolved(Event):
    """How many samples that means. commitment: over their names, under the request's key. people: one commitment a
    person, see `cl.deletion.receipts`."""

    TYPE = "resolved"

    samples: int
    train: int
    test: int
    commitment: str
    people: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planned(Event):
    """What it will take. manifest_before: of the run, under the request's key."""

    TYPE = "planned"

    tainted: int
    build: int
    predicted_seconds: str
    full_retrain_seconds: str
    manifest_before: str


@dataclass(frozen=True)
class Approved(Event):
    """Someone said yes."""

    TYPE = "approved"


@dataclass(frozen=True)
class StepStarted(Event):
    TYPE = "step_started"

    step: str


@dataclass(frozen=True)
class Quarantined(Event):
    """How many other runs became stale, or were left alone. suppression: the list of deleted samples from now on."""

    TYPE = "quarantined"

    stale: int
    exceptions: int
    suppression: ListState | None = None
    step: str = "quarantine"
    seconds: str = "0"


@dataclass(frozen=True)
class Built(Event):
    """Components of the run that were built again or reused. full_retrain_seconds: what building all would take."""

    TYPE = "step_done"
    STEP = "build"

    rebuilt: int
    reused: int
    full_retrain_seconds: str
    step: str = "build"
    seconds: str = "0"


@dataclass(frozen=True)
class Switched(Event):
    """manifest: digest of the run's new generation."""

    TYPE = "step_done"
    STEP = "switch"

    manifest: str
    step: str = "switch"
    seconds: str = "0"


@dataclass(frozen=True)
class Purged(Event):
    """How many of each were removed; of a baseline, how many parts made from the samples its copy still serves
    (`left`)."""

    TYPE = "purged"

    components: int
    checkpoints: int | None = None
    temporaries: int | None = None
    pages: int | None = None
    shards: int | None = None
    left: int | None = None
    step: str = "purge"
    seconds: str = "0"

    @property
    def counts(self) -> dict[str, int]:
        """By kind of thing."""
        return {name: value for name, value in self.body.items() if name not in ("step", "seconds")}


StepDone = Quarantined | Built | Switched | Purged


@dataclass(frozen=True)
class Replanned(Event):
    """The run is not the one that was planned for any more: all of it counts as tainted. why: what changed."""

    TYPE = "replanned"

    why: str
    n: int


@dataclass(frozen=True)
class Halted(Event):
    """A deletion that had to stop: why, and over how many components."""

    TYPE = "failed"

    why: str
    n: int


@dataclass(frozen=True)
class Verified(Event):
    """What verification found. checks: whether each held; details: their numbers."""

    TYPE = "verified"

    grade: str
    checks: Mapping[str, bool]
    details: Mapping[str, Mapping[str, Any]]
    manifest_after: str
    manifest_oracle: str
    oracle_seconds: str


@dataclass(frozen=True)
class Refuted(Verified):
    """The same, where something of the samples is left or nothing could be compared."""

    TYPE = "failed"


@dataclass(frozen=True)
class Certified(Event):
    """certificate, page: SHA-256 of these files; earlier releases recorded none."""

    TYPE = "certified"

    grade: str
    manifest: str
    certificate: str | None = None
    page: str | None = None


@dataclass(frozen=True)
class Readmitted(Event):
    TYPE = "readmitted"

    samples: int
    suppression: ListState | None = None


@dataclass(frozen=True)
class Admitted(Event):
    """What comes later of the person may come in."""

    TYPE = "admitted"

    suppression: ListState


@dataclass(frozen=True)
class Restored(Event):
    """The list of deleted samples was made again from what the operator had kept."""

    TYPE = "restored"

    samples: int
    suppression: ListState


@dataclass(frozen=True)
class NothingToDo(Event):
    """A deletion of what was deleted before."""

    TYPE = "noop"

    run: str
    samples: int


def append(ledger: Ledger, request: str, event: Event) -> None:
    """Record what happened to `request`."""
    ledger.append(event.TYPE, request, event.body)


def newest(records: Iterable[LedgerRecord], kind: type[Kind]) -> Kind | None:
    """The newest event of this kind, None if there is none. Raises LedgerError for a body that is none."""
    bodies = [one.body for one in records if one.type == kind.TYPE and kind.STEP in (None, one.body.get("step"))]
    if not bodies:
        return None
    try:
        return typed(kind, dict(bodies[-1]))
    except (ValueError, TypeError) as error:
        raise LedgerError(f"the ledger has a record '{kind.TYPE}' of another release; use that release") from error


def needed(records: Iterable[LedgerRecord], kind: type[Kind]) -> Kind:
    """The newest event of this kind. Raises LedgerError where there is none though there must be."""
    found = newest(records, kind)
    if found is None:
        raise LedgerError(f"the ledger has no record '{kind.TYPE}' of this request; put back the one that was there")
    return found


def step_seconds(records: Iterable[LedgerRecord]) -> list[tuple[str, float]]:
    """Step and seconds of every step that was done."""
    bodies = [record.body for record in records]
    return [(body["step"], float(body["seconds"])) for body in bodies if "step" in body and "seconds" in body]
