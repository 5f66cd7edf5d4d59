"""What was made from what: the components of a run with their reads, read from the records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cl.home.runs import Runs
from cl.home.store import Record, Store


def components(home: Path, run: str) -> list[dict[str, Any]]:
    """Every component that the run used, by name: key, role, digest, size, seconds and the names of what it read."""
    store = Store(home)
    uses = Runs(store).served(run).uses
    records = {use.key: record for use in uses if (record := store.find(use.key)) is not None}
    names = {use.key: use.name for use in uses}
    return [row for use in uses if use.key in records for row in _rows(use.name, records[use.key], names)]


def _rows(name: str, record: Record, names: dict[str, str]) -> list[dict[str, Any]]:
    reads = sorted({_read_name(read, names) for read in record.reads})
    shared = {
        "key": record.key,
        "build": record.build,
        "seconds": record.seconds,
        "passes": record.passes,
        "reads": reads,
    }
    return [
        {
            "name": f"{name}/{part}" if part else name,
            "role": what["role"],
            "digest": what["digest"],
            "numel": what["numel"],
            **shared,
        }
        for part, what in record.parts.items()
    ]


def _read_name(read: Any, names: dict[str, str]) -> str:
    if read["kind"] == "shard":
        return f"shard {read['digest'][:12]}"
    name = names.get(read["key"], read["key"][:12])
    return f"{name}/{read['part']}" if read["part"] else name
