"""Randomness from names: independent of neighbours, order and global generators."""

from __future__ import annotations

import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from cl.seeds import Seeds

IDS = st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=30, unique=True)


@given(IDS, st.data())
def test_removing_a_sample_moves_no_other(ids: list[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(ids))
    rest = [sample for sample in ids if sample != gone]
    seeds = Seeds("run|component")
    before = [ids[row] for row in seeds.order(ids, "order", 3)]
    after = [rest[row] for row in seeds.order(rest, "order", 3)]
    assert [sample for sample in before if sample != gone] == after
    draws = dict(zip(ids, seeds.uniform(ids, (4,), "dropout", 3), strict=True))
    for sample, row in zip(rest, seeds.uniform(rest, (4,), "dropout", 3), strict=True):
        assert torch.equal(draws[sample], row)


@given(st.text(), st.text(), st.text(), st.text())
def test_names_do_not_run_into_each_other(a: str, b: str, c: str, d: str) -> None:
    seeds = Seeds("root")
    assert ((a, b) == (c, d)) == (seeds.integer(a, b) == seeds.integer(c, d))


def test_epochs_and_purposes_differ() -> None:
    ids, seeds = [f"{row}" for row in range(50)], Seeds("root")
    orders = [seeds.order(ids, "order", 0), seeds.order(ids, "order", 1), seeds.order(ids, "other", 0)]
    assert len({tuple(order) for order in orders}) == 3


def test_forked_seeds_the_global_generators_and_puts_them_back() -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    with Seeds("root").forked("peft"):
        first = draws()
    with Seeds("root").forked("peft"):
        assert draws() == first
    assert random.getstate() == state[0]
    assert np.random.get_state()[1].tolist() == state[1]
    assert torch.equal(torch.get_rng_state(), state[2])
