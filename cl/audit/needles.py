"""Looking for many byte strings at once, and telling whole names from parts of longer ones."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

ANCHOR = 8  # bytes of a needle that are looked for first
_TABLE_BITS = 20
_MIX = np.uint64(0x9E3779B97F4A7C15)
_WORD = re.compile(rb"[0-9A-Za-z_/\-\x80-\xff]")
_NAME = re.compile(rb"[0-9A-Za-z_\-\x80-\xff]")


class Finder:
    """Finds occurrences of many byte strings of 8 bytes or more. Each has an anchor of 8 bytes, its most varied ones;
    every window of the data is looked up in a small table of anchors first, and compared in full on a hit."""

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


class Words:
    """Counts ids, base names and digests in one pass, each where it stands whole.

    `a/1` is not in `a/10`, `ba/1` or `a/1/b`. A bare number counts between quotes alone, and so does a short id where
    the data is no text: three bytes turn up anywhere in weights. A base name may follow a slash, and a stem a dot.
    """

    def __init__(self, ids: Iterable[str], names: Iterable[str], digests: Iterable[str]) -> None:
        listed = {"name": names, "id": ids, "digest": digests}
        self._kinds: Mapping[bytes, str] = {
            word.encode("utf-8", "surrogatepass"): kind for kind, words in listed.items() for word in words
        }
        self._long = Finder(word for word in self._kinds if len(word) >= ANCHOR)
        short = sorted((word for word in self._kinds if len(word) < ANCHOR), key=len, reverse=True)
        self._short = re.compile(b"|".join(map(re.escape, short))) if short else None

    def count(self, data: bytes) -> Counter[str]:
        """How often a word of each kind is there."""
        binary = b"\0" in data
        found = Counter(
            self._kinds[word] for start, word in self._long.find(data) if self._counts(data, start, word, False)
        )
        if self._short is not None:
            matches = [(match.start(), match.group()) for match in self._short.finditer(data)]
            found.update(self._kinds[word] for start, word in matches if self._counts(data, start, word, binary))
        return found

    def _counts(self, data: bytes, start: int, word: bytes, quoted: bool) -> bool:
        kind, end = self._kinds[word], start + len(word)
        if kind == "digest":
            return True
        before, after = data[max(0, start - 1) : start], data[end : end + 1]
        if quoted or word.isdigit():
            return before == after and before in (b'"', b"'")
        if kind == "name":
            return not (_NAME.match(before) or _NAME.match(after))
        follows = _WORD.match(after) or (after == b"." and _WORD.match(data[end + 1 : end + 2]))
        return not (_WORD.match(before) or follows)
