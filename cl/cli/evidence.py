"""`palimpsest ledger` and `certificate`: the record of every deletion, and checking what was made of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cl.cli.common import AsJson, Home, existing_home, help_if_alone, print_json
from cl.errors import BadInput

app = typer.Typer()
ledger = typer.Typer(callback=help_if_alone, invoke_without_command=True, help="The signed record of every deletion.")
certificate = typer.Typer(
    callback=help_if_alone, invoke_without_command=True, help="Check a certificate, with no home at hand."
)
app.add_typer(ledger, name="ledger")
app.add_typer(certificate, name="certificate")

AnchorPath = Annotated[
    Path | None,
    typer.Option("--anchor", help="A file of heads, or a git repository with one [default: $PALIMPSEST_ANCHOR]."),
]


@ledger.command("verify", epilog="Example: palimpsest ledger verify --anchor /mnt/elsewhere/heads.jsonl")
def verify_ledger(
    anchor: AnchorPath = None,
    token: Annotated[Path | None, typer.Option("--token", help="A time stamp of a head (RFC 3161).")] = None,
    authority: Annotated[
        Path | None, typer.Option("--authority", help="Certificates of who made it, root last (PEM).")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Check chain, keys and heads, and every certificate and page against the records. Says what it could not check."""
    from cl.audit.ledger_check import check_ledger
    from cl.cli.printing.evidence import print_ledger_check

    if (token is None) != (authority is None):
        raise BadInput("a time stamp is checked against who made it: give both --token and --authority")
    found = check_ledger(existing_home(home), anchor, (token, authority) if token and authority else None)
    if as_json:
        print_json(found.as_json())
        return
    print_ledger_check(found)


@ledger.command("show", epilog="Example: palimpsest ledger show --json")
def show_ledger(home: Home = None, as_json: AsJson = False) -> None:
    """Every record, oldest first."""
    from cl.cli.printing.deletion import print_records
    from cl.home.ledger import Ledger

    records = Ledger(existing_home(home)).records()
    if as_json:
        print_json([one.as_json() for one in records])
        return
    print_records(records)


@ledger.command("export", epilog="Example: palimpsest ledger export --out ledger.json")
def export_ledger(
    out_file: Annotated[Path | None, typer.Option("--out", help="Write it here.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """What an auditor needs, as JSON: all records, the first public key and the signed head. No secret is in it."""
    from cl.audit.evidence import export
    from cl.cli.printing import out
    from cl.home.writing import write_atomic

    text = export(existing_home(home)).to_json().decode() + "\n"
    if out_file is None:
        sys.stdout.write(text)
        return
    write_atomic(out_file, text.encode())
    print_json({"export": str(out_file)}) if as_json else out.print(str(out_file), soft_wrap=True, highlight=False)


@ledger.command("anchor", epilog="Example: palimpsest ledger anchor --to /mnt/elsewhere/heads.jsonl")
def anchor_ledger(
    to: Annotated[
        Path | None, typer.Option("--to", help="A file, or a git repository [default: $PALIMPSEST_ANCHOR].")
    ] = None,
    request_file: Annotated[
        Path | None, typer.Option("--request", help="Write a request for a time stamp here instead (RFC 3161).")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Put the newest head where who can write the home cannot: a file, a git repository, or a time stamp."""
    from cl.audit.ledger_check import anchor_now
    from cl.audit.timestamps import time_stamp_request
    from cl.cli.printing import out
    from cl.home.ledger import Ledger
    from cl.home.writing import write_atomic

    place = existing_home(home)
    if request_file is not None:
        head = Ledger(place).signed_head
        write_atomic(request_file, time_stamp_request(head))
    else:
        head = anchor_now(place, to)
    if as_json:
        print_json({"counter": head.counter, "hash": head.hash})
        return
    out.print(f"head {head.counter}: {head.hash}", highlight=False, soft_wrap=True)


@ledger.command("rotate-key", epilog="Example: palimpsest ledger rotate-key")
def rotate_key(home: Home = None, as_json: AsJson = False) -> None:
    """Sign with a new key from now on. The old key signs that it is so, and is destroyed."""
    from cl.cli.printing import out
    from cl.home.ledger import Ledger, writing

    place = existing_home(home)
    with writing(place):
        public = Ledger(place).rotate_key().hex()
    if as_json:
        print_json({"public_key": public})
        return
    out.print(f"signed from now on with the key {public}", highlight=False, soft_wrap=True)


@certificate.command("verify", epilog="Example: palimpsest certificate verify 5c01d2.json --ledger-export ledger.json")
def verify_certificate(
    file: Annotated[Path, typer.Argument(help="A certificate; its page is looked for beside it.")],
    public_key: Annotated[
        str | None, typer.Option("--public-key", help="The operator's key: 64 hexadecimal digits, or a file of them.")
    ] = None,
    ledger_export: Annotated[
        Path | None, typer.Option("--ledger-export", help="What palimpsest ledger export wrote.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a certificate without its home. Exit code 1 if its data were readmitted since."""
    from cl.audit.evidence import check_certificate, read_export
    from cl.cli.printing.evidence import print_certificate

    chain = read_export(ledger_export) if ledger_export else None
    found = check_certificate(file, _key(public_key) if public_key else None, chain)
    if as_json:
        print_json({**found.as_json(), "holds": found.readmitted is None})
    else:
        print_certificate(found)
    if found.readmitted is not None:
        raise typer.Exit(1)


def _key(text: str) -> str:
    path = Path(text)
    found = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else text
    if len(found) != 64:
        raise BadInput("a public key is 64 hexadecimal digits, or a file of them; the operator publishes it")
    return found
