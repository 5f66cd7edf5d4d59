"""What is left of deleted samples in a home: their ids, raw pixels, and digests that nothing live has.

Every file under the home is searched byte by byte, names included, and the database's free pages and log with it. Only
the vault is left out: what lies there is encrypted under the request's own key.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cl.data.samples import Samples
from cl.digests import digest_bytes
from cl.home.runs import Runs
from cl.home.store import Store

ROW = 32  # shortest run of raw pixels that is looked for, in bytes
ANCHOR = 8  # bytes of a needle that are looked for first
CHUNK = 256  # images whose rows are searched in one pass over the files
_WORD = re.compile(rb"[0-9A-Za-z_/\-\x80-\xff]")
_TABLE_BITS = 20
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Hit:
    """How often one kind of residue was found in one file (path from the home)."""

    path: str
    kind: str
    count: int


def residue(
    home: Path,
    stream: str,
    samples: Mapping[str, str],
    pixels: Sequence[Samples] = (),
    digests: Iterable[str] = (),
) -> list[Hit]:
    """Every trace of `samples` (id -> content digest, empty if nobody knows it any more) of `stream` in `home`.

    Ids in what the home keeps of other streams are those of other people's samples. pixels: shards with the samples'
    images, where the source still has them. digests: of what was made from them, and their marks; those that something
    made without them has too do not count.
    """
    dead = {*digests, *filter(None, samples.values())}
    dead -= live_digests(Store(home), dead)
    finder = _Finder([digest.encode() for digest in dead])
    ids = _Ids(samples)
    others = {path.relative_to(home).as_posix() for path in _of_other_streams(Store(home), stream)}
    found: Counter[tuple[str, str]] = Counter()
    for path, data in _files(home):
        found[path, "id"] += 0 if path in others else ids.count(path.encode() + b"\n" + data)
        found[path, "digest"] += finder.count(path.encode() + b"\n" + data)
        found[path, "digest"] += digest_bytes(data) in dead
    for rows in _rows(pixels):
        finder = _Finder(rows)
        for path, data in _files(home):
            found[path, "pixels"] += finder.count(data)
    return [Hit(path, kind, count) for (path, kind), count in sorted(found.items()) if count]


def _of_other_streams(store: Store, stream: str) -> Iterator[Path]:
    """Files that name samples, and none of `stream`."""
    yield from (path for path, found in store.shards if all(one.stream != stream for one in found))
    runs = Runs(store)
    for run, _ in runs.all_live():
        if runs.resolution(run).stream != stream:
            yield store.home / "runs" / run / "resolution.json"


def live_digests(store: Store, dead: AbstractSet[str] = frozenset()) -> set[str]:
    """Keys, contents and shards of everything that a live run refers to, and of what else reads nothing of `dead`: what
    runs that the deletion made stale had built from other data."""
    keys = {key for _, run in Runs(store).all_live() for key in run.keys}
    live: set[str] = set()
    for key, record in store.lineage().items():
        origins = {read["key"] if read["kind"] == "part" else read["digest"] for read in record.reads}
        if key in keys or dead.isdisjoint({key, *origins}):
            live |= {key, *(part["digest"] for part in record.parts.values())}
            live |= {read["digest"] for read in record.reads}
    live_shards = [one for path, found in store.shards if path.stem in live for one in found]
    return live | {digest for one in live_shards for row in one.rows for digest in (row.content, *row.marks)}


def _files(home: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home).as_posix()
        if path.is_file() and not path.is_symlink() and not name.startswith("audit/vault/"):
            yield name, path.read_bytes()


class _Finder:
    """Counts occurrences of many byte strings at once. Each has an anchor of 8 bytes, its most varied ones; every
    window of the data is looked up in a small table of anchors first, and compared in full on a hit."""

    def __init__(self, needles: Iterable[bytes]) -> None:
        self._by_anchor: dict[bytes, list[tuple[int, bytes]]] = {}
        for needle in dict.fromkeys(needles):
            offset = _varied(needle)
            self._by_anchor.setdefault(needle[offset : offset + ANCHOR], []).append((offset, needle))
        anchors = np.frombuffer(b"".join(self._by_anchor), dtype="<u8")
        self._table = np.zeros(1 << _TABLE_BITS, dtype=bool)
        self._table[_slot(anchors)] = True

    def count(self, data: bytes) -> int:
        return sum(1 for _ in self.find(data))

    def find(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(place, needle) of every occurrence."""
        for shift in range(ANCHOR if self._by_anchor else 0):
            windows = np.frombuffer(data, dtype="<u8", offset=min(shift, len(data)), count=_whole(data, shift))
            for row in np.flatnonzero(self._table[_slot(windows)]):
                place = shift + ANCHOR * int(row)
                for offset, needle in self._by_anchor.get(data[place : place + ANCHOR], []):
                    start = place - offset
                    if start >= 0 and data.startswith(needle, start):
                        yield start, needle


