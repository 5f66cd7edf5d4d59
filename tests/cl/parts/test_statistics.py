"""Sufficient statistics: exact, order-free, removable, and totals of which one shard touches a few nodes."""

from __future__ import annotations

from random import Random

import torch
from hypothesis import given
from hypothesis import strategies as st

from cl.parts.statistics import FAN, embedding_sums, gram, in_order, on_grid, square, totals, touched, tree


def features(rows: int, dim: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


def test_products_are_exact_over_several_blocks_in_any_order_and_with_any_number_of_threads() -> None:
    rows = on_grid(features(20_000, 3))
    columns = rows.T.tolist()
    exact = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in columns] for x in columns]
    threads = torch.get_num_threads()
    for count in (1, 2):
        torch.set_num_threads(count)
        assert gram(rows.flip(0)).tolist() == exact
    torch.set_num_threads(threads)


@given(st.integers(1, 30), st.integers(0, 30), st.randoms())
def test_adding_and_taking_away_rows_is_the_identity(kept: int, gone: int, random: Random) -> None:
    rows = features(kept + gone)
    order = list(range(kept + gone))
    random.shuffle(order)
    whole = embedding_sums({"features": rows[order]})
    part, rest = embedding_sums({"features": rows[kept:]}), embedding_sums({"features": rows[:kept]})
    assert all(torch.equal(whole[name] - part[name], rest[name]) for name in rest)


def test_triangles_become_squares_again() -> None:
    rows = on_grid(features(9))
    found = embedding_sums({"features": features(9)})
    assert torch.equal(square(found["scatter"], 6), gram(rows))


names = st.sets(st.integers(0, 5000).map(lambda number: f"shard {number}"), min_size=1, max_size=300)


@given(names)
def test_the_tree_holds_every_shard_once_and_follows_from_the_set_alone(shards: set[str]) -> None:
    nodes = tree(shards)
    assert nodes == tree(sorted(shards)) and nodes[-1].prefix == ""
    held = [shard for node in nodes for shard in node.shards]
    assert sorted(held) == sorted(shards) and all(len(node.shards) <= FAN for node in nodes)
    below = [prefix for node in nodes for prefix in node.below]
    assert sorted(below) == sorted(node.prefix for node in nodes if node.prefix)


@given(names, st.integers(0, 5000))
def test_one_shard_more_leaves_all_nodes_that_do_not_hold_it(shards: set[str], number: int) -> None:
    new = f"another {number}"
    before = {node.prefix: node for node in tree(shards)}
    for node in tree(shards | {new}):
        if node.prefix not in touched([new]) and node.prefix in before:
            assert before[node.prefix] == node


def test_one_of_ten_thousand_shards_touches_a_handful_of_nodes() -> None:
    shards = {f"shard {number}" for number in range(10_000)}
    nodes = tree(shards)
    assert sum(node.prefix in touched(["shard 77"]) for node in nodes) <= 5
    assert max(len(node.below) for node in nodes) <= 16


def test_totals_are_those_of_all_rows_in_the_order_of_the_tree() -> None:
    shards = {f"shard {number}": embedding_sums({"features": features(4, seed=number)}) for number in range(40)}
    made: dict[str, dict[str, torch.Tensor]] = {}
    for node in tree(shards):
        made[node.prefix] = totals([*(shards[name] for name in node.shards), *(made[prefix] for prefix in node.below)])
    every = embedding_sums({"features": torch.cat([features(4, seed=number) for number in range(40)])})
    assert torch.equal(made[""]["scatter"], every["scatter"])
    assert torch.equal(made[""]["sum"], torch.cat([shards[name]["sum"] for name in in_order(shards)]))
