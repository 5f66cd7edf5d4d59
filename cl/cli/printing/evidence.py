"""What was found of a ledger and of certificates, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cl.cli.printing import out

if TYPE_CHECKING:
    from cl.audit.evidence import CertificateStatus
    from cl.audit.ledger_check import LedgerCheck


def print_ledger_check(found: LedgerCheck) -> None:
    """That it holds, what has changed since certificates were made, and what could not be checked."""
    say(f"{found.records} records, {len(found.certificates)} certificates: the ledger holds")
    if found.lost is not None:
        say(f"it takes the place of one of {found.lost.records} records that was lost")
    if found.anchored is not None:
        say(f"anchored outside up to record {found.anchored}")
    if found.stamped is not None:
        say(f"record {found.stamped.counter} was there at {found.stamped.time}")
    for one in found.certificates:
        if one.readmitted is not None:
            say(f"certificate {one.request}: its data were readmitted on {one.readmitted}; it holds no more")
    _print_unchecked(found.unchecked)


def print_certificate(found: CertificateStatus) -> None:
    """What it says and whether that still holds."""
    say(f"certificate of request {found.request}, grade {found.grade}, verified {found.verified}")
    say(f"signed with {found.public_key}")
    if found.software:
        say("by " + ", ".join(f"{name} {value}" for name, value in found.software.items()))
    if found.seed_commitment is not None:
        say(f"commitment to the seed {found.seed_commitment}")
    if found.readmitted is not None:
        say(f"its data were readmitted on {found.readmitted}; it holds no more")
    _print_unchecked(found.unchecked)


def _print_unchecked(lines: tuple[str, ...]) -> None:
    for line in lines:
        say(f"not checked: {line}")


def say(text: str) -> None:
    out.print(text, highlight=False, soft_wrap=True, markup=False)