def _whole(data: bytes, shift: int) -> int:
    return max(0, len(data) - shift) // ANCHOR


def _slot(windows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        return (windows * _MIX) >> np.uint64(64 - _TABLE_BITS)


def _varied(needle: bytes) -> int:
    """Where the 8 bytes with the most changes from one to the next begin; the last such place."""
    changes = np.diff(np.frombuffer(needle, dtype=np.uint8).astype(np.int16)) != 0
    counts = np.convolve(changes, np.ones(ANCHOR - 1, dtype=int), mode="valid")
    return int(len(counts) - 1 - counts[::-1].argmax())


class _Ids:
    """Counts whole ids: `a/1` is not in `a/10`, `ba/1` or `a/1/b`. A bare number counts between quotes alone, and so
    does a short id where the data is no text: three bytes turn up anywhere in weights."""

    def __init__(self, ids: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogatepass") for name in ids]
        self._long = _Finder(name for name in encoded if len(name) >= ANCHOR)
        short = sorted((name for name in encoded if len(name) < ANCHOR), key=len, reverse=True)
        self._short = re.compile(b"|".join(map(re.escape, short))) if short else None

    def count(self, data: bytes) -> int:
        binary = b"\0" in data
        found = sum(_is_whole(data, start, name, name.isdigit()) for start, name in self._long.find(data))
        if self._short is None:
            return found
        matches = [(match.start(), match.group()) for match in self._short.finditer(data)]
        return found + sum(_is_whole(data, start, name, binary or name.isdigit()) for start, name in matches)


def _is_whole(data: bytes, start: int, name: bytes, quoted: bool) -> bool:
    end = start + len(name)
    before, after = data[max(0, start - 1) : start], data[end : end + 1]
    if quoted:
        return before == after and before in (b'"', b"'")
    follows = _WORD.match(after) or (after == b"." and _WORD.match(data[end + 1 : end + 2]))
    return not (_WORD.match(before) or follows)


def _rows(shards: Sequence[Samples]) -> Iterator[list[bytes]]:
    """Runs of raw pixels of some images at a time: rows as (3, height, width) and (height, width, 3) lay them, and
    whole small images; those that are nearly constant tell nothing and are left out."""
    for shard in shards:
        for start in range(0, len(shard), CHUNK):
            images = shard.images(slice(start, start + CHUNK)).numpy()
            planar = images.reshape(-1, images.shape[-1])
            packed = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).reshape(-1, 3 * images.shape[-1])
            whole = images[:, 0].reshape(len(images), -1)
            groups = [rows for rows in (planar, packed, whole) if rows.shape[1] >= ROW]
            yield [row.tobytes() for rows in groups for row in np.unique(_telling(rows), axis=0)]


def _telling(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    differing = np.minimum((rows != rows[:, :1]).sum(1), (rows != rows[:, -1:]).sum(1))
    return rows[differing >= 4]
