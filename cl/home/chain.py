"""The chain of signed records: all that can be checked of a ledger, or of an export of one, without its home.

`hash` of a record covers all its fields but itself and the signature, `prev_hash` chains it to the record before. A
head says how many records there are and which is the newest; it is signed with the key that signed that record. The
key changes by a record that the old key signed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cl.digests import canonical, digest_json
from cl.documents import plain, typed
from cl.errors import LedgerError
from cl.home.keys import signed

START = "0" * 64
KEY_CHANGED = "key_changed"  # what follows is signed with the key that this record names
UNCHAINED = ("hash", "signature")  # the fields of a record that its hash does not cover


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


@dataclass(frozen=True)
class Head:
    """The newest record. counter: how many records there are with it; it only grows."""

    counter: int
    hash: str
    signature: str

    @property
    def message(self) -> bytes:
        """What the signature is over."""
        return head_message(self.counter, self.hash)


@dataclass(frozen=True)
class Chain:
    """Records that follow each other. keys: the public key that each is signed with, and last the one from now on."""

    records: tuple[LedgerRecord, ...]
    keys: tuple[bytes, ...]

    @property
    def head(self) -> str:
        return self.records[-1].hash if self.records else START

    def has(self, counter: int, head: str) -> bool:
        """Whether the first `counter` records end with this hash."""
        if not counter:
            return head == START
        return 0 < counter <= len(self.records) and self.records[counter - 1].hash == head

    def signs(self, head: Head) -> bool:
        """Whether the head is one of this chain, signed with the key of that time."""
        return head.counter > 0 and self.has(head.counter, head.hash) and _signs(self.keys[head.counter - 1], head)


def head_message(counter: int, head: str) -> bytes:
    """What the signature of a head is over, and what a time stamp of one is of."""
    return canonical({"counter": counter, "hash": head})


def written(records: Iterable[LedgerRecord]) -> bytes:
    """One canonical JSON line a record."""
    return b"".join(canonical(record.as_json()) + b"\n" for record in records)


def parsed(text: bytes, name: str) -> list[LedgerRecord]:
    """The records of a ledger's text. Raises LedgerError on a line that is none."""
    try:
        lines = text.decode().split("\n")
        if lines.pop():
            raise ValueError
        contents = [json.loads(line) for line in lines]
    except (ValueError, RecursionError) as error:
        raise LedgerError(f"{name} was edited: it holds a line that is no record") from error
    return [_record(content, seq, name) for seq, content in enumerate(contents)]


@lru_cache(maxsize=4)
def chain_of(text: bytes, public: bytes, name: str) -> Chain:
    """The records of `text`, if each follows the one before and is signed. public: the key of the first. Every command
    asks for the same text several times. Raises LedgerError where the chain is broken."""
    records = parsed(text, name)
    if text != written(records):
        raise LedgerError(f"{name} was edited: it is not written as the ledger writes")
    keys, before = [public], START
    for seq, record in enumerate(records):
        _check(record, seq, before, keys[-1], f"{name} was edited at record {seq}")
        keys.append(_key_after(record, keys[-1], name))
        before = record.hash
    return Chain(tuple(records), tuple(keys))


def _record(content: Any, seq: int, name: str) -> LedgerRecord:
    try:
        return typed(LedgerRecord, content)
    except (ValueError, TypeError) as error:
        raise LedgerError(f"{name} was edited at record {seq}: its fields are not those of a record") from error


def _check(record: LedgerRecord, seq: int, before: str, public: bytes, place: str) -> None:
    content = {name: value for name, value in record.as_json().items() if name not in UNCHAINED}
    if record.seq != seq or record.prev_hash != before:
        raise LedgerError(f"{place}: it does not follow the one before")
    if digest_json(content) != record.hash:
        raise LedgerError(f"{place}: its content is not what was hashed")
    if not signed(public, record.signature, record.hash.encode()):
        raise LedgerError(f"{place}: it is not signed with this home's key")


def _key_after(record: LedgerRecord, public: bytes, name: str) -> bytes:
    if record.type != KEY_CHANGED:
        return public
    try:
        return bytes.fromhex(record.body["public_key"])
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(f"{name} names no key at record {record.seq}; put back the one that was there") from error


def _signs(public: bytes, head: Head) -> bool:
    return signed(public, head.signature, head.message)
