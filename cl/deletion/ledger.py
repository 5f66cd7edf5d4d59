"""The ledger: what was asked, done and found, as a chain of signed records.

One JSON line a record, in the form of RFC 8785 (bodies have no fractions). `hash` covers all fields but itself and the
signature, `prev_hash` chains it to the record before. Identifiers and digests of deleted data enter as keyed hashes
only. What a request's state is, is read from here and stored nowhere else.
"""

from __future__ import annotations

import getpass
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from cl.digests import canonical, digest_json
from cl.errors import DeletionError, LedgerError, shown
from cl.home.keys import public_key, sign, signed
from cl.home.store import Store
from cl.home.writing import write_atomic

ACTOR = "PALIMPSEST_ACTOR"  # who answers for what is done, if not the login name
START = "0" * 64
ACCESS = "access_changed"  # a record about who may read what; it belongs to no request
FIELDS = ("seq", "prev_hash", "time", "actor", "type", "request", "body", "hash", "signature")
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
    """`audit/ledger.jsonl` of a home."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._path = home / "audit" / "ledger.jsonl"
        self._newest = home / "audit" / "ledger.head"  # names the newest record, so that a cut ledger is noticed

    def records(self) -> list[dict[str, Any]]:
        """Every record, oldest first. Raises LedgerError on a line that is none."""
        return self._parsed(self._bytes())

    def of(self, request: str) -> list[dict[str, Any]]:
        """The records of one request. Raises LedgerError on an edited ledger: nothing is decided by one."""
        return [record for record in self.verify() if record["request"] == request]

    def known(self, request: str) -> list[dict[str, Any]]:
        """The records of a request that was made. Raises DeletionError for another one."""
        records = self.of(request)
        if not records or not request:  # what is under no request is about access
            raise DeletionError(f"no request '{shown(request)}' in {self._home}; palimpsest forget status lists them")
        return records

    def append(self, type_: str, request: str, body: dict[str, Any]) -> dict[str, Any]:
        """Add a record and return it; it is on the disk when this returns. Raises LedgerError on an edited ledger."""
        with self._alone():
            return self._append(type_, request, body)

    def _append(self, type_: str, request: str, body: dict[str, Any]) -> dict[str, Any]:
        records = self.verify()
        content = readable(
            {
                "seq": len(records),
                "prev_hash": records[-1]["hash"] if records else START,
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "actor": _actor(),
                "type": type_,
                "request": request,
                "body": body,
            }
        )
        digest = digest_json(content)
        record = {**content, "hash": digest, "signature": sign(self._home, digest.encode())}
        if not self._newest.exists():
            write_atomic(self._newest, START.encode())
        # The whole file anew: a crash leaves either the old ledger or the new one, never half a line.
        write_atomic(self._path, b"".join(canonical(one) + b"\n" for one in [*records, record]))
        write_atomic(self._newest, digest.encode())  # after the record: a crash between leaves the one before named
        return record

    def verify(self, anchors: Iterable[str] = ()) -> list[dict[str, Any]]:
        """All records, if chain and signatures hold and every anchored head is in it. Raises LedgerError if not."""
        named = self._named_head()  # read first: another process may add a record meanwhile
        text = self._bytes()
        records = self._parsed(text)
        before = START
        public = public_key(self._home) if records else b""
        for seq, record in enumerate(records):
            self._check(record, seq, before, public)
            before = record["hash"]
        if text != b"".join(canonical(record) + b"\n" for record in records):
            raise LedgerError(f"{self._path} was edited: it is not written as the ledger writes")
        heads = {record["hash"] for record in records}
        if not heads.issuperset(anchors):
            raise LedgerError(f"{self._path} was cut or written anew: a certificate names a head that is not in it")
        if named not in {None, START, *heads}:
            raise LedgerError(f"{self._path} was cut: {self._newest.name} names a record that is not in it")
        if records and not self._newest.exists():
            raise LedgerError(f"{self._newest} is missing; put back the one that was there")
        return records

    @property
    def head(self) -> str:
        """The hash of the newest record."""
        records = self.records()
        return str(records[-1]["hash"]) if records else START

    def _alone(self) -> FileLock:
        """Held from reading to writing: of two processes that each add a record, neither undoes the other's."""
        path = self._home / "locks" / "ledger"
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path)

    def _bytes(self) -> bytes:
        return self._path.read_bytes() if self._path.exists() else b""

    def _parsed(self, text: bytes) -> list[dict[str, Any]]:
        try:
            lines = text.decode().split("\n")
            if lines.pop():
                raise ValueError
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise LedgerError(f"{self._path} was edited: it holds a line that is no record") from error

    def _named_head(self) -> str | None:
        """What the file beside the ledger says is its head; it is there before the first record is."""
        return self._newest.read_text(encoding="ascii", errors="replace") if self._newest.exists() else None

    def _check(self, record: Any, seq: int, before: str, public: bytes) -> None:
        place = f"{self._path} was edited at record {seq}"
        if not isinstance(record, dict) or tuple(sorted(record)) != tuple(sorted(FIELDS)):
            raise LedgerError(f"{place}: its fields are not those of a record")
        content = {name: value for name, value in record.items() if name not in ("hash", "signature")}
        if record["seq"] != seq or record["prev_hash"] != before:
            raise LedgerError(f"{place}: it does not follow the one before")
        if digest_json(content) != record["hash"]:
            raise LedgerError(f"{place}: its content is not what was hashed")
        if not signed(public, str(record["signature"]), str(record["hash"]).encode()):
            raise LedgerError(f"{place}: it is not signed with this home's key")


