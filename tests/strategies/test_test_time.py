"""Test-time adaptation: what each method becomes at the ends of its settings, and what no input may do to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cl import registry
from cl.data.samples import Samples
from cl.data.test_time_augmentation import augmentations
from cl.home.store import Tensors
from cl.learning.adaptation import Descent, SourceModel, batch_statistics, norm_names
from cl.models.vit import TimmBackbone
from cl.seeds import Seeds
from cl.testing import tiny_backbone, tiny_drift
from strategies.eata import fisher, minimise_selectively
from strategies.vida import VidaHyper
from strategies.vida.strategy import static_scores
from tests.adapting import (
    COTTA,
    EATA,
    LEARNING,
    METHODS,
    SAR,
    arriving,
    method,
    plain,
    scores,
    source,
    tiny_resnet,
    warm,
)


def test_source_scores_do_not_depend_on_how_images_are_dealt_out() -> None:  # T1
    whole = arriving(batches=1, size=12)
    reference = plain(whole.batches)
    for size in (1, 5):
        ids = whole.samples.ids
        dealt = {str(start): whole.samples.keep(ids[start : start + size]) for start in range(0, 12, size)}
        assert torch.allclose(scores(plain(dict(reversed(dealt.items())))), scores(reference), atol=1e-6)


def test_tent_without_a_step_is_the_source_to_the_bit() -> None:  # T2
    batches = arriving().batches
    found = method("tent", how=Descent("sgd", 0.0))(batches, None)
    assert torch.equal(scores(found), scores(plain(batches)))


def test_bn1_is_the_source_without_batch_norm_and_another_model_with_it() -> None:  # T3
    batches = arriving().batches
    assert torch.equal(scores(method("bn1")(batches, None)), scores(plain(batches)))
    backbone = tiny_resnet()
    before = {name: value.clone() for name, value in backbone.network.state_dict().items()}
    found = scores(method("bn1", backbone)(batches, None))
    assert not torch.allclose(found, scores(plain(batches, backbone)), atol=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in backbone.network.state_dict().items())
    backbone.network.train()
    first = next(iter(batches.values()))
    model = SourceModel(backbone, source(backbone))
    with torch.no_grad():
        expected = model.logits(backbone.pixels(first.images()))
    backbone.network.load_state_dict(before)
    backbone.network.eval()
    rows = [sorted(s for one in batches.values() for s in one.ids).index(sample) for sample in first.ids]
    assert torch.allclose(found[rows], expected, atol=1e-5)


def test_eata_that_keeps_nothing_is_the_source() -> None:  # T4
    batches = arriving().batches
    found = method("eata", selection=replace(EATA, margin=0.0))(batches, None)
    assert torch.equal(scores(found), scores(plain(batches)))
    assert found["evidence"]["updated"].sum() == 0


def test_sar_without_radius_and_filter_is_tent() -> None:  # T4
    batches = arriving().batches
    sar = method("sar", sharpness=replace(SAR, rho=0.0))(batches, None)
    tent = method("tent")(batches, None)
    assert torch.allclose(scores(sar), scores(tent), atol=1e-6)
    for name, value in tent["state"].items():
        assert torch.allclose(sar["state"][name], value, atol=1e-6), name


def test_sar_leaves_the_last_quarter_and_the_final_norm_alone() -> None:
    names = norm_names(tiny_backbone(), 0.5)
    assert names and all(name.startswith("blocks.0.") for name in names)
    assert "norm.weight" in norm_names(tiny_backbone())
    assert not any(name.startswith("layer4") for name in norm_names(tiny_resnet(), 0.75))


def test_cotta_with_nothing_left_to_move_is_the_source() -> None:  # T5
    batches = arriving().batches
    found = method("cotta", teacher=replace(COTTA, probability=1.0, ema=1.0, confidence=0.0))(batches, None)
    assert torch.equal(scores(found), scores(plain(batches)))


def test_a_reset_after_every_batch_is_episodic() -> None:  # T6
    batches = arriving().batches
    found = method("eata", reset_every=1)(batches, None)
    alone = [method("eata")({key: batch}, None) for key, batch in batches.items()]
    for key, one in zip(batches, alone, strict=True):
        assert torch.equal(scores(found)[_rows(batches, key)], scores(one))
    assert found["evidence"]["reset"].sum() == len(batches)


@pytest.mark.parametrize("name", LEARNING)
def test_learning_changes_later_scores_and_never_earlier_ones(name: str) -> None:  # V14
    batches = arriving().batches
    keys = list(batches)
    straight = method(name)(batches, None)
    future = {keys[0]: batches[keys[0]], keys[2]: batches[keys[2]], keys[1]: batches[keys[1]]}
    other = method(name)(future, None)
    rows = _rows(batches, keys[0])
    assert torch.equal(scores(straight)[rows], scores(other)[rows])
    late = _rows(batches, keys[2])
    assert not torch.equal(scores(straight)[late], scores(other)[late])
    assert straight["evidence"]["updated"].sum() == 3


def _rows(batches: Mapping[str, Samples], key: str) -> list[int]:
    every = sorted(sample for batch in batches.values() for sample in batch.ids)
    return [every.index(sample) for sample in batches[key].ids]


@pytest.mark.parametrize("name", LEARNING)
def test_a_segment_in_pieces_comes_to_the_same_bytes(name: str) -> None:  # V11
    batches = arriving().batches
    whole = method(name)(batches, None)
    state = None
    for key, batch in batches.items():
        found = method(name)({key: batch}, state)
        state = found["state"]
        rows = _rows(batches, key)
        assert torch.equal(scores(found), scores(whole)[rows])
    assert state is not None and state.keys() == whole["state"].keys()
    assert all(torch.equal(state[entry], value) for entry, value in whole["state"].items())


class Pictures:
    """Pixels that are given as they are, NaN too."""

    def __init__(self, images: Mapping[str, Tensor]) -> None:
        self._images = dict(images)

    def digest(self, sample: str) -> str:
        return sample

    def read(self, samples: Any, crops: Any = None) -> Tensor:
        return torch.stack([self._images[sample] for sample in samples])


def _odd(kind: str) -> Samples:
    noise = torch.rand(4, 3, 32, 32, generator=Seeds("odd").generator(kind)) * 255
    images = {
        "nan": noise.index_fill(0, torch.tensor([1]), torch.nan),
        "inf": noise.index_fill(0, torch.tensor([2]), torch.inf),
        "one": noise[:1],
        "constant": torch.full((50, 3, 32, 32), 128.0),
        "black": torch.zeros(4, 3, 32, 32),
    }[kind]
    named = {f"{row:03d}": image for row, image in enumerate(images)}
    return Samples.of(dict.fromkeys(named, ""), Pictures(named))


@pytest.mark.parametrize("kind", ["nan", "inf", "one", "constant", "black"])
@pytest.mark.parametrize("name", METHODS)
def test_odd_batches_leave_finite_scores_now_and_afterwards(name: str, kind: str) -> None:  # T13, V5, V6, V7
    good = arriving(batches=1).batches
    first = method(name)({"odd": _odd(kind)}, None)
    then = method(name)(good, first.get("state"))
    assert torch.isfinite(scores(first)).all() and torch.isfinite(scores(then)).all()
    assert all(torch.isfinite(value).all() for value in then.get("state", {}).values())
    if kind in ("nan", "inf"):
        assert first["evidence"]["quarantined"].tolist() == [1.0] and first["evidence"]["updated"].tolist() == [0.0]
        assert (scores(first)[{"nan": 1, "inf": 2}[kind]] == 0).all(), "nobody can score it: abstained"
        assert torch.equal(scores(then), scores(method(name)(good, None))), "a quarantined batch must leave no trace"


@pytest.mark.parametrize("name", LEARNING)
def test_a_model_whose_loss_is_not_finite_learns_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:  # V6
    batches, honest = arriving(batches=1).batches, source

    def overflowing(backbone: TimmBackbone) -> dict[str, Tensors]:
        return {"head": {**honest(backbone)["head"], "weight": torch.full((2, backbone.dim), 3e38)}}

    monkeypatch.setattr("tests.adapting.source", overflowing)
    first = method(name)(batches, None)
    again = method(name)(batches, first["state"])
    assert first["evidence"]["quarantined"].tolist() == [1.0] and first["evidence"]["updated"].tolist() == [0.0]
    assert torch.isfinite(scores(first)).all()
    assert all(torch.equal(again["state"][entry], value) for entry, value in first["state"].items())


@pytest.mark.parametrize("name", ["tent", "eata", "sar", "cotta"])
def test_networks_with_batch_norm_are_adapted_by_batch_statistics(name: str) -> None:
    backbone = tiny_resnet()
    before = {key: value.clone() for key, value in backbone.network.state_dict().items()}
    found = method(name, backbone)(arriving(batches=2).batches, None)
    assert torch.isfinite(scores(found)).all() and found["evidence"]["updated"].sum() > 0
    assert all(torch.equal(value, before[key]) for key, value in backbone.network.state_dict().items())
    alone = method(name, backbone)(arriving(batches=1, size=1).batches, None)
    assert torch.isfinite(scores(alone)).all()


def test_augmentations_are_normalised_by_the_statistics_of_their_own_copy() -> None:
    batches, backbone = arriving(batches=1).batches, tiny_resnet()
    ((_, batch),) = batches.items()
    found = scores(method("cotta", backbone)(batches, None))
    copies = augmentations(backbone.pixels(batch.images()), batch.ids, COTTA.passes, Seeds("run")).chunk(COTTA.passes)
    model = SourceModel(backbone, source(backbone))
    with torch.no_grad(), batch_statistics(backbone, len(batch)):
        expected = torch.stack([model.logits(one) for one in copies]).mean(0)
    assert torch.allclose(found, expected, atol=1e-5)


def test_fisher_information_is_the_mean_of_squared_gradients() -> None:
    backbone, train = tiny_backbone(), tiny_drift().tasks[0].train
    found = fisher([train], source(backbone), backbone=backbone, seeds=Seeds("f"), images=5)
    assert set(found) == set(norm_names(backbone))
    model = SourceModel(backbone, source(backbone))
    weights = {name: value.requires_grad_() for name, value in model.weights(list(found)).items()}
    rows = Seeds("f").order(train.ids, "fisher")[:5]
    logits = model.logits(backbone.pixels(train.images(rows)), weights)
    loss = torch.nn.functional.cross_entropy(logits, logits.argmax(1))
    for name, gradient in zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True):
        assert torch.allclose(found[name], gradient.square())


def test_importance_holds_weights_near_the_source() -> None:
    batches, backbone = arriving().batches, tiny_backbone()
    start = SourceModel(backbone, source(backbone)).weights(norm_names(backbone))
    heavy = {name: torch.full_like(value, 1e3) for name, value in start.items()}
    given: dict[str, Any] = {"backbone": backbone, "how": Descent("sgd", 1e-4), "reset_every": 0}
    given["selection"] = replace(EATA, fisher_weight=1.0)
    moved = [
        sum((state[f"parameter/{name}"] - value).abs().sum().item() for name, value in start.items())
        for importance in (None, heavy)
        for state in [minimise_selectively(batches, source(backbone), importance, None, **given)["state"]]
    ]
    assert moved[1] < moved[0]


def test_statics_are_the_warmed_source() -> None:
    rule, batches = VidaHyper(passes=3, threshold=0.01).allotment, arriving().batches
    static, allotted = (
        static_scores(
            batches, source(tiny_backbone()), warm(), backbone=tiny_backbone(), seeds=Seeds("run"), allotment=allotment
        )
        for allotment in (None, rule)
    )
    assert not torch.equal(scores(static), scores(plain(batches)))
    assert not torch.equal(scores(static), scores(allotted))
    assert np.isfinite(allotted["evidence"]["lambda_high"].numpy()).all()


def test_every_method_at_test_time_starts_from_the_same_source() -> None:
    names = {"source", "bn1", "tent", "cotta", "eata", "sar", "rdumb", "vida", "vida-static", "vida-static+hka"}
    assert names <= set(registry.strategies.names())
    learns = {registry.strategies.get(name).train_source for name in names}
    assert len(learns) == 1
