"""`palimpsest gc` and `palimpsest store verify`: keeping a home small and sound."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cl.cli.common import AsJson, Home, existing_home, help_if_alone, print_json
from cl.errors import BadInput

if TYPE_CHECKING:
    from cl.home.store import Store

app = typer.Typer()
store = typer.Typer(help="Look after the store.", callback=help_if_alone, invoke_without_command=True)
app.add_typer(store, name="store")

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@app.command(epilog="Example: palimpsest gc --caches --keep 20GB --dry-run")
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    caches: Annotated[bool, typer.Option("--caches", help="Evict caches too, the least recently used first.")] = False,
    keep: Annotated[str | None, typer.Option(help="With --caches: how much of them may stay, such as 20GB.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Remove what no run uses, and what a crash left. Results stay as they are; a cache is built again when needed."""
    from cl.cli.printing import out
    from cl.home.gc import collect

    if keep is not None and not caches:
        raise BadInput("--keep says how much of the caches may stay; give it together with --caches")
    size = parse_size(keep) if keep is not None else 0
    found = collect(_store(home), caches=caches, keep=size, dry_run=dry_run)
    total = sum(one.bytes for one in found)
    if as_json:
        rows = [{"what": one.what, "name": one.name, "bytes": one.bytes} for one in found]
        print_json({"dry_run": dry_run, "removed": rows, "bytes": total})
        return
    for one in found:
        out.print(f"{one.what} {one.name[:24]} {show_size(one.bytes)}", highlight=False, soft_wrap=True)
    verb = "would remove" if dry_run else "removed"
    out.print(f"{verb} {len(found)} things, {show_size(total)}", highlight=False)


@store.command(epilog="Example: palimpsest store verify --fix")
def verify(
    fix: Annotated[bool, typer.Option("--fix", help="Remove what is damaged, so that it is made again.")] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Hash everything again and list the faults, one line each; exit code 1 where faults remain."""
    from cl.cli.printing import out
    from cl.home.check import faults

    place = _store(home)
    found = list(faults(place))
    if fix:
        for fault in found:
            fault.mend()
    remaining = list(faults(place)) if fix else found
    if as_json:
        rows = [{"path": str(one.path), "fault": one.what, "mended": one not in remaining} for one in found]
        print_json({"faults": rows, "remaining": len(remaining)})
    else:
        for one in found:
            end = f"; {one.mended}" if fix else ""
            out.print(f"{one.what}: {one.path}{end}", highlight=False, markup=False, soft_wrap=True)
        mend = "" if fix or not found else "; mend them with --fix"
        out.print(f"{len(remaining)} faults in {sum(1 for _ in place.keys())} components{mend}", highlight=False)
    if remaining:
        raise typer.Exit(1)


def parse_size(text: str) -> int:
    """`20GB`, `1.5 MiB` or `4096` in bytes. Raises BadInput."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE | re.ASCII)
    if found is None:
        raise BadInput(f"'{text}' is not a size; write it like 20GB, 500MB or 0")
    number, unit, binary = found.groups()
    factor = 1024 ** ("kmgt".index(unit.lower()) + 1) if binary and unit else UNITS[unit.lower()]
    return int(Decimal(number) * factor)


def show_size(size: float) -> str:
    """Bytes in a unit that people read."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _store(home: Path | None) -> Store:
    from cl.home.store import Store

    return Store(existing_home(home))
