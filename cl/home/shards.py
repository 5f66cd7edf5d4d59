"""Which samples the shards that were read stand for: how a sample is traced to all that was made from it.

One file a shard, named by its digest. Equal shards of two streams share it; each stream's reading of it is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from cl.digests import canonical, digest_json
from cl.errors import StoreError


@dataclass(frozen=True, slots=True)
class ShardRow:
    """One sample: the stream's own id, class name, content digest, the marks by which a deletion knows it again, and
    the person, if one is recorded."""

    id: str
    label: str
    content: str
    marks: tuple[str, ...]
    subject: str | None


@dataclass(frozen=True, slots=True)
class Shard:
    """Which samples a shard's digest stands for, and the stream that it was read in."""

    digest: str
    stream: str
    rows: tuple[ShardRow, ...]


@dataclass(frozen=True)
class Traces:
    """How samples that are to be forgotten are known again, anywhere in a home: by name, which is stream and id, and by
    their marks. kept: names that have such a mark and stay all the same."""

    names: frozenset[tuple[str, str]] = frozenset()
    marks: frozenset[str] = frozenset()
    kept: frozenset[tuple[str, str]] = frozenset()

    def meet(self, stream: str, row: ShardRow) -> bool:
        """Whether this sample is one of them, or a copy of one."""
        name = stream, row.id
        return name in self.names or (name not in self.kept and not self.marks.isdisjoint(row.marks))

    def among(self, shards: Iterable[Shard]) -> Iterator[ShardRow]:
        """Those of the shards' samples that are meant."""
        return (row for shard in shards for row in shard.rows if self.meet(shard.stream, row))


class ShardFiles:
    """`shards/` of a home. write: how a file of the home is written."""

    def __init__(self, home: Path, write: Callable[[Path, bytes], None]) -> None:
        self._folder, self._write = home / "shards", write
        self._known: set[tuple[str, str]] = set()

    def remember(self, shard: Shard) -> None:
        """Keep which samples the shard's digest stands for in its stream. A damaged file stays as it is: nobody knows
        which streams it told of, so a deletion refuses until it is removed."""
        if (shard.digest, shard.stream) in self._known:
            return
        path = self._folder / shard.digest[:2] / f"{shard.digest}.json"
        try:
            before = readings(path)
        except StoreError:
            return
        if shard not in before:
            others = [one for one in before if one.stream != shard.stream]
            content = {one.stream: [astuple(row) for row in one.rows] for one in (*others, shard)}
            self._write(path, canonical({"readings": content, "checksum": digest_json(content)}))
        self._known.add((shard.digest, shard.stream))

    def __iter__(self) -> Iterator[tuple[Path, tuple[Shard, ...]]]:
        """The file of every shard that a component read, and the readings of it. Raises StoreError on a damaged one:
        then nobody knows who read what."""
        for path in sorted(self._folder.glob(f"??/{'?' * 64}.json")):
            yield path, readings(path)


def readings(path: Path) -> tuple[Shard, ...]:
    """What a shard's file says; nothing, if there is none. Raises StoreError for a damaged one."""
    try:
        content = json.loads(path.read_bytes())
        streams = content["readings"].items()
        if content["checksum"] != digest_json(content["readings"]):
            raise ValueError
        return tuple(Shard(path.stem, stream, tuple(_row(*cells) for cells in rows)) for stream, rows in streams)
    except FileNotFoundError:
        return ()
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise StoreError(f"{path} is damaged; remove it and what {path.parents[1]} holds, and run again") from error


def contents_of(shards: Iterable[Shard]) -> dict[str, str]:
    """Sample id -> content digest, over readings of one shard."""
    return {row.id: row.content for shard in shards for row in shard.rows}


def _row(name: str, label: str, content: str, marks: list[str], subject: str | None) -> ShardRow:
    return ShardRow(name, label, content, tuple(marks), subject)
