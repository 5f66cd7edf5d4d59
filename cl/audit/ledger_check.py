"""Checking the ledger of a home as a whole: its chain, what was anchored outside, every certificate and page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl.audit.evidence import CertificateStatus, check_home, missing_certificates
from cl.audit.timestamps import TimeStamp, check_time_stamp
from cl.documents import plain
from cl.errors import BadInput
from cl.home.anchors import ANCHOR, Anchor, check_anchored, configured
from cl.home.chain import Chain, Head
from cl.home.deletions import LedgerState
from cl.home.ledger import Ledger, lost_before


@dataclass(frozen=True)
class LedgerCheck:
    """What was found of a ledger that holds. key: that is signed with now. anchored: how many records an anchor covers,
    stamped: what a time stamp says; None where none was given. lost: of the ledger that this one takes the place of.
    unchecked: what could not be checked, a line each."""

    records: int
    head: str
    key: str
    certificates: tuple[CertificateStatus, ...]
    anchored: int | None
    stamped: TimeStamp | None
    lost: LedgerState | None
    unchecked: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {**plain(self), "anchors": len(self.certificates)}


def check_ledger(home: Path, anchor: Path | None = None, stamp: tuple[Path, Path] | None = None) -> LedgerCheck:
    """anchor: where heads were anchored, else where the environment says. stamp: a time stamp of a head, and the
    certificates of who made it. Raises LedgerError, in one line, where anything does not fit."""
    chain = Ledger(home).chain
    outside = Anchor(anchor) if anchor is not None else configured()
    anchored = None if outside is None else check_anchored(outside.heads(), chain, str(home / "audit"))
    stamped = None if stamp is None else check_time_stamp(*stamp, chain)
    found = check_home(home)
    return LedgerCheck(
        records=len(chain.records),
        head=chain.head,
        key=chain.keys[-1].hex(),
        certificates=tuple(found),
        anchored=anchored,
        stamped=stamped,
        lost=lost_before(chain),
        unchecked=(
            *_unanchored(chain, anchored, stamped),
            *(line for one in found for line in one.unchecked),
            *(f"request {one}: its certificate, which is not in the home" for one in missing_certificates(home)),
            *(["copies of certificates elsewhere: palimpsest certificate verify takes each"] if found else []),
        ),
    )


def anchor_now(home: Path, to: Path | None) -> Head:
    """Anchor the newest head. Raises LedgerError where the anchor is of another ledger."""
    outside = Anchor(to) if to is not None else configured()
    if outside is None:
        raise BadInput(f"say where: --to, or {ANCHOR}")
    ledger = Ledger(home)
    head = ledger.signed_head
    if check_anchored(outside.heads(), ledger.chain, str(home / "audit")) < head.counter:
        outside.add(head)
    return head


def _unanchored(chain: Chain, anchored: int | None, stamped: TimeStamp | None) -> list[str]:
    """What nothing outside the home vouches for."""
    if anchored is None and stamped is None:
        return ["whether the home as a whole was put back from an older copy: nothing is anchored outside"]
    covered = max(anchored or 0, stamped.counter if stamped else 0)
    left = len(chain.records) - covered
    return [f"whether anything followed the newest records: {left} of them are not anchored outside"] if left else []
