"""The ledger: what was asked, done and found, as a chain of signed records.

One JSON line a record, in the form of RFC 8785 (bodies have no fractions), chained as `cl.home.chain` says. Identifiers
and digests of deleted data enter as keyed hashes only. What a request's state is, is read from here and stored nowhere
else.
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from cl.digests import canonical, digest_json
from cl.documents import plain, typed
from cl.errors import DeletionError, LedgerError, shown
from cl.home.anchors import check_anchored, configured
from cl.home.chain import KEY_CHANGED, START, Chain, Head, LedgerRecord, chain_of, head_message, parsed, written
from cl.home.deletions import LedgerState, ListState, remember_ledger, remembered
from cl.home.keys import next_public_key, public_key, renew_public_key, signing_key
from cl.home.layout import MARKER
from cl.home.store import Store, open_home
from cl.home.writing import write_atomic

ACTOR = "PALIMPSEST_ACTOR"  # who answers for what is done, if not the login name
LOST = "ledger_lost"  # the first record of a ledger that takes the place of one that is gone
UNSIGNED = -1  # the counter of a head that an earlier release wrote
ACCESS = "access_changed"  # a record about who may read what; it belongs to no request
# What a request is, once the latest of these is recorded.
STATES = (
    "received",
    "resolved",
    "planned",
    "approved",
    "quarantined",
    "purged",
    "verified",
    "certified",
    "rejected",
    "noop",
    "failed",
    "readmitted",
)


class Ledger:
    """`audit/ledger.jsonl` of a home.

    Written in this order: the record, `ledger.head` beside it, the home's marker, the anchor outside. Each says of the
    one before how far it had come, so a crash leaves it behind, which is right, and never ahead, which is a ledger cut.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / "audit" / "ledger.jsonl"
        self._newest = home / "audit" / "ledger.head"

    def records(self) -> list[LedgerRecord]:
        """Every record, oldest first. Raises LedgerError on a line that is none."""
        return parsed(self._bytes(), str(self._path))

    def of(self, request: str) -> list[LedgerRecord]:
        """The records of one request. Raises LedgerError on an edited ledger: nothing is decided by one."""
        return [record for record in self.verify() if record.request == request]

    def known(self, request: str) -> list[LedgerRecord]:
        """The records of a request that was made. Raises DeletionError for another one."""
        records = self.of(request)
        if not records or not request:  # what is under no request is about access and keys
            raise DeletionError(f"no request '{shown(request)}' in {self._home}; palimpsest forget status lists them")
        return records

    def append(self, type_: str, request: str, body: Mapping[str, Any]) -> LedgerRecord:
        """Add a record and return it; it is on the disk when this returns. Raises LedgerError on an edited ledger."""
        with self._alone():
            return self._append(type_, request, body)

    def rotate_key(self) -> bytes:
        """Sign with a new key from now on; its public part. The old key signs that it is so, and is destroyed."""
        with self._alone():
            found = self.chain
            if not found.records:
                raise LedgerError(f"{self._path} holds no record yet: there is no key to change")
            signing_key(self._home, found.keys[-1])  # ends a change that a crash interrupted
            public = next_public_key(self._home)
            self._append(KEY_CHANGED, "", {"public_key": public.hex()})
            signing_key(self._home, public)
            return public

    def begin_anew(self) -> None:
        """Where the ledger is lost altogether, begin another one. Its first record says what the marker remembers of
        the one that was lost."""
        with self._alone():
            memory = remembered(self._home).ledger
            if self._path.exists() or memory is None or not memory.records:
                return
            self._newest.unlink(missing_ok=True)
            self._add(Chain((), (renew_public_key(self._home),)), LOST, "", plain(memory))

    def verify(self) -> list[LedgerRecord]:
        """All records. Raises LedgerError unless chain and signatures hold and they reach as far as is known."""
        return list(self.chain.records)

    @property
    def chain(self) -> Chain:
        """What `verify` has found to hold."""
        known = remembered(self._home).ledger  # read in the order opposite to writing: others may add records meanwhile
        told, text = self._told(), self._bytes()
        public = public_key(self._home) if text or known else b""
        found = chain_of(text, public, str(self._path))
        self._check_memory(found, known)
        self._check_told(found, told, known)
        return found

    @property
    def signed_head(self) -> Head:
        """The newest record, signed. Raises LedgerError on an edited ledger."""
        found = self.chain
        if not found.records:
            raise LedgerError(f"{self._path} holds no record yet: nothing was deleted here")
        return self._head_of(found)

    def sign(self, data: bytes) -> str:
        """A signature of `data` with the key that is used now, hexadecimal."""
        return self._sign(data, self.chain.keys[-1])

    def list_state(self) -> ListState | None:
        """Which list of deleted samples was recorded last. Raises LedgerError on an edited ledger."""
        states = [record.body["suppression"] for record in self.verify() if "suppression" in record.body]
        return typed(ListState, states[-1]) if states else None

    @property
    def head(self) -> str:
        """The hash of the newest record."""
        records = self.records()
        return records[-1].hash if records else START

    def _append(self, type_: str, request: str, body: Mapping[str, Any]) -> LedgerRecord:
        open_home(self._home)
        found = self.chain
        if not found.records:
            found = Chain((), (public_key(self._home),))
        if remembered(self._home).ledger is None:
            self._remember(found)
        anchor = configured()
        if anchor is not None:
            check_anchored(anchor.heads(), found, str(self._path))
        return self._add(found, type_, request, body)

    def _add(self, found: Chain, type_: str, request: str, body: Mapping[str, Any]) -> LedgerRecord:
        key = found.keys[-1]
        content = as_utf8(
            {
                "seq": len(found.records),
                "prev_hash": found.head,
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "actor": _actor(),
                "type": type_,
                "request": request,
                "body": body,
            }
        )
        digest = digest_json(content)
        record = LedgerRecord(**content, hash=digest, signature=self._sign(digest.encode(), key))
        longer = Chain((*found.records, record), (*found.keys, key))
        head = self._head_of(longer)
        # The whole file anew: a crash leaves either the old ledger or the new one, never half a line.
        write_atomic(self._path, written(longer.records))
        write_atomic(self._newest, canonical(plain(head)))
        self._remember(longer)
        anchor = configured()
        if anchor is not None:
            anchor.add(head)
        return record

    def _remember(self, found: Chain) -> None:
        remember_ledger(self._home, LedgerState(len(found.records), found.head, found.keys[0].hex()))

    def _head_of(self, found: Chain) -> Head:
        """Signed with the key of the newest record."""
        counter, key = len(found.records), found.keys[len(found.records) - 1]
        if counter and (told := self._told()) is not None and found.signs(told) and told.counter == counter:
            return told  # whose key may be gone: the newest record may have changed it
        return Head(counter, found.head, self._sign(head_message(counter, found.head), key))

    def _sign(self, data: bytes, public: bytes) -> str:
        return signing_key(self._home, public).sign(data).hex()

    def _alone(self) -> FileLock:
        """Held from reading to writing: of two processes that each add a record, neither undoes the other's."""
        path = self._home / "locks" / "ledger"
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)

    def _bytes(self) -> bytes:
        return self._path.read_bytes() if self._path.exists() else b""

    def _told(self) -> Head | None:
        """What the file beside the ledger says is its head. Earlier releases wrote the hash alone, unsigned."""
        if not self._newest.exists():
            return None
        text = self._newest.read_bytes()
        try:
            return typed(Head, json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            if len(text) == len(START):
                return Head(UNSIGNED, text.decode("ascii", "replace"), "")
            raise LedgerError(f"{self._newest} is damaged; put back the one that was there") from error

    def _check_memory(self, found: Chain, known: LedgerState | None) -> None:
        """The ledger reaches as far as the home's marker remembers, or says itself that one was lost."""
        if known is None or lost_before(found) == known:
            return
        if not found.has(known.records, known.head):
            raise LedgerError(
                f"{self._path} was cut or written anew: {MARKER} remembers {known.records} records of it; put the "
                "newest audit/ back from a backup"
            )
        if found.keys[0].hex() != known.key:
            raise LedgerError(f"{self._path} is under another key than {MARKER} remembers; put the old audit/ back")

    def _check_told(self, found: Chain, told: Head | None, known: LedgerState | None) -> None:
        """The ledger reaches as far as the file beside it says, and that as far as the marker."""
        least = 0 if known is None or lost_before(found) == known else known.records
        if told is None:
            if least or (known is None and found.records):
                raise LedgerError(f"{self._newest} is missing; put back the one that was there")
            return
        if told.counter == UNSIGNED:
            reached = next((n for n in range(len(found.records) + 1) if found.has(n, told.hash)), None)
            if reached is None or reached < least:
                raise LedgerError(f"{self._path} was cut: {self._newest.name} names a record that is not in it")
            return
        if told.counter > len(found.records):
            raise LedgerError(f"{self._path} was cut: {self._newest.name} counts {told.counter} records")
        if not found.signs(told) or told.counter < least:
            raise LedgerError(f"{self._newest} was edited, or is an old one; put back the one that was there")


def lost_before(found: Chain) -> LedgerState | None:
    """What this ledger's first record says of one that was lost; None where it began as any."""
    if not found.records or found.records[0].type != LOST:
        return None
    return typed(LedgerState, dict(found.records[0].body))


def as_utf8(content: Mapping[str, Any]) -> dict[str, Any]:
    """JSON with names that are not UTF-8 (a folder's, the actor's) made so: no canonical form has others."""
    found: dict[str, Any] = json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
    return found


def writing(home: Path) -> FileLock:
    """The lock under which one deletion at a time works on a home."""
    Store(home)
    (home / "locks").mkdir(exist_ok=True)
    return FileLock(home / "locks" / "forget")


def state(records: Iterable[LedgerRecord]) -> str:
    """What a request is, from its records: one of STATES, or `executing` with the step that was begun."""
    found = "unknown"
    for record in records:
        if record.type in STATES:
            found = record.type
        elif record.type in ("step_started", "step_done"):
            found = f"executing ({record.body['step']})"
    return found


@dataclass(frozen=True)
class Status:
    """What has become of a request; None where the ledger does not tell."""

    request: str
    state: str
    run: str | None
    method: str | None
    scope: str | None
    samples: int | None
    grade: str | None
    received: str

    def as_json(self) -> dict[str, Any]:
        return plain(self)


def statuses(home: Path, request: str | None = None) -> list[Status]:
    """One a request, oldest first, or that of `request` alone. Raises DeletionError for one that is not there."""
    grouped: dict[str, list[LedgerRecord]] = {}
    for record in Ledger(home).verify() if request is None else Ledger(home).known(request):
        if not record.request:  # about access, or the key
            continue
        grouped.setdefault(record.request, []).append(record)
    return [_status(name, records) for name, records in grouped.items()]


def _status(request: str, records: Sequence[LedgerRecord]) -> Status:
    first, told = records[0].body, {record.type: record.body for record in records}
    return Status(
        request=request,
        state=state(records),
        run=first.get("run"),
        method=first.get("method"),
        scope=first.get("scope"),
        samples=told.get("resolved", first).get("samples"),
        grade=told.get("verified", told.get("failed", {})).get("grade"),
        received=records[0].time,
    )


def _actor() -> str:
    with suppress(OSError, KeyError):
        return os.environ.get(ACTOR) or getpass.getuser()
    return "unknown"
