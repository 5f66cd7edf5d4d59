"""Checking certificates, with a home or without: against their signature, their page, and a ledger or an export of one.

Loads no torch, so that whoever checks a certificate needs neither models nor data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import rfc8785

from cl.deletion.events import (
    Built,
    Certified,
    Planned,
    Purged,
    Quarantined,
    Readmitted,
    Received,
    Resolved,
    Verified,
    needed,
    newest,
    step_seconds,
)
from cl.digests import digest_bytes
from cl.documents import Document, plain
from cl.errors import BadInput, LedgerError
from cl.home.chain import Chain, Head, LedgerRecord, chain_of, written
from cl.home.keys import signed
from cl.home.ledger import Ledger, as_utf8

GRADES = {
    "E0": "bit-exact: a run that never saw the samples, made cold in new processes, gives the same bytes",
    "E1": "exact by construction, not compared byte for byte: the machine or its libraries differ",
    "A": "nothing exact was proved: the model is not the one that would be without the samples",
}
MADE_FROM = re.compile(rb'<meta name="certificate" content="sha256:([0-9a-f]{64})">')  # of a page


@dataclass(frozen=True)
class Export(Document):
    """What an auditor gets of a ledger. public_key: that the first record is signed with."""

    public_key: str
    head: Head
    records: tuple[LedgerRecord, ...]


@dataclass(frozen=True)
class SignedFile:
    """A certificate whose signature holds under the key that it names."""

    path: Path
    content: Mapping[str, Any]
    digest: str

    @property
    def request(self) -> str:
        return str(self.content.get("request"))

    @property
    def page(self) -> Path:
        return self.path.with_suffix(".html")


@dataclass(frozen=True)
class CertificateStatus:
    """What is to be known of a certificate that holds. readmitted: when its data were let in again, None if never.
    unchecked: what could not be checked, a line each."""

    request: str
    grade: str
    verified: str
    public_key: str
    software: Mapping[str, str] = field(default_factory=dict)
    seed_commitment: str | None = None
    readmitted: str | None = None
    unchecked: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return plain(self)


def export(home: Path) -> Export:
    """All records of a home's ledger, its signed head and its first key: no secret, nothing that is not in it."""
    ledger = Ledger(home)
    head, found = ledger.signed_head, ledger.chain
    return Export(found.keys[0].hex(), head, found.records[: head.counter])


def read_export(path: Path) -> Chain:
    """The chain of an export. Raises LedgerError where it does not hold."""
    found = _export(path)
    chain = chain_of(written(found.records), _key(found.public_key, str(path)), str(path))
    if found.head.counter != len(chain.records) or not chain.signs(found.head):
        raise LedgerError(f"{path} was cut: its head is not its last record")
    return chain


def _export(path: Path) -> Export:
    try:
        return Export.from_json(_read(path), str(path), "ask for another ledger export")
    except RecursionError as error:
        raise LedgerError(f"{path} is no ledger export") from error


def check_certificate(path: Path, public: str | None = None, chain: Chain | None = None) -> CertificateStatus:
    """Check a certificate wherever it lies. public: the operator's key, hexadecimal, from elsewhere; of an export, its
    first. chain: of the ledger export. Raises LedgerError, in one line, where anything does not fit."""
    found = read_certificate(path)
    if chain is not None:
        return _against(found, chain, public)
    if public is not None and public.lower() != found.content["public_key"]:
        raise _other_key(found, public)
    figures = "its figures against the record, and whether its data were readmitted: give --ledger-export"
    return _status(found, [*_owner(found.content["public_key"], public), *_page_alone(found), figures])


def check_home(home: Path) -> list[CertificateStatus]:
    """Check every certificate of a home against its ledger. Raises LedgerError for one that does not fit."""
    chain = Ledger(home).chain
    folder = certificates(home)
    found = [read_certificate(path) for path in sorted(folder.glob("*.json"))]
    for one in found:
        if one.path.stem != one.request:
            raise LedgerError(f"{one.path} is the certificate of request '{one.request}'; put back the right one")
    return [_compared(one, chain) for one in found]


def missing_certificates(home: Path) -> list[str]:
    """Requests that the ledger records as certified and whose certificate is not in the home."""
    folder = certificates(home)
    done = dict.fromkeys(record.request for record in Ledger(home).verify() if record.type == Certified.TYPE)
    return [request for request in done if not (folder / f"{request}.json").exists()]


def certificates(home: Path) -> Path:
    """The folder of a home's certificates."""
    return home / "audit" / "certificates"


def read_certificate(path: Path) -> SignedFile:
    """A certificate. Raises LedgerError unless it is one and its signature holds under the key that it names."""
    text = _read(path)
    try:
        content = json.loads(text)
        if rfc8785.dumps(content) != text:
            raise ValueError
        signature = content.pop("signature")
        form = rfc8785.dumps(content)
        known = {name: content[name] for name in ("request", "grade", "verified", "ledger_head", "public_key")}
        if not all(type(value) is str for value in (signature, *known.values())):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LedgerError(f"{path} is not a certificate; put back the one that was there") from error
    if not signed(_key(known["public_key"], str(path)), signature, form):
        raise LedgerError(f"{path} was edited: its signature does not hold")
    return SignedFile(path, content, digest_bytes(text))


