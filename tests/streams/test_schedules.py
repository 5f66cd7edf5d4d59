"""Schedules of drifting streams: the published ones as published, ours as the protocol says."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cl.errors import BadInput
from streams.corruptions import CODES, parsed
from streams.schedules import CCC_CODES, ORDERS, Visit, ccc_mini, gradual, mixed, orders10, rounds, standard


def pair_of(visit: Visit) -> tuple[str, str]:
    (first, _), (second, _) = parsed(visit.domain)
    return first.code, second.code


def test_the_standard_order() -> None:
    assert " ".join(CODES) == "GN SN IN DB GB MB ZB SW FR FG BR CO EL PX JP"
    assert [visit.segment for visit in standard()] == [f"r00/{code}/5" for code in CODES]
    assert [visit.domain for visit in standard(["SW", "GN"], 2.5)] == ["SW/2.5", "GN/2.5"]


def test_the_ten_orders_are_permutations_and_none_is_the_standard_one() -> None:
    assert len(set(ORDERS)) == 10 and all(sorted(order) == sorted(CODES) != list(order) for order in ORDERS)
    assert CODES not in ORDERS
    assert [visit.domain for visit in orders10(3)][:3] == ["SN/5", "FG/5", "GB/5"]
    assert [visit.domain for visit in orders10(9, ["GN", "CO", "BR"])] == ["CO/5", "GN/5", "BR/5"]
    for order in (-1, 10):
        with pytest.raises(BadInput, match="order must be 0 to 9"):
            orders10(order)
    with pytest.raises(BadInput, match="leave SP out"):
        orders10(0, ["GN", "SP"])


def test_gradual_falls_once_and_then_swells() -> None:
    """131 segments, not the 135 of a schedule in which the first domain swells too."""
    found = gradual()
    assert len(found) == 131
    assert [visit.segment for visit in found[:7]] == [*(f"r00/GN/{s}" for s in (5, 4, 3, 2, 1)), "r00/SN/1", "r00/SN/2"]
    assert [visit.segment for visit in found[9:14]] == ["r00/SN/5", "r01/SN/4", "r01/SN/3", "r01/SN/2", "r01/SN/1"]


def test_rounds_repeat_the_standard_order() -> None:
    found = rounds(10)
    assert len(found) == 150 and found[0].segment == "r00/GN/5" and found[-1].segment == "r09/JP/5"
    assert [visit.domain for visit in found] == [visit.domain for visit in standard()] * 10


def test_mixed_is_one_segment_of_all_conditions() -> None:
    assert mixed(["GN", "JP"]) == [Visit("mixed", 0, ("GN/5", "JP/5"))]


@pytest.mark.parametrize("seed", range(5))
def test_ccc_mini_fades_from_one_corruption_to_the_next_and_comes_back(seed: int) -> None:
    found = ccc_mini(seed)
    assert len(found) == 2 * 15 * 20
    assert [visit.domain for visit in found[:300]] == [visit.domain for visit in found[300:]]
    assert {visit.number for visit in found[:300]} == {0} and {visit.number for visit in found[300:]} == {1}
    pairs = [pair_of(visit) for visit in found[:300:20]]
    assert len(set(pairs)) == 15 and {code for pair in pairs for code in pair} <= set(CCC_CODES)
    assert all(before[1] == after[0] != after[1] for before, after in pairwise([*pairs, pairs[0]]))
    for start in range(0, 300, 20):
        severities = [tuple(severity for _, severity in parsed(visit.domain)) for visit in found[start : start + 20]]
        assert [second for _, second in severities] == [0.25 * step for step in range(1, 21)]
        assert {first + second for first, second in severities} == {5.25}


def test_another_seed_is_another_walk() -> None:
    assert len({tuple(map(pair_of, ccc_mini(seed)[:300:20])) for seed in range(6)}) > 4


def test_ccc_mini_with_what_has_no_walk() -> None:
    for codes in (["GN"], ["GN", "JP"], ["GN", "JP", "CO"]):
        with pytest.raises(BadInput, match="no closed walk of 15 pairs"):
            ccc_mini(0, codes=codes)
    assert len(ccc_mini(0, periods=1, codes=["GN", "JP"], pairs=2)) == 40


@given(st.lists(st.sampled_from(CODES), min_size=1, max_size=15, unique=True), st.integers(1, 4), st.integers(0, 9))
def test_segments_have_ids_of_their_own(codes: list[str], times: int, order: int) -> None:
    for found in (standard(codes), gradual(codes), rounds(times, codes), orders10(order, codes), mixed(codes)):
        assert max(Counter(visit.segment for visit in found).values()) == 1
