"""MOS's means and pulls of parameters."""

from __future__ import annotations

import pytest
import torch

from strategies.mos.merging import adapter_distances, mean_parameters, pull
from tests.tiny import same

T = torch.tensor
MEAN, DISTANCES = mean_parameters, adapter_distances  # builds are plain functions


@pytest.mark.parametrize(("times", "expected"), [(1, 3.8), (12, 2.56486), (13, 2.50837)])
def test_pull_by_hand(times: int, expected: float) -> None:  # MOS, invariant 1: A_0 = 1, A_1 = 3, hence the mean is 2
    towards, live = MEAN([{"a": T([1.0])}, {"a": T([3.0])}]), {"a": T([4.0])}
    pull(live, towards, 0.1, times)
    assert live["a"].item() == pytest.approx(expected, abs=1e-5)


def test_no_pull_changes_no_bit() -> None:
    start = torch.randn(50, generator=torch.Generator().manual_seed(0))
    for towards, momentum, times in (({}, 0.1, 1), ({"a": torch.zeros(50)}, 0.0, 1), ({"a": torch.zeros(50)}, 0.1, 0)):
        live = {"a": start.clone()}
        pull(live, towards, momentum, times)
        assert same(live["a"], start)


def test_many_pulls_are_one_after_the_other() -> None:
    towards, once, twice = {"a": T([1.0, -2.0])}, {"a": T([4.0, 4.0])}, {"a": T([4.0, 4.0])}
    pull(once, towards, 0.1, 5)
    for _ in range(5):
        pull(twice, towards, 0.1)
    assert torch.allclose(once["a"], twice["a"])


def test_equal_adapters_have_themselves_as_mean() -> None:  # MOS, invariant 3
    one = {"a": torch.randn(40, generator=torch.Generator().manual_seed(0))}
    assert torch.allclose(MEAN([one, one, one])["a"], one["a"], atol=1e-7)


def test_merging_parameters_is_not_merging_functions() -> None:
    def function(adapter: dict[str, torch.Tensor]) -> torch.Tensor:
        return adapter["up"] * torch.relu(adapter["down"])

    first, second = {"up": T(1.0), "down": T(1.0)}, {"up": T(-1.0), "down": T(-1.0)}
    assert function(MEAN([first, second])) == 0 and (function(first) + function(second)) / 2 == 0.5


def test_distances_are_per_block() -> None:
    first = {"down.weight": torch.ones(2, 3), "up.weight": torch.ones(2, 1)}
    second = {"down.weight": T([[1.0, 1.0, 1.0], [1.0, 1.0, 4.0]]), "up.weight": T([[1.0], [5.0]])}
    found = DISTANCES([first, second])
    assert found["absolute"].tolist() == [[0.0, 0.0], [0.0, 5.0]]
    assert found["relative"].tolist() == [[0.0, 0.0], [0.0, 4.0]]
