"""What one component of a run was made from, and what would be tainted with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cl.errors import BadInput, StoreError, UnknownName
from cl.home.index import Index
from cl.home.records import Manifest
from cl.home.runs import MANIFEST, read_manifest
from cl.home.shards import readings
from cl.home.store import Record, Store


class Ancestry:
    """The components of one run by name, and the edges between them.

    A component is called by its name in the model, else by the name that it was built under; where several share
    that one, by name and the beginning of the key, as `scores:3fa94b`. `NAME/PART` is one part of it, as the manifest
    calls it. Raises StoreError for a damaged manifest.
    """

    def __init__(self, home: Path, run: str) -> None:
        self._home, self._store = home, Store(home)
        manifest = read_manifest(home / "runs" / run / MANIFEST, "run it again")
        self._labels = _labels(manifest)  # key -> name
        self._keys = _keys(manifest) | {name: key for key, name in self._labels.items()}
        self._names_of_parts = [name for name in manifest.components if name not in self._keys]

    def made_from(self, name: str) -> list[dict[str, Any]]:
        """The component itself, then all that it was made from, nearest first, each once. The parts of a component were
        made together, so they have one lineage."""
        todo, seen = [self._named(name)[0]], dict[str, Record]()
        while todo:
            key = todo.pop(0)
            record = self._store.find(key) if key not in seen else None
            if record is not None:
                seen[key] = record
                todo += [read["key"] for read in record.reads if read["kind"] == "part"]
        return [self._row(record) for record in seen.values()]

    def dependents(self, name: str) -> list[dict[str, Any]]:
        """The components of this run that read `name`, directly or not; of a part, those that read that part."""
        key, digests = self._named(name)
        index = Index(self._store)
        tainted = {reader for digest in digests for reader in index.dependents(digest)} - {key}
        index.close()
        found = [self._store.find(one) for one in sorted(tainted & self._labels.keys(), key=self._label)]
        return [self._row(record) for record in found if record is not None]

    def called(self, name: str) -> str:
        """The name of the component that is called `name`, or has a part called so."""
        return self._label(self._named(name)[0])

    def _named(self, name: str) -> tuple[str, set[str]]:
        """Key of the component called `name`, or of the one with a part called so; digests of the parts meant."""
        whole, _, part = name.rpartition("/")
        parts = self._parts(whole) if name not in self._keys else {}
        if part and part in parts:
            return self._keys[whole], {parts[part]}
        return self._key(name), set(self._parts(name).values())

    def _parts(self, name: str) -> dict[str, str]:
        """Part -> content digest of the component called exactly so."""
        record = self._store.find(self._keys[name]) if name in self._keys else None
        return {part: what["digest"] for part, what in record.parts.items()} if record is not None else {}

    def _key(self, name: str) -> str:
        alike = sorted(other for other in self._keys if other.startswith(f"{name}:"))
        if name not in self._keys and alike:
            raise BadInput(f"'{name}' is the name of {len(alike)} components; give one, such as {alike[0]}")
        if name not in self._keys:
            raise UnknownName("component", name, [*self._keys, *self._names_of_parts])
        return self._keys[name]

    def _label(self, key: str) -> str:
        return self._labels.get(key, key[:12])

    def _row(self, record: Record) -> dict[str, Any]:
        return {
            "name": self._label(record.key),
            "key": record.key,
            "build": record.build,
            "role": ", ".join(sorted({part["role"] for part in record.parts.values()})),
            "numel": sum(part["numel"] for part in record.parts.values()),
            "seconds": record.seconds,
            "reads": list(dict.fromkeys(self._read(read) for read in record.reads)),
        }

    def _read(self, read: Mapping[str, Any]) -> str:
        return self._label(read["key"]) if read["kind"] == "part" else self._shard(read["digest"])

    def _shard(self, digest: str) -> str:
        try:
            labels = [row.label for row in readings(self._home / "shards" / digest[:2] / f"{digest}.json")[0].rows]
        except (OSError, StoreError, IndexError):
            return f"shard {digest[:12]}"
        return f"shard {digest[:12]} ({len(labels)} images of {', '.join(sorted(set(labels)))})"


def _labels(manifest: Manifest) -> dict[str, str]:
    times = Counter(use.name for use in manifest.uses)
    labels = {use.key: use.name if times[use.name] == 1 else f"{use.name}:{use.key[:8]}" for use in manifest.uses}
    return labels | {entry.key: entry.name for entry in manifest.entries}


def _keys(manifest: Manifest) -> dict[str, str]:
    """Every name that means one component; two may mean the same one, where equal builds read equal bytes."""
    times = Counter(use.name for use in manifest.uses)
    entries = {entry.name: entry.key for entry in manifest.entries}
    return {use.name: use.key for use in manifest.uses if times[use.name] == 1} | entries
