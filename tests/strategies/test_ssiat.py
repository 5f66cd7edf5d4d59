"""SSIAT against its specification's invariants (section 10) and figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cl.adapters import bottleneck
from cl.components.checkpoint import Checkpoint
from cl.data.augment import crop_flip
from cl.data.samples import ArrayPixels, Samples
from cl.data.stream import Stream
from cl.errors import BadInput
from cl.home.store import Tensors
from cl.learning.hyper import resolve
from cl.learning.strategy import Model
from cl.learning.train import Optimisation, Tuning
from cl.models.backbone import embed
from cl.models.heads import cosface
from cl.seeds import Seeds
from cl.testing import tiny_backbone, tiny_stream
from strategies.ssiat import Ssiat
from strategies.ssiat.method import CosFaceHead, cosine_scores, session_factors, tune_on_session
from strategies.ssiat.shift import Shift, log_kernel, nearness, shifted_means, squared_distances
from strategies.ssiat.variants import loaded_features
from tests.tiny import QUICK, builder, learn, run_tiny, same

T = torch.tensor
SHIFT, TUNE, SCORES, LOADED = shifted_means, tune_on_session, cosine_scores, loaded_features  # plain functions
SMALL = {**QUICK, "first_epochs": 2, "align_epochs": 2, "draws": 32}


def moved(e1: list[float], e2: list[float], mean: float = 0.0, **settings: Any) -> float:
    """The one old mean after the shift of a session whose images lie on a line."""
    shift = Shift(**{"kind": "weighted", "sigma": 4.0, "floor": 1e-5, **settings})
    rows = [{"features": T(values, dtype=torch.float32)[:, None]} for values in (e1, e2)]
    found = SHIFT({"mean": T([[mean]])}, {"mean": torch.zeros(0, 1)}, *rows, shift=shift)
    return found["mean"]["mean"].item()


def test_growth_is_the_formula() -> None:  # invariant 1
    shapes = [(12, 64, 768), (12, 64), (12, 768, 64), (12, 768)]
    assert sum(torch.Size(shape).numel() for shape in shapes) == 1_189_632
    made = bottleneck.init(tiny_backbone(), 4, Seeds("s").generator("init"))
    assert [len(one.shape) for one in made.values()] == [len(shape) for shape in shapes]


@pytest.mark.parametrize(("margin", "expected"), [(0.0, 0.01815), (0.3, 2.12693)])
def test_margin_loss_by_hand(margin: float, expected: float) -> None:  # invariant 2
    cosines = T([[0.5, 0.3]])
    assert cosface(cosines, T([0]), 20.0, margin).item() == pytest.approx(expected, abs=1e-5)
    assert cosface(cosines[:, :1], T([0]), 20.0, margin).item() == 0.0


def test_shift_by_hand() -> None:  # invariant 3
    before, after = [0.0, 4.0, 400.0], [1.0, 7.0, 500.0]
    assert moved(before, after) == pytest.approx(1.75570, abs=1e-5)
    assert moved(before, after, floor=0.0) == pytest.approx(1.75508, abs=1e-5)
    assert moved(before, after, kind="mean") == pytest.approx(104 / 3, abs=1e-4)


def test_far_images_give_the_plain_mean_or_stay_finite() -> None:  # invariant 4
    assert moved([400.0, 400.0], [401.0, 403.0]) == pytest.approx(2.0)
    assert moved([400.0, 500.0], [401.0, 503.0], floor=0.0) == pytest.approx(1.0)


def test_what_did_not_move_moves_nothing() -> None:  # invariant 5
    before = [3.0, -1.0, 8.0]
    assert moved(before, before, mean=2.5) == 2.5
    assert moved(before, [value + 1.5 for value in before], mean=2.5) == pytest.approx(4.0, abs=1e-6)
    assert moved([0.0, 10.0], [10.0, 0.0]) == pytest.approx(10 * (0.958 - 0.042), abs=0.01)  # rows of other images


def test_auto_sigma_fits_the_nearest_images() -> None:
    distances = T([[1.0], [4.0], [9.0]]).double()
    assert torch.allclose(log_kernel(distances, "auto"), -distances / 2)  # 5 % of 3 images: the nearest, 1 away
    assert torch.isfinite(log_kernel(torch.zeros(3, 1).double(), "auto")).all()


rows = st.lists(st.floats(-50, 50, width=32), min_size=12, max_size=12).map(lambda values: T(values).reshape(4, 3))


@given(rows, rows)
def test_distances_by_one_product(one: torch.Tensor, other: torch.Tensor) -> None:  # invariant 13
    found = squared_distances(one.double(), other.double())
    assert (found >= 0).all()
    assert torch.allclose(found, torch.cdist(one.double(), other.double()) ** 2, rtol=1e-4, atol=1e-6)


@given(rows, st.sampled_from([0.0, 1e-5]))
def test_weights_are_shares(values: torch.Tensor, floor: float) -> None:
    weights = nearness(-values.double().square(), floor)
    assert torch.allclose(weights.sum(0), torch.ones(3).double()) and (weights >= 0).all()


@pytest.mark.parametrize(
    ("sizes", "decay", "expected"),
    [
        ([1] * 5, "session", [0.92, 0.94, 0.96, 0.98, 1.0]),
        ([2, 1], "none", [1.0, 1.0, 1.0]),
    ],
)
def test_decay_by_hand(sizes: list[int], decay: str, expected: list[float]) -> None:  # invariant 7
    assert session_factors(sizes, decay) == pytest.approx(expected)


def test_decay_depends_on_sizes_in_the_released_code_only() -> None:
    assert session_factors([100, 10], "session") == pytest.approx([0.95] * 100 + [1.0] * 10)
    released = session_factors([100, 10], "official")
    assert (released[0], released[99], released[-1]) == pytest.approx((0.95, 1.4, 1.45))


def test_lengths_change_no_prediction() -> None:  # invariant 8
    features, weight = torch.randn(5, 3, generator=Seeds("s").generator("f")), torch.eye(3)
    plain = SCORES({"features": features}, {"weight": weight})["scores"]
    scaled = SCORES({"features": 7 * features}, {"weight": 7 * weight})["scores"]
    assert torch.allclose(plain, scaled)


def stage_1(
    old_heads: str, weight_decay: float = 0.1, classes: int = 2, start: Tensors | None = None
) -> tuple[torch.Tensor, dict[str, Tensors]]:
    """Two old rows, and what the session makes of them and of `start`."""
    head = torch.randn(2, tiny_backbone().dim, generator=Seeds("s").generator("head"))
    stream = tiny_stream(2, classes)
    found = TUNE(
        stream.tasks[1].train,
        {"adapter": start, "head": {"weight": head}},
        backbone=tiny_backbone(),
        seeds=Seeds("s"),
        checkpoint=Checkpoint(None),
        classes=list(stream.tasks[1].classes),
        tuning=Tuning(
            bottleneck.Shape(4, scale=0.1, dropout=0.1),
            Optimisation(epochs=2, batch_size=4, lr=0.01, weight_decay=weight_decay),
        ),
        cosface_head=CosFaceHead(scale=20.0, margin=0.0, old_rows=old_heads),
    )
    return head, found


def test_one_class_moves_adapters_by_weight_decay_only() -> None:  # invariant 12
    start = {name: torch.ones_like(value) for name, value in bottleneck.init(
        tiny_backbone(), 4, Seeds("s").generator("init")).items()}  # fmt: skip
    still = stage_1("decay", weight_decay=0.0, classes=1, start=start)[1]
    assert all(same(still["adapter"][name], value) for name, value in start.items())
    shrunk = torch.cat([value.flatten() for value in stage_1("decay", classes=1, start=start)[1]["adapter"].values()])
    assert 0.9 < shrunk[0] < 1 and (shrunk == shrunk[0]).all()


def test_old_rows_keep_their_direction() -> None:  # invariants 8 and 9
    head, found = stage_1("decay")
    old = found["head"]["weight"][:2]
    assert not same(old, head) and torch.cosine_similarity(old, head).min() > 1 - 1e-6
    for kept in (stage_1("frozen"), stage_1("decay", weight_decay=0.0)):
        assert same(kept[1]["head"]["weight"][:2], head)


def test_the_classifier_leaves_the_adapter_alone(tmp_path: Path) -> None:  # invariant 9
    digests = {
        learn(Ssiat, tmp_path, tiny_stream(1), **{**SMALL, "align_epochs": epochs})[1][0]["t0/tuned"]["adapter"].digest
        for epochs in (0, 2)
    }
    assert len(digests) == 1


def test_the_order_in_which_images_come_changes_no_bit(tmp_path: Path) -> None:  # invariant 6
    stream = tiny_stream()

    def backwards(samples: Samples) -> Samples:
        ids = samples.ids[::-1]
        images = samples.images().permute(0, 2, 3, 1).numpy()[::-1].copy()
        return Samples.of(dict(zip(ids, samples.labels[::-1], strict=True)), ArrayPixels(ids, images))

    turned = Stream("tiny", tuple(replace(task, train=backwards(task.train)) for task in stream.tasks))
    one, other = (learn(Ssiat, tmp_path / place, s, **SMALL)[1][-1] for place, s in (("a", stream), ("b", turned)))
    assert [(name, part.digest) for name, part in one.parts] == [(name, part.digest) for name, part in other.parts]


def test_the_released_shift_is_between_other_crops_in_another_order() -> None:  # section 4, pairing bug
    plain, backbone = tiny_stream(1).tasks[0].train, tiny_backbone()
    fresh = bottleneck.init(backbone, 4, Seeds("s").generator("init"))

    def seen(samples: Samples, when: str) -> torch.Tensor:
        return LOADED(samples, fresh, backbone=backbone, seeds=Seeds(when), scale=0.1)["features"]

    rows = embed(backbone, plain)
    for one in (seen(plain, "before"), seen(plain, "after")):
        assert not torch.allclose(one, rows, atol=1e-3)
        assert torch.allclose(one.sort(0).values, rows.sort(0).values, atol=1e-4)  # the same images
    assert not torch.allclose(seen(plain, "before"), seen(plain, "after"), atol=1e-3)
    cropped = seen(replace(plain, augment=crop_flip((0.05, 1.0))), "before")
    assert not torch.allclose(cropped.sort(0).values, rows.sort(0).values, atol=1e-3)


def moved_by_forgetting(tmp_path: Path, stream: Stream, rest: Stream, **settings: Any) -> set[str]:
    """The durable components that differ once the stream is `rest`; warm equals cold."""
    before = run_tiny(tmp_path / "warm", "ssiat", stream, **{**SMALL, **settings}).figures["components"]
    warm, cold = (
        run_tiny(tmp_path / home, "ssiat", rest, **{**SMALL, **settings}).figures for home in ("warm", "cold")
    )
    assert warm["components"] == cold["components"]
    return {name for name, digest in before.items() if warm["components"].get(name) != digest}


def test_a_sample_taints_its_session_and_all_after(tmp_path: Path) -> None:  # invariant 14
    stream = tiny_stream(4)
    rest = stream.without(stream.tasks[2].train.ids[:1])
    changed = moved_by_forgetting(tmp_path, stream, rest)
    assert {"t0/tuned/adapter", "t0/means/mean", "t0/heads", "t2/spread", "t3/spread"} <= changed
    assert changed.isdisjoint({"t0/spread", "t1/spread", "t0/predictions/t0", "t1/predictions/t0"})


def test_other_classes_means_remember_a_deleted_class(tmp_path: Path) -> None:  # invariant 15
    stream = tiny_stream(3)
    gone = {
        s for s, label in zip(stream.tasks[2].train.ids, stream.tasks[2].train.labels, strict=True) if label == "t2/c0"
    }
    whole = learn(Ssiat, tmp_path, stream, **SMALL)[1][-1]["t0/means"]["mean"].open()["mean"]
    rest = learn(Ssiat, tmp_path, stream.without(gone), **SMALL)[1][-1]["t0/means"]["mean"].open()["mean"]
    assert len(whole) == 6 and len(rest) == 5
    assert not same(whole[:4], rest[:4])  # dropping the class's own row would have left these


@pytest.mark.parametrize("adapt", ["first", "none"])
def test_without_drift_a_sample_taints_its_own_statistics_and_the_head(tmp_path: Path, adapt: str) -> None:
    stream = tiny_stream(3)
    rest = stream.without(stream.tasks[1].train.ids[:1])
    changed = moved_by_forgetting(tmp_path, stream, rest, adapt=adapt, ca_init="fresh")
    durable = {name for name in changed if "predictions" not in name}
    assert durable == {"t0/means", "t1/spread", "t0/heads"}


def test_restarted_chains_do_not_reach_each_other(tmp_path: Path) -> None:
    stream = tiny_stream(4)
    rest = stream.without(stream.tasks[0].train.ids[:1])
    changed = {name for name in moved_by_forgetting(tmp_path, stream, rest, restart=2) if "predictions" not in name}
    assert changed and all(name.startswith(("t0", "t1")) for name in changed)


def test_the_order_of_sessions_is_part_of_the_result(tmp_path: Path) -> None:  # invariant 16
    stream = tiny_stream(2)
    turned = Stream("tiny", stream.tasks[::-1])
    first = learn(Ssiat, tmp_path, stream, **SMALL)[1][-1]["t0/tuned"]["adapter"]
    second = learn(Ssiat, tmp_path, turned, **SMALL)[1][-1]["t1/tuned"]["adapter"]
    assert first.digest != second.digest


def test_shift_figures(tmp_path: Path) -> None:
    printed = run_tiny(tmp_path, "ssiat", **SMALL).as_json()["shift"]
    assert set(printed) == {"kernel_share", "effective_samples", "median_distance", "gap"}
    assert all(values[0] is None and all(value > 0 for value in values[1:]) for values in printed.values())
    assert max(printed["effective_samples"][1:]) <= 16 + 1e-9 and max(printed["kernel_share"][1:]) <= 1
    assert "shift" not in run_tiny(tmp_path, "ssiat", **SMALL, shift="none").as_json()


def test_inference_is_one_pass_and_the_network_does_not_grow(tmp_path: Path) -> None:
    figures = run_tiny(tmp_path, "ssiat", **SMALL).figures
    assert figures["inference"]["passes"] == figures["inference"]["images"] == 24
    assert figures["adapters"] == [1, 1, 1]
    d, classes = tiny_backbone().dim, 2
    assert figures["parameters_added"][1:] == [classes * (2 * d + d * (d + 1) // 2)] * 2


def test_readings_differ_where_they_should(tmp_path: Path) -> None:
    def components(**change: Any) -> dict[str, str]:
        return dict(run_tiny(tmp_path, "ssiat", **{**SMALL, **change}).figures["components"])

    default = components()
    for change in (
        {"shift": "mean"},
        {"shift": "none"},
        {"sigma": "auto"},
        {"floor": 0.0},
        {"pairing": "official"},
        {"spread": "pooled"},
        {"decay": "none"},
        {"old_heads": "frozen"},
        {"ca_init": "fresh"},
        {"head": "lda"},
        {"adapt": "first"},
        {"restart": 1},
        {"margin": 0.3},
    ):
        assert components(**change) != default, change


def test_small_classes(tmp_path: Path) -> None:  # invariants 10 and 12
    lonely = run_tiny(tmp_path / "lonely", "ssiat", tiny_stream(3, train=1), **SMALL)
    assert any("has one image" in line for line in lonely.figures["warnings"])
    run_tiny(tmp_path / "single", "ssiat", tiny_stream(3, classes=1), **SMALL)


def test_a_class_that_comes_back_is_refused(tmp_path: Path) -> None:
    ssiat = Ssiat(Ssiat.Hyper(**QUICK), builder(tmp_path))
    task = tiny_stream().tasks[0]
    with pytest.raises(BadInput, match="t0/c0"):
        ssiat.learn(task, Model().after(task, {}, False))


def test_every_preset_is_valid() -> None:
    assert Ssiat.presets.keys() == Ssiat.preset_notes.keys()
    for name in Ssiat.presets:
        resolve(Ssiat.Hyper, Ssiat.presets, [name], {})
    assert resolve(Ssiat.Hyper, Ssiat.presets, [], {"sigma": "2.5"}).sigma == 2.5
    for value in ("wide", 0, -1):
        with pytest.raises(BadInput, match=r"^hyperparameter sigma = .*(number|than 0).*, or .*'auto'$"):
            resolve(Ssiat.Hyper, Ssiat.presets, [], {"sigma": value})
