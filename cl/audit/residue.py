"""What is left of deleted samples in a home: ids, file names, raw pixels, images, and digests that nothing live has.

Every file under the home is searched byte by byte, names included, the database's free pages and log with it, and what
is packed or encoded in it (`cl.audit.layers`). Only the vault is left out: what lies there is encrypted under the
request's own key. What this cannot find, the report says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cl.audit.layers import DEPTH, KINDS, LIMIT, Budget, Layer, layers
from cl.audit.likeness import ALIKE, Thumbnail, images_in, most_alike, thumbnail
from cl.audit.needles import Finder, Words
from cl.data.samples import Samples, pixels_digest
from cl.digests import digest_bytes
from cl.home.runs import Runs
from cl.home.store import Store

ROW = 32  # shortest run of raw pixels that is looked for, in bytes
CHUNK = 256  # images whose rows are searched in one pass over the files
SEARCHED = (
    "ids, in texts and file names",
    "base names that no other sample has",
    "digests of the samples, of their files and pixels, and of what was made from them",
    "rows of raw pixels, at the size of the stream",
    "images, by the digest of their pixels, and by their likeness to a sample (grey thumbnails of 8 by 8)",
    f"all of these inside {', '.join(KINDS)}, {DEPTH} deep, to {LIMIT >> 20} MiB a file",
)
NOT_SEARCHED = (
    "images that were cropped, turned, drawn over or set among others",
    "other encodings of texts than UTF-8 and base64, other archives, and what is encrypted (as the vault is)",
    "images and archives in pieces: in free pages and the log of a database, or cut in several files; names there that "
    "other values adjoin",
    "bare numbers and short words as base names, and descriptions of a sample without its name",
    "what links point to, and places outside the home",
)
_EXTENSION = re.compile(r"(.+)\.[A-Za-z][0-9A-Za-z]{1,4}")
_NUMBERED = re.compile(r"(?=.*[^\W\d])(?=.*\d{3}).{6,}")  # as cameras and data sets name files


@dataclass(frozen=True)
class Hit:
    """How often one kind of residue was found in one file (path from the home). inside: how it lies there, packed or
    encoded, outermost first, as `zip/base64`."""

    path: str
    kind: str
    count: int
    inside: str = ""


@dataclass(frozen=True)
class Residue:
    """What a search found. searched, not_searched: for what, in words that name no sample. unopened: files that could
    not be read, or hold what could not be opened to its end."""

    hits: tuple[Hit, ...]
    searched: tuple[str, ...]
    not_searched: tuple[str, ...]
    unopened: tuple[str, ...]


def residue(
    home: Path,
    stream: str,
    samples: Mapping[str, str],
    pixels: Sequence[Samples] = (),
    digests: Iterable[str] = (),
    rest: Sequence[Samples] = (),
) -> Residue:
    """Every trace of `samples` (id -> content digest, empty if nobody knows it any more) of `stream` in `home`.

    Names in what the home keeps of other streams are those of other people's samples. pixels: shards with the samples'
    images, where the source still has them; rest: all that the source has besides. digests: of what was made from the
    samples, and their marks; those that something made without them has too do not count.
    """
    store = Store(home)
    dead = {*digests, *filter(None, samples.values())}
    dead |= {mark for shard in pixels for marks in shard.marks for mark in marks}
    live = live_digests(store, dead)
    names = _base_names(store, stream, samples, rest)
    search = _Search(Words(samples, names, dead - live), dead - live, live)
    others = {path.relative_to(home).as_posix() for path in _of_other_streams(store, stream)}
    files = _Files(home)
    for path, layer in files:
        search.words(path, layer, named=path not in others)
        search.images(path, layer)
    search.likenesses(pixels, rest)
    for rows in _rows(pixels):
        search.rows(files, Finder(rows))
    return Residue(search.hits, SEARCHED, _not_searched(samples, pixels, names, files.unopened), files.unopened)


class _Files:
    """The layers of every file of the home, but those of the vault. unopened: the files that were not seen whole."""

    def __init__(self, home: Path) -> None:
        self._home, self._unopened = home, set[str]()

    @property
    def unopened(self) -> tuple[str, ...]:
        return tuple(sorted(self._unopened))

    def __iter__(self) -> Iterator[tuple[str, Layer]]:
        for path in sorted(self._home.rglob("*")):
            name = path.relative_to(self._home).as_posix()
            if path.is_symlink() or not path.is_file() or name.startswith("audit/vault/"):
                continue
            budget = Budget()
            try:
                yield from ((name, layer) for layer in layers(path.read_bytes(), budget))
            except OSError:
                budget.shut = True
            if budget.shut:
                self._unopened.add(name)


@dataclass
class _Search:
    """What was found so far. dead: digests of what was deleted; live: of what is there rightly. likely: images that no
    digest tells of, each with where it lies."""

    needles: Words
    dead: AbstractSet[str]
    live: AbstractSet[str]
    found: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    likely: list[tuple[str, str, Thumbnail]] = field(default_factory=list)

    @property
    def hits(self) -> tuple[Hit, ...]:
        return tuple(Hit(path, kind, n, inside) for (path, inside, kind), n in sorted(self.found.items()) if n)

    def words(self, path: str, layer: Layer, named: bool) -> None:
        """Ids, base names and digests. named: whether names in the file are those of the samples."""
        data = layer.data if layer.inside else path.encode("utf-8", "surrogateescape") + b"\n" + layer.data
        counts = self.needles.count(data)
        counts["digest"] += digest_bytes(layer.data) in self.dead
        if not named:
            counts["id"] = counts["name"] = 0
        if counts["id"]:
            counts["name"] = 0  # the end of the very ids
        self.found.update({(path, layer.inside, kind): count for kind, count in counts.items()})

    def images(self, path: str, layer: Layer) -> None:
        """Images with the pixels of a sample; the others are kept until all are known."""
        if digest_bytes(layer.data) in self.live:
            return
        for image in images_in(layer.data):
            digest = pixels_digest(np.asarray(image))
            if digest in self.dead:
                self.found[path, layer.inside, "image"] += 1
            elif digest not in self.live and (small := thumbnail(image)) is not None:
                self.likely.append((path, layer.inside, small))

    def likenesses(self, pixels: Sequence[Samples], rest: Sequence[Samples]) -> None:
        """Images that are more like a deleted sample than like any that is left."""
        if not self.likely or not pixels:
            return
        thumbnails = [small for _, _, small in self.likely]
        alike = most_alike(pixels, thumbnails)
        close = np.flatnonzero(alike >= ALIKE)
        if not len(close):
            return
        left = most_alike(rest, [thumbnails[row] for row in close])
        for row in close[alike[close] > left + 1e-4]:
            path, inside, _ = self.likely[row]
            self.found[path, inside, "likeness"] += 1

    def rows(self, files: _Files, finder: Finder) -> None:
        """Rows of raw pixels, but in files of what is left."""
        for path, layer in files:
            count = finder.count(layer.data)
            if count and digest_bytes(layer.data) not in self.live:
                self.found[path, layer.inside, "pixels"] += count


def _not_searched(
    samples: Mapping[str, str], pixels: Sequence[Samples], names: AbstractSet[str], unopened: Sequence[str]
) -> tuple[str, ...]:
    """What this search could not look for."""
    lost = len(samples) - sum(map(len, pixels))
    found = [*NOT_SEARCHED]
    if lost > 0:
        found.append(f"pixels, images and file digests of {lost} samples that the source has no more")
    if not names:
        found.append("base names: none of the samples has one of its own")
    if unopened:
        found.append(f"{len(unopened)} files to their end: unreadable, damaged, encrypted, too deep or too large")
    return tuple(found)


def _base_names(store: Store, stream: str, samples: Mapping[str, str], rest: Sequence[Samples]) -> set[str]:
    """Ends of the samples' ids, as file names, that tell of nothing else in the home: of no other sample of any stream,
    no class, no person."""
    rows = [(one.stream, row) for _, found in store.shards for one in found for row in one.rows]
    others = [row for name, row in rows if name != stream or row.id not in samples]
    taken = {word for row in others for word in (*_names_of(row.id), row.label, row.subject or "")}
    taken |= {word for shard in rest for name in shard.origins for word in _names_of(name)}
    return {name for sample in samples for name in _names_of(sample)} - taken - samples.keys()


def _names_of(sample: str) -> Iterator[str]:
    """The base name of a sample's id where it is a file's, and that without its ending where it is a numbered one."""
    base = sample.rpartition("/")[2]
    ending = _EXTENSION.fullmatch(base)
    if ending:
        yield base
    stem = ending[1] if ending else base
    if _NUMBERED.fullmatch(stem):
        yield stem


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
