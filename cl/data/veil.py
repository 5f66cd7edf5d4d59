"""What a strategy sees of the stream at test time: images under opaque keys. No label, readable id or domain name.

Keys are hashes of the stable names, so that they may seed what the strategy draws. The store alone turns them back: a
deletion names samples as the stream does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from cl.data.augment import Crop
from cl.data.samples import Pixels, Samples, concat, marks_of, prepare
from cl.data.stream import Segment


@dataclass(frozen=True)
class Veiled:
    """A segment as a strategy sees it. batches, in order of arrival: opaque key -> images, sorted by key."""

    batches: Mapping[str, Samples]

    @cached_property
    def samples(self) -> Samples:
        """All images as one shard, in the order of their keys: the rows of the scores that the strategy returns."""
        return concat(list(self.batches.values()))


def veil(segment: Segment) -> Veiled:
    """The segment without what only the evaluator may know."""
    return Veiled({opaque(name): _veiled(batch) for name, batch in segment.batches.items()})


def opaque(name: str) -> str:
    """The key of a sample or a batch: 32 hexadecimal digits of its name's SHA-256."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def order(samples: Samples) -> list[int]:
    """The rows of a labelled shard in the order of their opaque keys."""
    keys = [opaque(sample) for sample in samples.ids]
    return sorted(range(len(keys)), key=keys.__getitem__)


def _veiled(batch: Samples) -> Samples:
    names = {opaque(sample): sample for sample in batch.ids}
    return replace(Samples.of(dict.fromkeys(names, ""), _VeiledPixels(batch.pixels, names)), origin=batch.origin)


class _VeiledPixels:
    def __init__(self, pixels: Pixels, names: Mapping[str, str]) -> None:
        self._pixels, self._names = pixels, names

    def digest(self, sample: str) -> str:
        return self._pixels.digest(self._names[sample])

    def marks(self, sample: str) -> tuple[str, ...]:
        return marks_of(self._pixels, self._names[sample])

    def prepare(self, samples: Sequence[str]) -> None:
        prepare(self._pixels, [self._names[sample] for sample in samples])

    def read(self, samples: Sequence[str], crops: Sequence[Crop] | None = None) -> Tensor:
        return self._pixels.read([self._names[sample] for sample in samples], crops)

    def _real(self, sample: str) -> str:
        return self._names[sample]
