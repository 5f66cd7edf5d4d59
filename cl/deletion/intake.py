"""Taking a request in: what it is about is sealed, then recorded; and finding those that were not ended."""

from __future__ import annotations

import secrets
from pathlib import Path

from cl.deletion.dossier import Dossier, read_dossier
from cl.deletion.events import Approved, Event, KeyedSelector, Planned, Received, Resolved, append
from cl.deletion.receipts import receipts_of
from cl.deletion.vault import Vault
from cl.home.keys import keyed
from cl.home.ledger import Ledger, state

OPEN = ("received", "resolved", "planned", "approved", "quarantined", "executing", "failed")


def receive(home: Path, dossier: Dossier) -> str:
    """Seal what a request is about, then record it; the request's id."""
    request = secrets.token_hex(6)
    Vault(home).put(request, dossier.to_json())
    record_intake(home, request)
    return request


def record_intake(home: Path, request: str) -> None:
    """Record what was sealed: that it was received, resolved, planned and approved, where a crash left that out."""
    ledger, vault = Ledger(home), Vault(home)
    known = {record.type for record in ledger.of(request)}
    for event in _events(request, read_dossier(vault, request), vault.key(request)):
        if event.TYPE not in known:
            append(ledger, request, event)


def _events(request: str, dossier: Dossier, key: bytes) -> list[Event]:
    order, forgotten, forecast = dossier.order, dossier.forgotten, dossier.forecast
    names = sorted(keyed(key, sample) for sample in forgotten.samples)
    selectors = tuple(KeyedSelector(one.kind, keyed(key, one.value)) for one in order.selectors)
    people = tuple(sorted(one.commitment for one in receipts_of(request, forgotten, dossier.nonces)))
    return [
        Received(order.run, order.scope, order.method, order.reason, selectors),
        Resolved(len(names), forgotten.train, forgotten.test, commitment=keyed(key, names), people=people),
        Planned(
            tainted=len(dossier.taint.keys),
            build=forecast.build,
            predicted_seconds=f"{forecast.predicted_seconds:.3f}",
            full_retrain_seconds=f"{forecast.full_retrain_seconds:.3f}",
            manifest_before=keyed(key, dossier.before.manifest),
        ),
        Approved(),
    ]


def interrupted_deletions(home: Path) -> list[tuple[str, Dossier]]:
    """Deletions that were begun and not ended; what a crash left before `received` is destroyed."""
    ledger, vault = Ledger(home), Vault(home)
    found: list[tuple[str, Dossier]] = []
    for request in vault.requests():
        records = ledger.of(request)
        if not records:
            vault.destroy(request)
            continue
        dossier = read_dossier(vault, request)
        if dossier.order.method == "exact" and state(records).partition(" ")[0] in OPEN:
            found.append((request, dossier))
    return found
