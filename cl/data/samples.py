"""Shards of labelled images, and the pixels behind them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cl.code import unkeyed
from cl.data.augment import Crop
from cl.data.names import normalised
from cl.digests import digest_bytes, digest_json
from cl.errors import BadInput
from cl.home.shards import Shard, ShardRow


class Pixels(Protocol):
    """Where the images of a stream lie. Implementations decode on demand and never keep what they decoded.

    One may also have `marks(sample)`: digests by which the sample is known again, whatever release or size reads it:
    of its file's bytes, of its pixels (`pixels_digest`); without it, `digest` is the only one. And `prepare(samples)`,
    called before digests of many are asked for: it reads and checks them side by side.
    """

    def digest(self, sample: str) -> str:
        """Digest of the sample's stored bytes."""

    def read(self, samples: Sequence[str], crops: Sequence[Crop] | None = None) -> Tensor:
        """Images of these ids, uint8 `(n, 3, height, width)`; each cropped, if crops are given."""


def pixels_digest(image: np.ndarray) -> str:
    """Digest of an image's pixels, uint8 `(height, width[, 3])`; a grey image is the colour image that it shows."""
    colour = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    return digest_bytes(f"{colour.shape[0]}x{colour.shape[1]}|".encode() + np.ascontiguousarray(colour).tobytes())


def marks_of(pixels: Pixels, sample: str) -> tuple[str, ...]:
    """The digests by which a deletion knows this sample again."""
    told = getattr(pixels, "marks", None)
    return (pixels.digest(sample),) if told is None else told(sample)


def prepare(pixels: Pixels, samples: Sequence[str]) -> None:
    """Have `pixels` look at these samples, many at once. Raises BadInput for one that cannot be used."""
    ready = getattr(pixels, "prepare", None)
    if ready is not None:
        ready(samples)


class ArrayPixels:
    """Images held in memory: uint8 `(n, height, width, 3)` or grey `(n, height, width)`."""

    def __init__(self, ids: Sequence[str], images: np.ndarray) -> None:
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != len(ids):
            raise BadInput(
                f"images must be uint8 (n, height, width[, 3]), one an id, not {images.dtype} {images.shape}"
            )
        self._images = images
        self._row = {sample: row for row, sample in enumerate(ids)}

    @unkeyed("it is in the key by its value")
    def digest(self, sample: str) -> str:
        image = np.ascontiguousarray(self._images[self._row[sample]])
        return digest_bytes(f"{image.shape}".encode() + image.tobytes())

    @unkeyed("a deletion alone asks for them")
    def marks(self, sample: str) -> tuple[str, ...]:
        return (pixels_digest(self._images[self._row[sample]]),)

    def read(self, samples: Sequence[str], crops: Sequence[Crop] | None = None) -> Tensor:
        rows = self._images[[self._row[sample] for sample in samples]]
        if crops is not None:
            size = rows.shape[2], rows.shape[1]
            seen = [crop.of(Image.fromarray(row), size) for row, crop in zip(rows, crops, strict=True)]
            rows = np.stack([np.asarray(image) for image in seen])
        images = torch.from_numpy(rows)
        if images.ndim == 3:
            return images[:, None].expand(-1, 3, -1, -1).contiguous()
        return images.permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class Origin:
    """Where samples come from: the stream's name, and the person behind each sample id where one is recorded."""

    stream: str
    subjects: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Samples:
    """A shard: labelled images in the order of their ids.

    ids: sample ids, sorted and unique. labels: one class name a sample. augment: the stream's training augmentation,
    `plain` is the same shard without it. `opaque` samples hide nothing from a build but ids, labels and pixels: a
    shard's digest covers exactly these.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    pixels: Pixels = field(repr=False)
    augment: str = "none"
    transient: bool = False
    origin: Origin = field(default=Origin(""), repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.labels):
            raise BadInput(f"{len(self.ids)} sample ids, but {len(self.labels)} labels")
        spelled = {label: normalised(label) for label in set(self.labels)}
        if any(label != name for label, name in spelled.items()):
            object.__setattr__(self, "labels", tuple(spelled[label] for label in self.labels))
        if any(first >= second for first, second in zip(self.ids, self.ids[1:], strict=False)):
            raise BadInput("sample ids must be unique and in sorted order; use Samples.of")

    @classmethod
    def of(cls, labels: Mapping[str, str], pixels: Pixels, augment: str = "none") -> Samples:
        """A shard from sample id -> class name; the stream that it becomes part of says where it comes from."""
        ids = tuple(sorted(labels))
        return cls(ids, tuple(labels[sample] for sample in ids), pixels, augment)

    @classmethod
    def visiting(cls, images: np.ndarray, names: Sequence[str] | None = None) -> Samples:
        """Images that belong to no stream: used in memory, never stored. Their label is the empty string."""
        ids = [f"{row:08d}" for row in range(len(images))] if names is None else list(names)
        return cls(tuple(ids), ("",) * len(ids), ArrayPixels(ids, images), transient=True)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names present, sorted."""
        return tuple(sorted(set(self.labels)))

    @property
    def plain(self) -> Samples:
        """The same images without augmentation."""
        return self if self.augment == "none" else replace(self, augment="none")

    @cached_property
    @unkeyed("they are in the key by their value")
    def contents(self) -> tuple[str, ...]:
        """Digest of each sample's stored bytes."""
        prepare(self.pixels, self.ids)
        return tuple(self.pixels.digest(sample) for sample in self.ids)

    @cached_property
    @unkeyed("it is in the key by its value")
    def digest(self) -> str:
        """Content digest over ids, pixels, class names and augmentation."""
        rows = [list(row) for row in zip(self.ids, self.labels, self.contents, strict=True)]
        return digest_json([rows, self.augment])

    @property
    @unkeyed("records name samples by it; no build does")
    def origins(self) -> tuple[str, ...]:
        """The ids under which the stream knows these samples: other ones where they are veiled (see `cl.data.veil`)."""
        real = getattr(self.pixels, "_real", None)
        return self.ids if real is None else tuple(real(sample) for sample in self.ids)

    @cached_property
    @unkeyed("for records alone")
    def marks(self) -> tuple[tuple[str, ...], ...]:
        """For each sample the digests by which a deletion knows it again."""
        prepare(self.pixels, self.ids)
        return tuple(marks_of(self.pixels, sample) for sample in self.ids)

    @cached_property
    @unkeyed("for records alone")
    def described(self) -> Shard:
        """What a store keeps of the shard."""
        people = self.origin.subjects
        rows = zip(self.origins, self.labels, self.contents, self.marks, strict=True)
        described = [ShardRow(name, label, content, marks, people.get(name)) for name, label, content, marks in rows]
        return Shard(self.digest, self.origin.stream, tuple(described))

    def images(self, rows: Sequence[int] | slice = slice(None), crops: Sequence[Crop] | None = None) -> Tensor:
        """Raw images of these rows, uint8 `(n, 3, height, width)`, each cropped if crops are given."""
        ids = self.ids[rows] if isinstance(rows, slice) else [self.ids[row] for row in rows]
        return self.pixels.read(ids, crops) if crops is not None else self.pixels.read(ids)

    def targets(self, classes: Sequence[str]) -> Tensor:
        """Index of each label in `classes`, int64 `(n,)`; -1 for a label that is not among them."""
        index = {name: row for row, name in enumerate(classes)}
        return torch.tensor([index.get(label, -1) for label in self.labels], dtype=torch.int64)

    def of_origin(self, origin: Origin) -> Samples:
        """The same shard, saying that it comes from there; one that says so already stays what it is."""
        return self if self.origin.stream == origin.stream else replace(self, origin=origin)

    def keep(self, ids: Collection[str]) -> Samples:
        """The samples whose id is in `ids`."""
        wanted = set(ids)
        rows = [row for row, sample in enumerate(self.ids) if sample in wanted]
        if len(rows) == len(self):
            return self
        return replace(self, ids=tuple(self.ids[r] for r in rows), labels=tuple(self.labels[r] for r in rows))


