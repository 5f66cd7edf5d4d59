"""Receipts: what lets a person show later that it was her images that were meant, and lets nobody else find out.

The ledger holds one commitment a person of a request: a hash over a nonce, the person's name, and the samples with
their marks. Nonces are sealed with the request and destroyed with it; a receipt that was handed out opens its
commitment for good, without the home.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cl.data.names import normalised
from cl.deletion.dossier import ForgottenSamples, read_dossier
from cl.deletion.events import Resolved, needed
from cl.deletion.vault import Vault
from cl.digests import digest_json
from cl.documents import Document
from cl.errors import DeletionError, UnknownName
from cl.home.chain import LedgerRecord
from cl.home.ledger import Ledger


@dataclass(frozen=True)
class ReceiptSample:
    """One image: its id, and the digests of its file's bytes and of its pixels."""

    id: str
    marks: tuple[str, ...]


@dataclass(frozen=True)
class Receipt(Document):
    """What opens one commitment of a request."""

    request: str
    stream: str
    subject: str
    samples: tuple[ReceiptSample, ...]
    nonce: str

    @property
    def commitment(self) -> str:
        """What the ledger holds of it: SHA-256 over nonce, request, stream, person and samples, as canonical JSON."""
        samples = [[one.id, list(one.marks)] for one in self.samples]
        return digest_json(["receipt", self.nonce, self.request, self.stream, self.subject, samples])


def receipts_of(request: str, forgotten: ForgottenSamples, nonces: Mapping[str, str]) -> list[Receipt]:
    """One receipt a person."""
    return [_receipt(request, forgotten, who, nonce) for who, nonce in nonces.items()]


def _receipt(request: str, forgotten: ForgottenSamples, who: str, nonce: str) -> Receipt:
    mine = sorted(name for name, one in forgotten.samples.items() if one.subject == who)
    samples = tuple(ReceiptSample(name, forgotten.samples[name].marks) for name in mine)
    return Receipt(request, forgotten.stream, who, samples, nonce)


def receipt_for(home: Path, request: str, subject: str) -> Receipt:
    """The receipt of a person. Raises DeletionError once the request was certified, UnknownName for nobody of it."""
    Ledger(home).known(request)
    dossier = read_dossier(Vault(home), request)
    found = {one.subject: one for one in receipts_of(request, dossier.forgotten, dossier.nonces)}
    if normalised(subject) not in found:
        raise UnknownName("person of this request", subject, found)
    return found[normalised(subject)]


def check_receipt(receipt: Receipt, records: Iterable[LedgerRecord]) -> None:
    """Raises DeletionError unless the ledger committed itself to exactly this receipt."""
    mine = [record for record in records if record.request == receipt.request]
    if not mine:
        raise DeletionError(f"the ledger knows no request '{receipt.request}'; is it the ledger of that home?")
    if receipt.commitment not in needed(mine, Resolved).people:
        raise DeletionError("the ledger did not commit itself to this receipt: name, samples or nonce are others")


def read_receipt(path: Path) -> Receipt:
    """A receipt from its file. Raises StoreError for a damaged one."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DeletionError(f"{path} cannot be read ({error.strerror}); check the path") from error
    return Receipt.from_json(text, f"receipt {path}", "ask for a copy of the one that was handed out")


def written(receipt: Receipt) -> str:
    """The receipt as the text of a file."""
    return json.dumps(json.loads(receipt.to_json()), indent=2, ensure_ascii=False)
