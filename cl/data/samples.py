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

from cl.data.augment import Crop
from cl.digests import digest_bytes, digest_json
from cl.errors import BadInput
from cl.home.store import Shard


class Pixels(Protocol):
    """Where the images of a stream lie. Implementations decode on demand and never keep what they decoded."""

    def digest(self, sample: str) -> str:
        """Digest of the sample's stored bytes."""

    def read(self, samples: Sequence[str], crops: Sequence[Crop] | None = None) -> Tensor:
        """Images of these ids, uint8 `(n, 3, height, width)`; each cropped, if crops are given."""


class ArrayPixels:
    """Images held in memory: uint8 `(n, height, width, 3)` or grey `(n, height, width)`."""

    def __init__(self, ids: Sequence[str], images: np.ndarray) -> None:
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or len(images) != len(ids):
            raise BadInput(
                f"images must be uint8 (n, height, width[, 3]), one an id, not {images.dtype} {images.shape}"
            )
        self._images = images
        self._row = {sample: row for row, sample in enumerate(ids)}

    def digest(self, sample: str) -> str:
        image = np.ascontiguousarray(self._images[self._row[sample]])
        return digest_bytes(f"{image.shape}".encode() + image.tobytes())

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

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.labels):
            raise BadInput(f"{len(self.ids)} sample ids, but {len(self.labels)} labels")
        if any(first >= second for first, second in zip(self.ids, self.ids[1:], strict=False)):
            raise BadInput("sample ids must be unique and in sorted order; use Samples.of")

    @classmethod
    def of(cls, labels: Mapping[str, str], pixels: Pixels, augment: str = "none") -> Samples:
        """A shard from sample id -> class name."""
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
    def contents(self) -> tuple[str, ...]:
        """Digest of each sample's stored bytes."""
        return tuple(self.pixels.digest(sample) for sample in self.ids)

    @cached_property
    def digest(self) -> str:
        """Content digest over ids, pixels, class names and augmentation."""
        rows = [list(row) for row in zip(self.ids, self.labels, self.contents, strict=True)]
        return digest_json([rows, self.augment])

    @property
    def origins(self) -> tuple[str, ...]:
        """The ids under which the stream knows these samples: other ones where they are veiled (see `cl.data.veil`)."""
        real = getattr(self.pixels, "_real", None)
        return self.ids if real is None else tuple(real(sample) for sample in self.ids)

    @cached_property
    def described(self) -> Shard:
        """What a store keeps of the shard."""
        return Shard(self.digest, self.origins, self.labels, self.contents)

    def images(self, rows: Sequence[int] | slice = slice(None), crops: Sequence[Crop] | None = None) -> Tensor:
        """Raw images of these rows, uint8 `(n, 3, height, width)`, each cropped if crops are given."""
        ids = self.ids[rows] if isinstance(rows, slice) else [self.ids[row] for row in rows]
        return self.pixels.read(ids, crops) if crops is not None else self.pixels.read(ids)

    def targets(self, classes: Sequence[str]) -> Tensor:
        """Index of each label in `classes`, int64 `(n,)`; -1 for a label that is not among them."""
        index = {name: row for row, name in enumerate(classes)}
        return torch.tensor([index.get(label, -1) for label in self.labels], dtype=torch.int64)

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
    return Samples.of(labels, _JoinedPixels(owner), shards[0].augment)


class _JoinedPixels:
    def __init__(self, owner: Mapping[str, Pixels]) -> None:
        self._owner = owner

    def digest(self, sample: str) -> str:
        return self._owner[sample].digest(sample)

    def read(self, samples: Sequence[str], crops: Sequence[Crop] | None = None) -> Tensor:
        places: dict[int, list[int]] = {}
        for row, sample in enumerate(samples):
            places.setdefault(id(self._owner[sample]), []).append(row)
        parts = {rows[0]: self._part(samples, crops, rows) for rows in places.values()}
        first = next(iter(parts.values()))
        images = first.new_empty((len(samples), *first.shape[1:]))
        for rows in places.values():
            images[rows] = parts[rows[0]]
        return images

    def _real(self, sample: str) -> str:
        """The stream's own id of a sample, where the joined shards are veiled (see `cl.data.veil`)."""
        real = getattr(self._owner[sample], "_real", None)
        return sample if real is None else real(sample)

    def _part(self, samples: Sequence[str], crops: Sequence[Crop] | None, rows: Sequence[int]) -> Tensor:
        seen = [crops[row] for row in rows] if crops is not None else None
        return self._owner[samples[rows[0]]].read([samples[row] for row in rows], seen)
