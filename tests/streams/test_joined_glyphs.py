"""Shards of glyphs joined, as joint training reads them."""

from __future__ import annotations

import torch

from cl.data.samples import concat
from streams.glyphs import glyphs


def test_joined_shards_have_the_images_of_their_parts() -> None:
    first, second = (task.train for task in glyphs().tasks[:2])
    parts = first.keep(first.ids[:2]), second.keep(second.ids[:2])
    joined = concat(parts)
    for part in parts:
        rows = [joined.ids.index(sample) for sample in part.ids]
        assert torch.equal(joined.images(rows), part.images())