def readable(content: Mapping[str, Any]) -> dict[str, Any]:
    """JSON with names that are not UTF-8 (a folder's, the actor's) made so: no canonical form has others."""
    found: dict[str, Any] = json.loads(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
    return found


def writing(home: Path) -> FileLock:
    """The lock under which one deletion at a time works on a home."""
    Store(home)
    (home / "locks").mkdir(exist_ok=True)
    return FileLock(home / "locks" / "forget")


def state(records: Iterable[dict[str, Any]]) -> str:
    """What a request is, from its records: one of STATES, or `executing` with the step that was begun."""
    found = "unknown"
    for record in records:
        if record["type"] in STATES:
            found = record["type"]
        elif record["type"] in ("step_started", "step_done"):
            found = f"executing ({record['body']['step']})"
    return found


def body(records: Iterable[dict[str, Any]], type_: str, step: str | None = None) -> dict[str, Any] | None:
    """The newest body of this type (and step); None if there is none."""
    bodies = [r["body"] for r in records if r["type"] == type_ and (step is None or r["body"].get("step") == step)]
    return bodies[-1] if bodies else None


def status(home: Path, request: str | None = None) -> list[dict[str, Any]]:
    """One row a request, oldest first, or that of `request` alone. Raises DeletionError for one that is not there."""
    grouped: dict[str, list[dict[str, Any]]] = {}
    for record in Ledger(home).verify() if request is None else Ledger(home).known(request):
        if record["type"] == ACCESS:
            continue
        grouped.setdefault(record["request"], []).append(record)
    return [_row(name, records) for name, records in grouped.items()]


def _row(request: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    first = records[0]["body"]
    checked = body(records, "verified") or body(records, "failed") or {}
    return {
        "request": request,
        "state": state(records),
        "run": first.get("run"),
        "method": first.get("method"),
        "scope": first.get("scope"),
        "samples": (body(records, "resolved") or first).get("samples"),
        "grade": checked.get("grade"),
        "received": records[0]["time"],
    }


def _actor() -> str:
    with suppress(OSError, KeyError):
        return os.environ.get(ACTOR) or getpass.getuser()
    return "unknown"
