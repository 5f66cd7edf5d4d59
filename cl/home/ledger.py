"""The ledger: what was asked, done and found, as a chain of signed records.

One JSON line a record, in the form of RFC 8785 (bodies have no fractions). `hash` covers all fields but itself and the
signature, `prev_hash` chains it to the record before. Identifiers and digests of deleted data enter as keyed hashes
only. What a request's state is, is read from here and stored nowhere else.
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
from cl.home.deletions import ListState
from cl.home.keys import public_key, sign, signed
from cl.home.store import Store
from cl.home.writing import write_atomic

ACTOR = "PALIMPSEST_ACTOR"  # who answers for what is done, if not the login name
START = "0" * 64
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


@dataclass(frozen=True)
class LedgerRecord:
    """One line of the ledger."""

    seq: int
    prev_hash: str
    time: str
    actor: str
    type: str
    request: str
    body: Mapping[str, Any]
    hash: str
    signature: str

    def as_json(self) -> dict[str, Any]:
        return dict(sorted(plain(self).items()))  # as a line has them


class Ledger:
    """`audit/ledger.jsonl` of a home."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / "audit" / "ledger.jsonl"
        self._newest = home / "audit" / "ledger.head"  # names the newest record, so that a cut ledger is noticed

    def records(self) -> list[LedgerRecord]:
        """Every record, oldest first. Raises LedgerError on a line that is none."""
        return self._parsed(self._bytes())

    def of(self, request: str) -> list[LedgerRecord]:
        """The records of one request. Raises LedgerError on an edited ledger: nothing is decided by one."""
        return [record for record in self.verify() if record.request == request]

    def known(self, request: str) -> list[LedgerRecord]:
        """The records of a request that was made. Raises DeletionError for another one."""
        records = self.of(request)
        if not records or not request:  # what is under no request is about access
            raise DeletionError(f"no request '{shown(request)}' in {self._home}; palimpsest forget status lists them")
        return records

    def append(self, type_: str, request: str, body: Mapping[str, Any]) -> LedgerRecord:
        """Add a record and return it; it is on the disk when this returns. Raises LedgerError on an edited ledger."""
        with self._alone():
            return self._append(type_, request, body)

    def _append(self, type_: str, request: str, body: Mapping[str, Any]) -> LedgerRecord:
        records = self.verify()
        content = as_utf8(
            {
                "seq": len(records),
                "prev_hash": records[-1].hash if records else START,
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "actor": _actor(),
                "type": type_,
                "request": request,
                "body": body,
            }
        )
        digest = digest_json(content)
        record = LedgerRecord(**content, hash=digest, signature=sign(self._home, digest.encode()))
        if not self._newest.exists():
            write_atomic(self._newest, START.encode())
        # The whole file anew: a crash leaves either the old ledger or the new one, never half a line.
        write_atomic(self._path, _text([*records, record]))
        write_atomic(self._newest, digest.encode())  # after the record: a crash between leaves the one before named
        return record

    def verify(self, anchors: Iterable[str] = ()) -> list[LedgerRecord]:
        """All records, if chain and signatures hold and every anchored head is in it. Raises LedgerError if not."""
        named = self._named_head()  # read first: another process may add a record meanwhile
        text = self._bytes()
        records = self._parsed(text)
        before = START
        public = public_key(self._home) if records else b""
        for seq, record in enumerate(records):
            self._check(record, seq, before, public)
            before = record.hash
        if text != _text(records):
            raise LedgerError(f"{self._path} was edited: it is not written as the ledger writes")
        heads = {record.hash for record in records}
        if not heads.issuperset(anchors):
            raise LedgerError(f"{self._path} was cut or written anew: a certificate names a head that is not in it")
        if named not in {None, START, *heads}:
            raise LedgerError(f"{self._path} was cut: {self._newest.name} names a record that is not in it")
        if records and not self._newest.exists():
            raise LedgerError(f"{self._newest} is missing; put back the one that was there")
        return records

    def list_state(self) -> ListState | None:
        """Which list of deleted samples was recorded last. Raises LedgerError on an edited ledger."""
        states = [record.body["suppression"] for record in self.verify() if "suppression" in record.body]
        return typed(ListState, states[-1]) if states else None

    @property
    def head(self) -> str:
        """The hash of the newest record."""
        records = self.records()
        return records[-1].hash if records else START

    def _alone(self) -> FileLock:
        """Held from reading to writing: of two processes that each add a record, neither undoes the other's."""
        path = self._home / "locks" / "ledger"
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)

    def _bytes(self) -> bytes:
        return self._path.read_bytes() if self._path.exists() else b""

    def _parsed(self, text: bytes) -> list[LedgerRecord]:
        try:
            lines = text.decode().split("\n")
            if lines.pop():
                raise ValueError
            contents = [json.loads(line) for line in lines]
        except ValueError as error:
            raise LedgerError(f"{self._path} was edited: it holds a line that is no record") from error
        return [self._record(content, seq) for seq, content in enumerate(contents)]

    def _record(self, content: Any, seq: int) -> LedgerRecord:
        try:
            return typed(LedgerRecord, content)
        except (ValueError, TypeError) as error:
            place = f"{self._path} was edited at record {seq}"
            raise LedgerError(f"{place}: its fields are not those of a record") from error

    def _named_head(self) -> str | None:
        """What the file beside the ledger says is its head; it is there before the first record is."""
        return self._newest.read_text(encoding="ascii", errors="replace") if self._newest.exists() else None

    def _check(self, record: LedgerRecord, seq: int, before: str, public: bytes) -> None:
        place = f"{self._path} was edited at record {seq}"
        content = {name: value for name, value in record.as_json().items() if name not in ("hash", "signature")}
        if record.seq != seq or record.prev_hash != before:
            raise LedgerError(f"{place}: it does not follow the one before")
        if digest_json(content) != record.hash:
            raise LedgerError(f"{place}: its content is not what was hashed")
        if not signed(public, record.signature, record.hash.encode()):
            raise LedgerError(f"{place}: it is not signed with this home's key")


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
        if record.type == ACCESS:
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


def _text(records: Iterable[LedgerRecord]) -> bytes:
    return b"".join(canonical(record.as_json()) + b"\n" for record in records)


def _actor() -> str:
    with suppress(OSError, KeyError):
        return os.environ.get(ACTOR) or getpass.getuser()
    return "unknown"
