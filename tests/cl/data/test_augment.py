"""Training augmentation: seeded by sample and epoch, the published crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cl.data.augment import ATTEMPTS, Crop, crop_flip, crops
from cl.data.samples import ArrayPixels, Samples
from cl.errors import BadInput
from cl.learning.train import Batch, augmented
from cl.seeds import Seeds

IDS = ["a", "b", "c"]


def shard(augment: str, ids: list[str] = IDS) -> Samples:
    images = {
        sample: np.random.default_rng(ord(sample)).integers(0, 256, (16, 16, 3), dtype=np.uint8) for sample in IDS
    }
    pixels = ArrayPixels(ids, np.stack([images[sample] for sample in ids]))
    return Samples.of(dict.fromkeys(ids, "x"), pixels, augment)


def seen(samples: Samples, epoch: int = 0) -> torch.Tensor:
    return augmented(samples, Batch(list(range(len(samples))), list(samples.ids), epoch), Seeds("root"))


def test_without_augmentation_images_are_as_they_are() -> None:
    assert seen(shard("none")).equal(shard("none").images())


def test_a_crop_belongs_to_its_sample_and_epoch() -> None:
    name = crop_flip((0.2, 1.0))
    whole, fewer = seen(shard(name)), seen(shard(name, ["a", "c"]))
    assert whole[[0, 2]].equal(fewer)
    assert not whole.equal(seen(shard(name), epoch=1))
    assert shard(name).digest != shard(crop_flip((0.3, 1.0))).digest != shard("none").digest


def test_evaluation_never_sees_it() -> None:
    assert shard(crop_flip((0.2, 1.0))).plain.digest == shard("none").digest


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 1 << 30))
def test_a_crop_lies_inside_the_image(width: int, height: int, seed: int) -> None:
    draws = np.random.default_rng(seed).random(4 * ATTEMPTS + 1)
    left, top, right, bottom = Crop((0.05, 1.0), tuple(draws)).box(width, height)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height


def test_shares_and_ratios_are_those_asked_for() -> None:
    boxes = [crop.box(300, 300) for crop in crops(crop_flip((0.25, 0.5)), [str(n) for n in range(200)], 0, Seeds("s"))]
    sizes = np.array([(right - left, bottom - top) for left, top, right, bottom in boxes])
    share, ratio = sizes.prod(1) / 300**2, sizes[:, 0] / sizes[:, 1]
    assert 0.24 < share.min() < 0.28 and 0.47 < share.max() < 0.51
    assert 0.74 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.35


def test_an_unknown_augmentation_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown augmentation 'blur'"):
        crops("blur", IDS, 0, Seeds("s"))
