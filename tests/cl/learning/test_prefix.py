"""The frozen prefix: the same bytes whether it is read back or computed, and less work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cl.adapters import bottleneck
from cl.learning.prefix import entering, fits, frozen_prefix
from cl.learning.train import Batch, Frozen
from cl.models.backbone import BATCH, rows
from cl.seeds import Seeds
from cl.testing import tiny_backbone, tiny_stream
from tests.tiny import run_tiny, same

PREFIX = frozen_prefix


def adapter(depth: int) -> dict[str, torch.Tensor]:
    made = bottleneck.init(tiny_backbone(depth=depth), 4, Seeds("x").generator("init"))
    made["up.weight"] += 0.3
    return made


def test_features_from_a_stored_prefix_have_the_bits_of_a_whole_pass() -> None:
    backbone, shard = tiny_backbone(depth=3), tiny_stream(1, train=BATCH).tasks[0].train
    branch = bottleneck.attach(adapter(3), 1.0)
    whole = rows(
        backbone, entering(shard, backbone, 0, None, None), lambda x: backbone.finish(backbone.site(0, x), branch)
    )
    stored = PREFIX(shard, adapter(3), backbone=backbone, block=2)["stream"]
    before = backbone.passes
    streams = entering(shard, backbone, 2, branch, stored)
    short = rows(backbone, streams, lambda x: backbone.finish(backbone.site(2, x), branch, first=2))
    assert same(whole, short)
    assert backbone.passes - before == pytest.approx(len(shard) / 3)  # one block of three, padding not counted


def test_training_reads_back_the_rows_of_its_batch() -> None:
    backbone, shard = tiny_backbone(depth=3), tiny_stream(1, train=8).tasks[0].train
    branch = bottleneck.attach(adapter(3), 1.0)
    stored = PREFIX(shard, adapter(3), backbone=backbone, block=1)["stream"]

    def site(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return backbone.site(2, backbone.through(x, branch, 1, 2))

    batch = Batch([5, 2], [shard.ids[5], shard.ids[2]], epoch=3)
    for stream in (stored, None):
        kept = Frozen(shard, backbone, Seeds("x"), site, block=1, below=branch, stored=stream)
        before = backbone.passes
        h, _ = kept(batch)
        assert backbone.passes == before
        assert same(h, Frozen(shard, backbone, Seeds("x"), site, block=1, below=branch, stored=stored)(batch)[0])


def test_a_shard_that_is_too_large_is_computed_for_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, shard = tiny_backbone(), tiny_stream(1, train=8).tasks[0].train
    batch = Batch([1], [shard.ids[1]], epoch=0)

    def site() -> torch.Tensor:
        return Frozen(shard, backbone, Seeds("x"), lambda x: backbone.site(0, x))(batch)[0]

    kept = site()
    monkeypatch.setattr("cl.learning.train.PREFIX_BYTES", 100)
    assert torch.allclose(kept, site(), atol=1e-6)
    monkeypatch.setattr("cl.learning.prefix.PREFIX_BYTES", 100)
    assert not fits(shard, backbone.tokens, backbone.dim)


def test_a_run_is_the_same_without_kept_prefixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"rd_epochs": 1, "min_scan_batch": 1, "growing": 1}
    kept = run_tiny(tmp_path / "kept", "sema", tiny_stream(2, train=10), **settings).figures
    monkeypatch.setattr("strategies.sema.method.fits", lambda *_: False)
    computed = run_tiny(tmp_path / "computed", "sema", tiny_stream(2, train=10), **settings).figures
    assert kept["manifest"] == computed["manifest"]
    assert sum(kept["forward_passes"].values()) < sum(computed["forward_passes"].values())
