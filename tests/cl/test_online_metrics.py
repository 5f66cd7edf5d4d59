"""Figures of a run at test time, against values worked out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cl.data.veil import order
from cl.online_metrics import (
    brier_score,
    by_domain,
    calibration,
    error,
    expected_calibration_error,
    mean,
    negative_log_likelihood,
    recurrence,
    stability,
)
from cl.running.predictions import online_predictions
from cl.testing import tiny_segment


def test_stability_is_told_batch_by_batch_against_the_reference() -> None:
    reference = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    found = stability([0.25, 0.75, 0.5, 0.75, 0.75, 0.75], reference, [4] * 6)
    assert found == {"above": 4 / 6, "longest": 3, "collapse": 4}
    assert stability([0.75, 0.0], [0.5, 0.5], [4, 4]) == {"above": 0.5, "longest": 1, "collapse": None}
    assert stability([0.75, 0.75], [0.5, 0.5], [4, 4])["collapse"] == 1
    assert stability([], [], []) == {"above": None, "longest": 0, "collapse": None}


def test_a_collapse_is_seen_within_the_window_not_over_all_batches() -> None:
    mine, theirs = [0.0] * 9 + [1.0] * 3, [0.5] * 12
    assert stability(mine, theirs, [2] * 12)["collapse"] is None
    assert stability(mine, theirs, [2] * 12, window=6)["collapse"] == 11, "two of the last three batches"
    assert stability(mine, theirs, [2] * 12, window=5)["collapse"] == 11, "5 images are within three batches of two"


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30), st.integers(1, 40))
def test_a_method_is_never_above_itself_and_a_collapse_ends_above(pairs: list[tuple[int, int]], window: int) -> None:
    mine, theirs = ([one[side] / 4 for one in pairs] for side in (0, 1))
    images = [4] * len(pairs)
    assert stability(mine, mine, images, window) == {"above": 0, "longest": 0, "collapse": None}
    both = (stability(mine, theirs, images, window), stability(theirs, mine, images, window))
    assert not all(found["collapse"] for found in both)
    assert sum(found["above"] for found in both) <= 1  # type: ignore[misc]


def judged(confidence: list[float], right: list[bool]) -> dict[str, torch.Tensor]:
    c = torch.tensor(confidence, dtype=torch.float64)
    predicted = torch.zeros(len(right), dtype=torch.int64)
    target = torch.tensor([0 if one else 1 for one in right])
    return {"confidence": c, "predicted": predicted, "target": target, "log_p": c.log(), "brier": (1 - c) ** 2}


def test_recurrence_is_the_error_at_each_later_visit_less_that_at_the_first() -> None:
    errors = [0.5, 0.3, 0.4, 0.2, 0.7]
    assert recurrence(errors, ["a", "b", "a", "b", "a"]) == pytest.approx([-0.1, 0.2])
    assert recurrence(errors[:2], ["a", "b"]) == []
    assert by_domain(errors, ["a", "b", "a", "b", "a"]) == pytest.approx({"a": 1.6 / 3, "b": 0.25})


def test_what_was_not_measured_is_left_out_of_means() -> None:
    assert mean([0.2, None, 0.4]) == pytest.approx(0.3) and mean([]) is None and mean([None]) is None
    assert error({}) is None and calibration({}) == dict.fromkeys(("error", "brier", "nll", "ece"))


def test_calibration_error_is_the_gap_in_each_bin() -> None:
    found = judged([0.95, 0.95, 0.6, 0.6], [True, False, True, True])
    assert expected_calibration_error(found) == pytest.approx((2 * abs(0.5 - 0.95) + 2 * abs(1 - 0.6)) / 4)
    assert expected_calibration_error(judged([1.0, 1.0], [True, True])) == 0


def test_scores_in_the_order_of_keys_meet_labels_in_the_order_of_ids() -> None:
    samples = tiny_segment("s", "noise", 2, 5).samples
    classes = ["t0/c0", "t0/c1"]
    logits = torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    found = online_predictions(samples, {"scores": logits[order(samples)]}, classes=classes)
    p, y = logits.double().softmax(1), samples.targets(classes)
    truth = torch.nn.functional.one_hot(y, 2)
    assert torch.equal(found["predicted"], logits.argmax(1))
    assert brier_score(found) == pytest.approx(((p - truth) ** 2).sum(1).mean().item())
    assert negative_log_likelihood(found) == pytest.approx(-p.log()[torch.arange(10), y].mean().item())
    unknown = online_predictions(samples, {"scores": logits[order(samples)]}, classes=["t0/c0", "other"])
    assert (unknown["target"] == -1).any() and error(unknown) >= (unknown["target"] == -1).double().mean()  # type: ignore[operator]
    lost = unknown["target"] < 0
    assert torch.allclose(unknown["brier"][lost], (p**2).sum(1)[lost] + 1)
