"""Segments of a stream at test time: declared batches, holes, the veil, and lineage behind it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cl.data.recipes import content_digest
from cl.data.samples import ArrayPixels, Samples
from cl.data.stream import Segment, Stream
from cl.data.veil import opaque, order, veil
from cl.errors import BadInput
from cl.home.shards import contents_of
from cl.home.store import Store
from cl.testing import tiny_stream


def segment(name: str = "GN/5", batches: int = 4, size: int = 3) -> Segment:
    """Batches b0000, b0001, ... of `size` random images of two classes."""
    ids = [f"{name}/image-{row:03d}" for row in range(batches * size)]
    random.Random(0).shuffle(ids)  # batches do not follow the order of ids
    images = np.random.default_rng(0).integers(0, 256, (len(ids), 32, 32, 3), dtype=np.uint8)
    pixels = ArrayPixels(ids, images)
    labels = {sample: f"class-{row % 2}" for row, sample in enumerate(ids)}
    chunks = [ids[start : start + size] for start in range(0, len(ids), size)]
    return Segment(
        name,
        "gaussian noise",
        {f"{name}/b{n:04d}": Samples.of({s: labels[s] for s in chunk}, pixels) for n, chunk in enumerate(chunks)},
    )


def stream() -> Stream:
    return replace(tiny_stream(1), segments=(segment("GN/5"), segment("SW/5")))


def test_a_deletion_leaves_holes_and_moves_nothing_else() -> None:
    whole = stream()
    first, second = whole.segments
    batch = first.batches["GN/5/b0001"]
    gone = {batch.ids[0], *first.batches["GN/5/b0002"].ids}
    rest = whole.without(gone)
    assert rest.ids == whole.ids - gone
    assert rest.segments[0].declared == first.declared
    assert list(rest.segments[0].batches) == ["GN/5/b0000", "GN/5/b0001", "GN/5/b0003"]
    assert rest.segments[0].batches["GN/5/b0001"].ids == batch.ids[1:]
    assert rest.segments[1] == second
    pieces = list(rest.segments[0].pieces(2))
    assert [list(piece.batches) for piece in pieces] == [["GN/5/b0000", "GN/5/b0001"], ["GN/5/b0003"]]
    assert [piece.id for piece in pieces] == ["GN/5/0000", "GN/5/0002"]


def test_a_segment_without_samples_leaves_the_stream() -> None:
    whole = stream()
    rest = whole.without(whole.segments[0].samples.ids)
    assert [one.id for one in rest.segments] == ["SW/5"]
    pieces = list(whole.segments[0].without(set(whole.segments[0].batches["GN/5/b0000"].ids)).pieces(1))  # type: ignore[union-attr]
    assert [piece.id for piece in pieces] == ["GN/5/0001", "GN/5/0002", "GN/5/0003"]


def test_segments_are_part_of_what_a_stream_is() -> None:
    whole = stream()
    gone = {whole.segments[0].samples.ids[0]}
    assert whole.resolution().segments and not tiny_stream(1).resolution().segments
    assert len({content_digest(one) for one in (tiny_stream(1), whole, whole.without(gone))}) == 3


def test_the_veil_hides_labels_and_names_and_keeps_images() -> None:
    one = segment()
    seen = veil(one)
    assert list(seen.batches) == [opaque(name) for name in one.batches]
    assert set(seen.samples.labels) == {""}
    for name, batch in one.batches.items():
        veiled = seen.batches[opaque(name)]
        assert veiled.ids == tuple(sorted(map(opaque, batch.ids)))
        assert torch.equal(veiled.images(), batch.images(order(batch)))
        assert sorted(veiled.origins) == list(batch.ids)
    text = repr(seen) + repr(vars(seen.samples))
    assert "GN" not in text and "gaussian" not in text and "class-" not in text


def test_the_store_knows_which_samples_a_veiled_shard_holds(tmp_path: Path) -> None:
    one, store = segment(), Store(tmp_path)
    store.shards.remember(veil(one).samples.described)
    ((path, found),) = store.shards
    assert path.stem == veil(one).samples.digest
    assert contents_of(found) == dict(zip(one.samples.ids, one.samples.contents, strict=True))


def test_labels_do_not_reach_the_digest_of_what_a_strategy_sees() -> None:
    one = segment()
    relabelled = {name: replace(batch, labels=tuple(reversed(batch.labels))) for name, batch in one.batches.items()}
    other = replace(one, batches=relabelled, domain="snow")
    assert veil(other).samples.digest == veil(one).samples.digest
    assert other.samples.digest != one.samples.digest


def test_bad_segments_are_refused_in_one_line() -> None:
    whole, one = tiny_stream(1), segment()
    empty = Samples((), (), ArrayPixels([], np.zeros((0, 8, 8, 3), np.uint8)))
    for bad in (
        (one, one),
        (one, replace(one, id="other")),
        (replace(one, batches={}),),
        (replace(one, batches={**one.batches, "b": empty}, declared=()),),
        (replace(one, declared=("b",)),),
    ):
        with pytest.raises(BadInput, match=r"segment|batches|twice"):
            replace(whole, segments=bad)