def concat(shards: Sequence[Samples]) -> Samples:
    """One shard of several, in the order of the ids. Raises BadInput where two hold the same id."""
    if len(shards) == 1:
        return shards[0]
    owner = {sample: shard.pixels for shard in shards for sample in shard.ids}
    labels = {sample: label for shard in shards for sample, label in zip(shard.ids, shard.labels, strict=True)}
    if len(labels) != sum(map(len, shards)):
        raise BadInput("two shards hold the same sample id")
    return replace(Samples.of(labels, _JoinedPixels(owner), shards[0].augment), origin=shards[0].origin)


class _JoinedPixels:
    def __init__(self, owner: Mapping[str, Pixels]) -> None:
        self._owner = owner

    def digest(self, sample: str) -> str:
        return self._owner[sample].digest(sample)

    def marks(self, sample: str) -> tuple[str, ...]:
        return marks_of(self._owner[sample], sample)

    def prepare(self, samples: Sequence[str]) -> None:
        for rows in self._places(samples).values():
            prepare(self._owner[samples[rows[0]]], [samples[row] for row in rows])

    def read(self, samples: Sequence[str], crops: Sequence[Crop] | None = None) -> Tensor:
        places = self._places(samples)
        parts = {rows[0]: self._part(samples, crops, rows) for rows in places.values()}
        first = next(iter(parts.values()))
        images = first.new_empty((len(samples), *first.shape[1:]))
        for rows in places.values():
            images[rows] = parts[rows[0]]
        return images

    def _places(self, samples: Sequence[str]) -> dict[int, list[int]]:
        """The rows of `samples` that lie in one place, for each place."""
        places: dict[int, list[int]] = {}
        for row, sample in enumerate(samples):
            places.setdefault(id(self._owner[sample]), []).append(row)
        return places

    def _real(self, sample: str) -> str:
        """The stream's own id of a sample, where the joined shards are veiled (see `cl.data.veil`)."""
        real = getattr(self._owner[sample], "_real", None)
        return sample if real is None else real(sample)

    def _part(self, samples: Sequence[str], crops: Sequence[Crop] | None, rows: Sequence[int]) -> Tensor:
        seen = [crops[row] for row in rows] if crops is not None else None
        return self._owner[samples[rows[0]]].read([samples[row] for row in rows], seen)
