"""ViDA against the invariants of its specification, and the official presets against a trace written by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from cl.adapters import pairs
from cl.data.test_time_augmentation import augmentations
from cl.data.veil import veil
from cl.errors import BadInput
from cl.home.store import Tensors
from cl.learning.adaptation import OnlineBatch, SourceModel
from cl.learning.strategy import Model
from cl.seeds import Seeds
from cl.testing import tiny_backbone, tiny_drift, tiny_segment
from strategies.vida import PRESETS, Vida, VidaHyper
from strategies.vida.allotment import NEUTRAL, Homeostasis, PairedModel
from strategies.vida.strategy import merged_weights, scores_with_pairs, static_scores
from strategies.vida.teaching import learn_from_teacher
from tests.adapting import arriving, scores, source, vida, warm

OFFICIAL = {name: value for name, value in PRESETS["official-cifar10"].items()} | {"passes": 3}


def paired() -> PairedModel:
    return PairedModel(tiny_backbone(), source(tiny_backbone()))


def pixels() -> Tensor:
    return tiny_backbone().pixels(next(iter(arriving().batches.values())).images())


def homeostasis(**how: Any) -> Homeostasis:
    return Homeostasis(paired(), VidaHyper(**{"passes": 3, **how}).allotment, Seeds("run"))


def test_vit_b_has_24_places_and_the_published_number_of_weights() -> None:  # V1
    with torch.device("meta"):
        vit = VisionTransformer(embed_dim=768, depth=12, num_heads=12, num_classes=0)
    backbone: Any = SimpleNamespace(name="vit-b", network=vit, require_sites=lambda what: (12, 768))
    cases: list[tuple[pairs.Where, int, int, int]] = [
        ("attention", 24, 55_296, 7_077_888),
        ("all", 48, 147_456, 18_874_368),
    ]
    for where, places, low, high in cases:
        made = pairs.init(backbone, pairs.PairShape(where, 1, 128, "code"), Seeds("v1"))
        sizes = {branch: sum(v.numel() for n, v in made.items() if f".{branch}." in n) for branch in ("low", "high")}
        assert len(pairs.sites(made)) == places and sizes == {"low": low, "high": high}
    assert made["blocks.0.attn.qkv.high.down"].std().item() == pytest.approx(128**-2, rel=0.05)


def test_fresh_pairs_change_no_bit_whatever_their_factors() -> None:  # V1
    fresh = pairs.init(tiny_backbone(), pairs.PairShape("attention", 1, 8, "code"), Seeds("v1"))
    with torch.no_grad():
        expected = paired().source.logits(pixels())
        for factors in (NEUTRAL, (0.3, 1.7)):
            assert torch.equal(paired().logits(pixels(), fresh, factors), expected)


def test_merged_weights_give_what_the_branches_give() -> None:  # V2
    with torch.no_grad():
        merged = paired().logits(pixels(), warm(), (0.7, 1.3))
        low, high = (torch.full((4, 1, 1), value) for value in (0.7, 1.3))
        beside = paired().logits(pixels(), warm(), (low, high))
    assert torch.allclose(merged, beside, atol=1e-5)
    assert not torch.allclose(merged, paired().source.logits(pixels()), atol=1e-4)


@given(u=st.floats(0, 3), invert=st.booleans())
def test_factors_follow_the_rule(u: float, invert: bool) -> None:  # V3
    how = VidaHyper(threshold=0.5, invert=invert, clip=False).allotment
    low, high = Homeostasis(paired(), how, Seeds("v3")).factors(torch.tensor(u, dtype=torch.float64))
    assert isinstance(low, float) and isinstance(high, float)
    assert u < 1e-12 or (high > 1) == ((u >= 0.5) != invert)
    assert low + high == pytest.approx(2) and abs(high - 1) == pytest.approx(u)
    clipped = Homeostasis(paired(), replace(how, clip=True), Seeds("v3")).factors(torch.tensor(u, dtype=torch.float64))
    assert all(isinstance(one, float) and 0 <= one <= 2 for one in clipped)


def test_at_the_threshold_the_wide_branch_is_favoured() -> None:  # V3
    low, high = homeostasis(threshold=0.25).factors(torch.tensor(0.25))
    assert (low, high) == (0.75, 1.25)


def test_the_wide_branch_gets_its_factor_but_not_in_the_released_code() -> None:  # V4, Q1
    with torch.no_grad():
        one, other = (paired().logits(pixels(), warm(), factors) for factors in ((0.5, 1.5), (1.5, 0.5)))
    assert not torch.allclose(one, other, atol=1e-5)
    assert homeostasis(lambda_apply="low_only").factors(torch.tensor(0.3))[1] == 1.0


@pytest.mark.parametrize("kind", ["views", "mc_dropout"])
@pytest.mark.parametrize("space", ["logits", "probs"])
def test_uncertainty_is_the_spread_over_passes(kind: Any, space: Any) -> None:
    batch = OnlineBatch("b", ("x", "y", "z", "w"), pixels())
    made = homeostasis(uncertainty=kind, space=space, scope="sample", chunk=5)
    outputs = made.perturbed_logits(batch, warm(), NEUTRAL)
    assert outputs.shape == (3, 4, 2) and not torch.allclose(outputs[0], outputs[1])
    u = made.uncertainty(outputs)
    p = outputs.softmax(2)
    expected = outputs.var(0).mean(1) if space == "logits" else ((p - p.mean(0)) ** 2).sum(2).mean(0).sqrt()
    assert torch.allclose(u, 0.1 * expected)
    whole = homeostasis(uncertainty=kind, space=space, chunk=5).uncertainty(outputs)
    assert torch.allclose(whole, u.mean())


def test_without_steps_the_state_is_constant_and_predictions_are_those_of_the_allotted_static() -> None:  # V8
    batches = arriving().batches
    found = vida(batches, lr=0.0, lr_vida=0.0)
    rule = VidaHyper(passes=3, threshold=0.01).allotment
    static = static_scores(
        batches, source(tiny_backbone()), warm(), backbone=tiny_backbone(), seeds=Seeds("run"), allotment=rule
    )
    assert torch.equal(scores(found), scores(static))
    for name, value in warm().items():
        assert torch.equal(found["state"][f"parameter/{name}"], value)
        assert torch.equal(found["state"][f"memory/teacher/{name}"], value)


def test_the_teacher_keeps_or_takes_everything() -> None:  # V9
    batches = arriving().batches
    kept, taken = (vida(batches, ema_vida=a, ema_model=a, train="vida+norm")["state"] for a in (1.0, 0.0))
    for name, value in warm().items():
        assert torch.equal(kept[f"memory/teacher/{name}"], value)
    moved = 0
    for name, value in taken.items():
        if name.startswith("parameter/"):
            assert torch.equal(taken[name.replace("parameter/", "memory/teacher/")], value)
            moved += not torch.equal(kept[name.replace("parameter/", "memory/teacher/")], value)
    assert moved


def test_full_restoration_returns_the_student_to_its_start() -> None:  # V10
    state = vida(arriving().batches, restore=1.0, train="all")["state"]
    start = {**SourceModel(tiny_backbone(), source(tiny_backbone())).weights(), **warm()}
    assert all(torch.equal(state[f"parameter/{name}"], value) for name, value in start.items())


def _first_gradient(**how: Any) -> float:
    first = dict(list(arriving().batches.items())[:1])
    return float(vida(first, **how)["evidence"]["gradient"][0])


def test_the_released_target_has_no_gradient_at_first_and_ours_has() -> None:  # V13
    released = _first_gradient(**OFFICIAL)
    symmetric = _first_gradient(**{**OFFICIAL, "symmetric": True})
    assert released < 1e-5 * symmetric
    for target in ("views_mean", "one_view"):
        assert _first_gradient(target=target) > 1e-3 * _first_gradient(target="plain", symmetric=True)


@pytest.mark.slow
def test_two_hundred_batches_of_the_released_preset_move_no_decision() -> None:  # V13
    one = tiny_segment("long", "noise", 200, 4)
    batches = veil(one).batches
    found = vida(batches, **OFFICIAL)
    still = vida(batches, **{**OFFICIAL, "lr": 0.0, "lr_vida": 0.0, "restore": 0.0})
    flips = (scores(found).argmax(1) != scores(still).argmax(1)).double().mean()
    assert flips < 0.005


def test_evaluation_in_between_changes_nothing() -> None:  # V16
    batches = list(arriving().batches.items())
    first = vida(dict(batches[:1]))
    given: dict[str, Any] = {"backbone": tiny_backbone(), "prefix": "memory/teacher"}
    test = tiny_drift().tasks[0].test
    seen = [scores_with_pairs(test, source(tiny_backbone()), first["state"], **given)["scores"] for _ in range(2)]
    assert torch.equal(*seen)
    again = vida(dict(batches[1:]), first["state"])
    assert torch.equal(scores(again), scores(vida(dict(batches[1:]), vida(dict(batches[:1]))["state"])))


def test_every_trained_weight_is_in_one_group_of_averages() -> None:  # V17
    state = vida(arriving().batches, train="all")["state"]
    trained = {name.removeprefix("parameter/") for name in state if name.startswith("parameter/")}
    in_pairs = {name for name in trained if pairs.is_pair(name)}
    assert in_pairs == set(warm())
    assert trained - in_pairs == set(SourceModel(tiny_backbone(), source(tiny_backbone())).weights())


def test_the_exported_weights_give_the_teachers_outputs() -> None:
    state, backbone = vida(arriving().batches, train="vida+norm")["state"], tiny_backbone()
    given: dict[str, Any] = {"backbone": backbone, "prefix": "memory/teacher"}
    plain = merged_weights(source(backbone), state, low=1.0, high=1.0, **given)
    assert set(plain) == set(SourceModel(backbone, source(backbone)).weights()), "no weight more than the source has"
    test = tiny_drift().tasks[0].test
    with torch.no_grad():
        exported = paired().source.logits(backbone.pixels(test.images()), plain)
    assert torch.allclose(exported, scores_with_pairs(test, source(backbone), state, **given)["scores"], atol=1e-5)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_preset_learns_and_stays_finite(preset: str) -> None:
    h = {name: value for name, value in PRESETS[preset].items() if not name.startswith("source_")}
    found = vida(arriving().batches, **h)
    assert torch.isfinite(scores(found)).all() and found["evidence"]["updated"].sum() == 3


def test_collapse_resets_the_method() -> None:  # V7
    batches = veil(tiny_segment("long", "noise", 22, 1)).batches
    assert vida(batches, reset="collapse", lr_vida=0.0)["evidence"]["reset"].sum() == 0
    head = {**source(tiny_backbone())["head"], "bias": torch.tensor([50.0, 0.0])}  # one class, whatever arrives
    h = VidaHyper(passes=3, reset="collapse")
    given: dict[str, Any] = {"backbone": tiny_backbone(), "allotment": h.allotment, "teaching": h.teaching}
    found = learn_from_teacher(batches, {"head": head}, warm(), None, seeds=Seeds("run"), **given)
    assert found["evidence"]["reset"].nonzero().tolist() == [[19]] and found["state"]["memory/flat"] == 2


def test_factors_of_single_images_are_not_carried_to_the_next_batch() -> None:
    method = Vida(VidaHyper(scope="sample", views_lambda="carried"), None)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="set views_lambda=neutral or scope=batch"):
        method.learn(tiny_drift().tasks[0], Model())


def test_the_official_preset_does_what_the_released_code_does() -> None:  # V18: Q1, Q2, Q4 against a trace by hand
    batches, backbone, seeds = arriving().batches, tiny_backbone(), Seeds("run")
    model = SourceModel(backbone, source(backbone))
    start = {**model.weights(), **warm()}
    student = {name: value.clone().requires_grad_() for name, value in start.items()}
    teacher = {name: value.clone() for name, value in start.items()}
    rates = [1e-5 if pairs.is_pair(name) else 1e-4 for name in start]
    adam = torch.optim.Adam([{"params": [v], "lr": lr} for v, lr in zip(student.values(), rates, strict=True)])
    low = 1.0  # the factor that the last batch left behind; the wide branch stays at 1
    expected = []

    def run(weights: Tensors, x: Tensor, low: float) -> Tensor:
        whole = {name: value for name, value in weights.items() if not pairs.is_pair(name)}
        for site in pairs.sites(weights):
            narrow = weights[f"{site}.low.up"] @ weights[f"{site}.low.down"]
            wide = weights[f"{site}.high.up"] @ weights[f"{site}.high.down"]
            whole[f"{site}.weight"] = whole[f"{site}.weight"] + low * narrow + wide
        return model.logits(x, whole)

    for key, batch in batches.items():
        x = backbone.pixels(batch.images())
        with torch.no_grad():
            outputs = torch.stack(
                [run(teacher, one, low) for one in augmentations(x, batch.ids, 3, seeds, key).chunk(3)]
            )
            u = 0.1 * outputs.var(0).mean()
            low = float(1 - u if u >= 0.05 else 1 + u)
            z = run(teacher, x, low)
        expected.append(z)
        y = run(student, x, low)  # the symmetric loss: the other has rounding for a gradient, which no trace can follow
        loss = -0.5 * (z.softmax(1) * y.log_softmax(1) + y.softmax(1) * z.log_softmax(1)).sum(1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        with torch.no_grad():
            for name in start:
                teacher[name] += (1 - 0.999) * (student[name] - teacher[name])
                draws = torch.rand(start[name].shape, generator=seeds.generator("restore", key, name))
                student[name].copy_(torch.where(draws < 0.1, start[name], student[name]))

    found = vida(batches, **{**OFFICIAL, "threshold": 0.05, "symmetric": True})
    assert found["evidence"]["lambda_high"].tolist() == [1.0] * 3
    assert found["state"]["memory/carried"][0].item() == pytest.approx(low, abs=1e-5)
    every = sorted(sample for batch in batches.values() for sample in batch.ids)
    for batch, z in zip(batches.values(), expected, strict=True):
        rows = [every.index(sample) for sample in batch.ids]
        assert torch.allclose(scores(found)[rows], z, atol=1e-4)
