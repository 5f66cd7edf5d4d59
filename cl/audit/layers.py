"""What lies in a file, layer by layer: its own bytes, and whatever is packed or encoded in them.

Opened are gzip, bzip2, xz, zip, tar, SQLite (its rows) and base64, in one another to a bounded depth and size: an
archive that unfolds to a thousand times its size is no reason to run out of memory.
"""

from __future__ import annotations

import binascii
import bz2
import io
import lzma
import re
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

DEPTH = 4  # layers below a file's own bytes
LIMIT = 1 << 28  # bytes that one file may unfold to
LEAST = 11  # characters of base64 that are decoded: eight bytes
LINE = 60  # shortest line of base64 that goes on in the next
KINDS = ("gzip", "bzip2", "xz", "zip", "tar", "SQLite", "base64")

_SQLITE = b"SQLite format 3\0"
_ZIP = b"PK\x03\x04"
_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")
_RUN = re.compile(rb"[A-Za-z0-9+/_-]{%d,}" % LEAST)
_WRAPPED = re.compile(rb"(?:[A-Za-z0-9+/_-]{%d,}(?:\\[rn]|[\r\n])+)+[A-Za-z0-9+/_-]+" % LINE)
_BREAKS = re.compile(rb"\\[rn]|[\r\n]")
_DIGEST = re.compile(rb"[0-9a-f]{64}")  # as every record of a home has: never base64
_ALPHABET = np.array([_RUN.match(bytes([byte]) * LEAST) is not None for byte in range(256)])
_STANDARD = bytes.maketrans(b"-_", b"+/")


@dataclass(frozen=True)
class Layer:
    """Bytes of a file. inside: how they lie in it, as `zip/gzip`; empty for the file's own."""

    inside: str
    data: bytes


@dataclass
class Budget:
    """What one file may unfold to still. shut: whether something in it could not be opened, or not to its end."""

    left: int = field(default_factory=lambda: LIMIT)
    shut: bool = False

    def take(self, data: bytes) -> bool:
        """Whether so much more is allowed."""
        if len(data) > self.left:
            self.shut = True
            return False
        self.left -= len(data)
        return True


def layers(data: bytes, budget: Budget, inside: tuple[str, ...] = ()) -> Iterator[Layer]:
    """`data` itself, and all that it unfolds to."""
    yield Layer("/".join(inside), data)
    for kind, opened in _OPENED:
        for part in _parts(opened, data, budget, len(inside)):
            yield from layers(part, budget, (*inside, kind))


Opener = Callable[[bytes, Budget], Iterator[bytes]]


def _parts(opened: Opener, data: bytes, budget: Budget, depth: int) -> Iterator[bytes]:
    try:
        for part in opened(data, budget):
            if depth == DEPTH:
                budget.shut = budget.shut or opened is not _base64
                return
            if not budget.take(part):
                return
            yield part
    except Exception:  # damaged and encrypted archives make their readers fail in many ways
        budget.shut = True


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _compressed(magic: bytes, begin: Callable[[], _Decompressor]) -> Opener:
    def opened(data: bytes, budget: Budget) -> Iterator[bytes]:
        total, rest = b"", data
        while rest.startswith(magic):
            stream = begin()
            total += stream.decompress(rest, budget.left + 1 - min(len(total), budget.left))
            budget.shut = budget.shut or not stream.eof
            rest = stream.unused_data
            if len(total) > budget.left:
                break
        if total:
            yield total[: budget.left]

    return opened


def _zip(data: bytes, budget: Budget) -> Iterator[bytes]:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        budget.shut = budget.shut or data.startswith(_ZIP)
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            if member.flag_bits & 1:  # encrypted
                budget.shut = True
                continue
            with archive.open(member) as file:
                yield file.read(budget.left + 1)


def _tar(data: bytes, budget: Budget) -> Iterator[bytes]:
    if data[257:262] != b"ustar":
        return
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isreg() else None
            if file is not None:
                yield file.read(budget.left + 1)


def _sqlite(data: bytes, budget: Budget) -> Iterator[bytes]:
    """The texts of each table, and each blob: in the file they may lie in pieces over several pages."""
    if not data.startswith(_SQLITE):
        return
    with closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(data[:18] + b"\1\1" + data[20:])  # as if it had no log, which is a file of its own
        database.text_factory = bytes
        database.execute("PRAGMA trusted_schema = OFF")
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            quoted = table.decode("utf-8", "surrogateescape").replace('"', '""')
            yield from _cells(database.execute(f'SELECT * FROM "{quoted}"'), budget)


def _cells(rows: sqlite3.Cursor, budget: Budget) -> Iterator[bytes]:
    texts, size = [], 0
    for row in rows:
        cells = [cell for cell in row if isinstance(cell, bytes)]  # texts are bytes here too, and so is what blobs hold
        texts += cells
        size += sum(map(len, cells))
        yield from (cell for cell in cells if _is_known(cell))
        if size > budget.left:
            break
    if texts:
        yield b"\n".join(texts)


def _base64(data: bytes, budget: Budget) -> Iterator[bytes]:
    """What every run of base64 says, wherever in it the text begins: all of them in one, and those that are files of
    their own each by itself."""
    runs = [run for run in _runs(data) if not _DIGEST.fullmatch(run)]
    if max(map(len, runs), default=0) >= LINE:
        runs += [_BREAKS.sub(b"", wrapped) for wrapped in _WRAPPED.findall(data)]
    decoded = [_decoded(run, shift) for run in runs for shift in range(4)]
    yield from (one for one in decoded if _is_known(one))
    if decoded:
        yield b"\n".join(decoded)


def _runs(data: bytes) -> Iterator[bytes]:
    """What `_RUN` matches, found faster: weights have next to none."""
    inside = _ALPHABET[np.frombuffer(data, dtype=np.uint8)]
    for step in (1, 2, 4, LEAST - 8):  # so that 2, 4, 8, LEAST in a row are of the alphabet
        inside = inside[:-step] & inside[step:]
    begins = np.flatnonzero(inside & ~np.concatenate([[False], inside[:-1]])) if len(inside) else ()
    for start in begins:
        if (run := _RUN.match(data, int(start))) is not None:
            yield run.group()


def _decoded(run: bytes, shift: int) -> bytes:
    text = run[shift:].translate(_STANDARD)
    text = text[: len(text) - (len(text) % 4 == 1)]
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4))


_COMPRESSED: dict[str, tuple[bytes, Callable[[], _Decompressor]]] = {
    "gzip": (b"\x1f\x8b\x08", lambda: zlib.decompressobj(31)),
    "bzip2": (b"BZh", bz2.BZ2Decompressor),
    "xz": (b"\xfd7zXZ\0", lzma.LZMADecompressor),
}
_OPENED: tuple[tuple[str, Opener], ...] = (
    *((kind, _compressed(magic, begin)) for kind, (magic, begin) in _COMPRESSED.items()),
    ("zip", _zip),
    ("tar", _tar),
    ("SQLite", _sqlite),
    ("base64", _base64),
)


def _is_known(data: bytes) -> bool:
    """Whether the data begins as an image or as something that is opened."""
    magics = (*_IMAGES, _SQLITE, _ZIP, *(magic for magic, _ in _COMPRESSED.values()))
    return data.startswith(magics) or data[257:262] == b"ustar"
