"""Low-rank adapters: what PEFT trains is what runs, exactly where it must be, and the backbone stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cl.adapters import lowrank
from cl.adapters.peft_lora import Grown
from cl.digests import digest_tensors
from cl.errors import UnknownName
from cl.models.backbone import BATCH
from cl.seeds import Seeds, global_state
from cl.testing import tiny_backbone

LAYERS = ["attn.qkv", "attn.proj", "mlp.fc1"]


def images() -> Tensor:
    draws = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (BATCH, 3, 32, 32), generator=draws, dtype=torch.uint8)


def grown(kind: Any, rank: int = 4) -> Grown:
    return Grown(tiny_backbone(), Seeds(f"test|{kind}"), LAYERS, rank, 8.0, kind)


def trained(start: Grown, seed: int = 0) -> dict[str, Tensor]:
    """Parameters as some training might leave them."""
    draws = torch.Generator().manual_seed(seed)
    return {name: value + 0.05 * torch.randn(value.shape, generator=draws) for name, value in start.start.items()}


def adapters(count: int) -> list[dict[str, Tensor]]:
    made = grown("lora")
    return [made.extracted(trained(made, seed)) for seed in range(count)]


@pytest.mark.parametrize("kind", ["lora", "rslora", "pissa", "dora"])
@torch.no_grad()
def test_an_adapter_run_functionally_is_the_network_that_peft_trained(kind: str) -> None:
    backbone = tiny_backbone()
    before, state = digest_tensors(backbone.network.state_dict()), global_state()
    made = grown(kind)
    assert digest_tensors(backbone.network.state_dict()) == before and global_state() == state
    theirs = made.features(trained(made), backbone.enter(images()))
    adapter = made.extracted(trained(made))
    ours = backbone.changed(images(), lowrank.layers(adapter), lowrank.change(adapter))
    assert (ours - theirs).abs().max() < 1e-5
    assert (ours - backbone.features(images())).abs().max() > 1e-3
    rank = 8 if kind == "pissa" else 4  # PiSSA over W itself: s (B A - B0 A0)
    assert adapter["attn.qkv.down"].shape == (2, rank, 32) and adapter["attn.qkv.up"].shape == (2, 96, rank)


@pytest.mark.parametrize("kind", ["lora", "rslora", "pissa", "dora"])
@torch.no_grad()
def test_a_new_adapter_is_the_identity(kind: str) -> None:
    backbone, made = tiny_backbone(), grown(kind)
    adapter = made.extracted(made.start)
    found = backbone.changed(images(), lowrank.layers(adapter), lowrank.change(adapter))
    plain = backbone.features(images())
    assert torch.equal(found, plain) if kind in ("lora", "rslora") else (found - plain).abs().max() < 1e-5


def test_scales_are_those_of_the_papers() -> None:
    ups = {}
    for kind in ("lora", "rslora"):
        made = Grown(tiny_backbone(), Seeds("one"), LAYERS, 4, 8.0, kind)  # type: ignore[arg-type]
        ups[kind] = made.extracted(trained(made))["attn.qkv.up"]
    assert torch.allclose(ups["rslora"], ups["lora"] * 2)  # alpha / sqrt(4) over alpha / 4


@torch.no_grad()
def test_ranks_side_by_side_are_the_weighted_sum_of_deltas_and_pefts_linear_is_not() -> None:
    made, weights = adapters(3), [0.5, 0.3, 0.2]
    joined = lowrank.concat(made, weights)
    for layer in LAYERS:
        deltas = [one[f"{layer}.up"] @ one[f"{layer}.down"] for one in made]
        exact = sum((w * delta for w, delta in zip(weights, deltas, strict=True)), torch.zeros(()))
        assert (joined[f"{layer}.up"] @ joined[f"{layer}.down"] - exact).abs().max() < 1e-6
        roots = [w**0.5 for w in weights]
        up, down = (
            sum((r * one[f"{layer}.{side}"] for r, one in zip(roots, made, strict=True)), torch.zeros(()))
            for side in ("up", "down")
        )
        assert (up @ down - exact).norm() > 0.1 * exact.norm()


@torch.no_grad()
def test_each_row_of_a_batch_gets_its_own_mixture() -> None:
    backbone, made = tiny_backbone(), adapters(3)
    draws = torch.Generator().manual_seed(5)
    picks = torch.stack([torch.randperm(3, generator=draws)[:2] for _ in range(BATCH)])
    weights = torch.softmax(torch.randn(BATCH, 2, generator=draws), 1)
    found = backbone.changed(images(), LAYERS, lowrank.mixed(made, picks, weights))
    for row in (0, 17, BATCH - 1):
        own = lowrank.concat([made[number] for number in picks[row]], weights[row].tolist())
        alone = backbone.changed(images(), LAYERS, lowrank.change(own))
        assert (found[row] - alone[row]).abs().max() < 1e-5
    other = picks.clone()
    other[1:] = picks[1:].flip(0)
    assert torch.equal(backbone.changed(images(), LAYERS, lowrank.mixed(made, other, weights))[0], found[0])


def test_a_layer_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"attn\.qkv"):
        tiny_backbone().linears(["attn.qvk"])
