"""What was built, and what a build reads: handles, their parts, libraries of parts, and what they say of lineage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cl.data.samples import Samples
from cl.digests import digest_json
from cl.errors import BadInput
from cl.home.store import DURABLE, Record, Tensors


class Part:
    """One part of a built component: its role and content digest, and its tensors when opened."""

    def __init__(self, handle: Handle, name: str) -> None:
        self._handle, self.name = handle, name
        self.key = handle.key
        self.record = handle.record
        self.transient = handle.transient
        self.role: str = handle.record.parts[name]["role"]
        self.digest: str = handle.record.parts[name]["digest"]
        self.numel: int = handle.record.parts[name]["numel"]

    def open(self) -> Tensors:
        """The tensors, on the CPU; treat them as read-only."""
        return self._handle.open(self.name)


class Handle:
    """A built component. `handle["head"]` is one part of it; a handle of a single part stands for that part."""

    def __init__(self, record: Record, opener: Callable[[Record, str], Tensors], transient: bool = False) -> None:
        self.record, self._opener, self.transient = record, opener, transient
        self.key = record.key

    def __getitem__(self, part: str) -> Part:
        if part not in self.record.parts:
            raise BadInput(f"component built by {self.record.build} has no part '{part}': {sorted(self.record.parts)}")
        return Part(self, part)

    @property
    def parts(self) -> dict[str, Part]:
        """Every part by name, sorted: a record read back names them in another order than one just made."""
        return {name: Part(self, name) for name in sorted(self.record.parts)}

    @property
    def sole(self) -> Part:
        """The only part. Raises BadInput where there are several."""
        if len(self.record.parts) != 1:
            raise BadInput(f"name one of the parts {sorted(self.record.parts)} of what {self.record.build} built")
        return next(iter(self.parts.values()))

    def open(self, part: str | None = None) -> Tensors:
        """The tensors of `part`, or of the only one."""
        return self._opener(self.record, self.sole.name if part is None else part)


class Library(Mapping[str, Part]):
    """Reads that a build opens one at a time, when it asks for them: for more parts than should be in memory at once.

    All of them enter key and lineage. `library[name]` is a part here, and its tensors inside a build. digest: of names
    and contents in their order, made once for all builds that read the library.
    """

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = dict(parts)
        self.digest = digest_json([[name, part.digest] for name, part in self._parts.items()])
        self.transient = any(part.transient for part in self._parts.values())

    def __getitem__(self, name: str) -> Part:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


class _Opening(Mapping[str, Tensors]):
    """An opened library: each part is read when it is asked for, through the builder's bounded memory."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def __getitem__(self, name: str) -> Tensors:
        return self._library[name].open()

    def __iter__(self) -> Iterator[str]:
        return iter(self._library)

    def __len__(self) -> int:
        return len(self._library)


Read = Part | Handle | Samples | Sequence[Any] | Mapping[str, Any] | None
Reads = tuple[Mapping[str, Any], ...]  # as a record has them


def durable(handle: Handle) -> list[Part]:
    """The parts that belong to the model: those that the manifest and the growth figures count."""
    return [part for part in handle.parts.values() if part.role in DURABLE]


def _part(read: Part | Handle) -> Part:
    return read.sole if isinstance(read, Handle) else read


def _identity(read: Read) -> Any:
    if isinstance(read, Part | Handle):
        return _part(read).digest
    if isinstance(read, Samples):
        return ["shard", read.digest]
    if isinstance(read, Library):
        return ["library", read.digest]
    if isinstance(read, Mapping):
        return [[name, _identity(value)] for name, value in read.items()]
    return None if read is None else [_identity(value) for value in read]


def _opened(read: Read) -> Any:
    if isinstance(read, Part | Handle):
        return _part(read).open()
    if isinstance(read, Library):
        return _Opening(read)
    if isinstance(read, Mapping):
        return {name: _opened(value) for name, value in read.items()}
    return read if read is None or isinstance(read, Samples) else [_opened(value) for value in read]


def _leaves(read: Any) -> Iterator[Part | Samples | Library]:
    if isinstance(read, Part | Handle):
        yield _part(read)
    elif isinstance(read, Samples | Library):
        yield read
    elif read is not None:
        for value in read.values() if isinstance(read, Mapping) else read:
            yield from _leaves(value)


def shards_of(reads: Sequence[Read]) -> list[Samples]:
    """Every shard among `reads`."""
    return [leaf for leaf in _leaves(reads) if isinstance(leaf, Samples)]


def _lineage(reads: Sequence[Any], edge: str, key: str) -> Iterator[Mapping[str, Any]]:
    """What the component `key` reads, as its record says it."""
    for leaf in _leaves(reads):
        if isinstance(leaf, Samples):
            yield {"kind": "shard", "edge": edge, "digest": leaf.digest}
        elif isinstance(leaf, Library):
            yield from _lineage(list(leaf.values()), edge, key)
        elif leaf.key == key:
            # A build that returns what it read has its own key when it reads that again: equal bytes, equal keys. No
            # component is its own parent; this one was made from what it was made from before.
            yield from (read for read in leaf.record.reads if read.get("key") != key)
        else:
            yield {
                "kind": "part",
                "edge": "component" if edge == "data" else edge,
                "key": leaf.key,
                "part": leaf.name,
                "digest": leaf.digest,
            }