def recorded(records: Sequence[LedgerRecord]) -> dict[str, Any]:
    """What the records of a request, up to its certificate, say of what that certificate states; plain JSON."""
    received, resolved, planned = needed(records, Received), needed(records, Resolved), needed(records, Planned)
    built, purged, verified = needed(records, Built), needed(records, Purged), needed(records, Verified)
    seconds = step_seconds(records)
    return {
        "request": records[0].request,
        "run": received.run,
        "received": records[0].time,
        "verified": next(record.time for record in reversed(records) if record.type == Verified.TYPE),
        "responsible": records[-1].actor,
        "reason": received.reason,
        "method": received.method,
        "scope": received.scope,
        "selectors": [one.kind for one in received.selectors],
        "samples": resolved.samples,
        "train": resolved.train,
        "test": resolved.test,
        "commitment": resolved.commitment,
        "grade": verified.grade,
        "checks": plain(verified.details),
        "manifest": {
            "before": planned.manifest_before,
            "after": verified.manifest_after,
            "oracle": verified.manifest_oracle,
        },
        "components": {"tainted": planned.tainted, "rebuilt": built.rebuilt, "reused": built.reused},
        "purged": purged.counts,
        "cost": {
            "predicted_seconds": float(planned.predicted_seconds),
            "seconds": round(sum(spent for _, spent in seconds), 3),
            "steps": dict(seconds),
            "full_retrain_seconds": float(built.full_retrain_seconds),
            "oracle_seconds": float(verified.oracle_seconds),
        },
        "stale_runs": needed(records, Quarantined).stale,
    }


def _against(found: SignedFile, chain: Chain, public: str | None) -> CertificateStatus:
    """The same where the ledger comes from elsewhere, too: it may be an old one, or somebody else's."""
    status = _compared(found, chain)
    trusted = chain.keys[: _newest_before(found, chain).seq + 2]  # the certificate's key follows from each of these
    if public is not None and public.lower() not in {key.hex() for key in trusted}:
        raise _other_key(found, public)
    later = f"what was recorded after {chain.records[-1].time}, where this export ends"
    return replace(status, unchecked=(*_owner(trusted[0].hex(), public), *status.unchecked, later))


def _compared(found: SignedFile, chain: Chain) -> CertificateStatus:
    """Key, figures and digests of the certificate are those of the ledger."""
    last = _newest_before(found, chain)
    before = [one for one in chain.records[: last.seq + 1] if one.request == found.request]
    if found.content["public_key"] != chain.keys[last.seq + 1].hex():
        raise LedgerError(f"{found.path} is signed with another key than the ledger had then")
    wrong = next(_differences(as_utf8(recorded(before)), found.content), None)
    if wrong is not None:
        raise LedgerError(f"{found.path} does not say what the ledger recorded: {wrong} is another")
    after = [one for one in chain.records[last.seq + 1 :] if one.request == found.request]
    readmitted = [one.time for one in after if one.type == Readmitted.TYPE]
    unchecked = _files_against(found, newest(after, Certified))
    return _status(found, unchecked, readmitted[-1] if readmitted else None)


def _newest_before(found: SignedFile, chain: Chain) -> LedgerRecord:
    """The record that was the newest when the certificate was made."""
    heads = [record for record in chain.records if record.hash == found.content["ledger_head"]]
    if not heads:
        raise LedgerError(f"{found.path} names a head that is not in the ledger, which was cut or written anew")
    if not any(one.request == found.request for one in chain.records[: heads[0].seq + 1]):
        raise LedgerError(f"{found.path} is of request '{found.request}', which the ledger does not know")
    return heads[0]


def _files_against(found: SignedFile, made: Certified | None) -> list[str]:
    """Certificate and page against the digests that were recorded; what could not be compared."""
    if made is None:
        return [f"request {found.request}: that it was signed is not recorded; palimpsest forget certify records it"]
    if made.certificate is None:
        return [f"request {found.request}: its page, of which the ledger of that release keeps no digest"]
    if made.certificate != found.digest:
        raise LedgerError(f"{found.path} is not the certificate that was recorded; put back the one that was there")
    if not found.page.exists():
        return [f"request {found.request}: its page, which is not beside the certificate"]
    if digest_bytes(_read(found.page)) != made.page:
        raise LedgerError(f"{found.page} was edited; make it again, or put back the one that was there")
    return []


def _page_alone(found: SignedFile) -> list[str]:
    """Without a record, all that can be told of a page is whether it says that it was made from this certificate."""
    if not found.page.exists():
        return ["its page, which is not beside it"]
    made_from = MADE_FROM.search(_read(found.page))
    if made_from is None or made_from[1].decode() != found.digest:
        raise LedgerError(f"{found.page} was not made from {found.path.name}; put back the one that was")
    return ["what its page says: its digest is in the ledger"]


def _owner(key: str, public: str | None) -> list[str]:
    return [] if public is not None else [f"whose key {key} is: give the one that you know with --public-key"]


def _other_key(found: SignedFile, public: str) -> LedgerError:
    key = found.content["public_key"]
    return LedgerError(f"{found.path} is not signed with the key {public[:16]}... but with {key[:16]}...")


def _status(found: SignedFile, unchecked: Sequence[str], readmitted: str | None = None) -> CertificateStatus:
    said = found.content
    return CertificateStatus(
        request=found.request,
        grade=said["grade"],
        verified=said["verified"],
        public_key=said["public_key"],
        software=said.get("software") or {},
        seed_commitment=said.get("seed_commitment"),
        readmitted=readmitted,
        unchecked=tuple(unchecked),
    )


def _differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Names of what the certificate does not say as it was recorded. Of its costs, the ledger knows a part."""
    costs = found["cost"] if isinstance(found.get("cost"), Mapping) else {}
    known = {**expected, "cost": {**costs, **expected["cost"]}}
    return (name for name, value in known.items() if rfc8785.dumps(value) != rfc8785.dumps(found.get(name)))


def _key(text: str, name: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != 32:
        raise LedgerError(f"{name} names no public key; put back the file that was there")
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); check the path") from error
