"""Frozen features: plain timm's bits, rows that do not see their neighbours, sites."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cl
from cl.adapters import bottleneck
from cl.errors import BadInput, UnknownName
from cl.home.runs import Runs
from cl.home.store import Store
from cl.models.backbone import BATCH, embed
from cl.models.loading import default_backbone, load_backbone
from cl.numerics import configure
from cl.running.compare import cells
from cl.running.options import Options
from cl.seeds import Seeds
from cl.testing import tiny_backbone, tiny_stream
from tests.tiny import BACKBONE, run_tiny, same


@pytest.fixture(autouse=True)
def one_thread() -> None:
    configure("cpu")


def test_without_adapters_features_are_plain_timms() -> None:
    backbone, images = tiny_backbone(), tiny_stream().tasks[0].train.images()
    with torch.no_grad():
        plain = backbone.network.forward_head(
            backbone.network.forward_features(backbone.prepare(images)), pre_logits=True
        )
    assert same(backbone.features(images), plain)


def test_a_fresh_adapter_is_the_identity() -> None:  # EASE spec, invariant 1
    backbone, shard = tiny_backbone(), tiny_stream().tasks[0].train
    fresh = bottleneck.init(backbone, 4, Seeds("x").generator("init"))
    assert same(embed(backbone, shard), embed(backbone, shard, bottleneck.attach(fresh, 0.1)))


def test_adapter_against_a_plain_reading_of_its_formula() -> None:
    backbone, images = tiny_backbone(), tiny_stream().tasks[0].train.images()
    generator = Seeds("x").generator("any")
    adapter = {
        name: torch.randn(value.shape, generator=generator)
        for name, value in bottleneck.init(backbone, 4, generator).items()
    }
    network = backbone.network
    with torch.no_grad():
        x = network._pos_embed(network.patch_embed(backbone.prepare(images)))
        for place, block in enumerate(network.blocks):
            h = x + block.attn(block.norm1(x))
            hidden = torch.relu(h @ adapter["down.weight"][place].T + adapter["down.bias"][place])
            branch = hidden @ adapter["up.weight"][place].T + adapter["up.bias"][place]
            x = h + block.mlp(block.norm2(h)) + 0.1 * branch
        expected = network.norm(x)[:, 0]
        found = backbone.features(images, bottleneck.attach(adapter, 0.1))
    assert torch.allclose(found, expected, atol=1e-5)


@given(st.lists(st.integers(0, 35), min_size=1, max_size=36, unique=True))
def test_a_rows_bits_do_not_depend_on_its_neighbours(rows: list[int]) -> None:
    backbone, shard = tiny_backbone(), tiny_stream(1, 6).tasks[0].train
    whole = dict(zip(shard.ids, embed(backbone, shard), strict=True))
    part = shard.keep({shard.ids[row] for row in rows})
    for sample, feature in zip(part.ids, embed(backbone, part), strict=True):
        assert same(whole[sample], feature)


def test_shards_larger_than_a_batch() -> None:
    backbone, shard = tiny_backbone(), tiny_stream(1, 2, train=BATCH + 7).tasks[0].train
    before = backbone.passes
    features = embed(backbone, shard)
    assert features.shape == (2 * BATCH + 14, 32)
    assert backbone.passes - before == len(shard)  # padding is not counted


def test_what_is_left_out_of_the_last_block_is_not_in_the_feature() -> None:
    backbone, shard = tiny_backbone(), tiny_stream().tasks[0].train
    adapter = bottleneck.init(backbone, 4, Seeds("x").generator("init"))
    adapter["up.weight"] += 0.3
    branch = bottleneck.attach(adapter, 0.1)
    with torch.no_grad():
        every = backbone.through(backbone.enter(shard.images()), branch, 0, backbone.blocks)
        whole = backbone.network.forward_head(backbone.network.norm(every), pre_logits=True)
    assert torch.allclose(whole, embed(backbone, shard, branch), atol=1e-5)


def test_parameter_count_of_the_paper() -> None:  # EASE spec, section 2: 12 (2dr + r + d)
    class Vitb:
        def require_sites(self, what: str) -> tuple[int, int]:
            return 12, 768

    for width, count in ((64, 1_189_632), (16, 304_320)):
        adapter = bottleneck.init(Vitb(), width, Seeds("x").generator("init"))  # type: ignore[arg-type]
        assert sum(value.numel() for value in adapter.values()) == count


def test_names_that_are_not_there() -> None:
    with pytest.raises(UnknownName, match="glyph-vit"):
        load_backbone("glyph-vti")
    with pytest.raises(BadInput, match="random:vit_tiny_patch16_224"):
        load_backbone("vit_tiny_patch16_224")


def test_the_environment_names_the_backbone_where_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = run_tiny(tmp_path / "named", "simplecil")
    monkeypatch.setenv("PALIMPSEST_BACKBONE", BACKBONE)
    meant = cl.run(tiny_stream(), "simplecil", home=tmp_path / "meant")
    assert meant.id == named.id and Runs(Store(tmp_path / "meant")).source(meant.id).backbone == BACKBONE
    (cell,) = cells("cl.testing:tiny_stream", ["simplecil"], 1, Options())
    assert cell.options.backbone == BACKBONE
    monkeypatch.setenv("PALIMPSEST_BACKBONE", "")
    assert default_backbone() == "glyph-vit"
    monkeypatch.setenv("PALIMPSEST_BACKBONE", "glyph-vti")
    with pytest.raises(
        UnknownName, match="unknown backbone 'glyph-vti' in PALIMPSEST_BACKBONE; did you mean glyph-vit"
    ):
        cl.run(tiny_stream(), "simplecil", home=tmp_path / "meant")


def test_a_convolutional_net_gives_features_but_no_sites() -> None:
    network = load_backbone("random:test_resnet")
    assert network.features(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, network.dim)
    with pytest.raises(BadInput, match="no sites for bottleneck adapters"):
        bottleneck.init(network, 4, Seeds("x").generator("init"))
