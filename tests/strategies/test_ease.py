"""EASE against its specification's invariants (section 10) and figures worked out by hand."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cl.data.stream import Stream
from cl.errors import BadInput, UndeclaredRead
from cl.models.heads import cosine
from cl.testing import tiny_backbone, tiny_stream
from strategies.ease import Ease
from strategies.ease.method import Weighting, joined_cosines, mixing_weights, synthesise, weighted_cosines
from strategies.ease.variants import SHARDING
from tests.tiny import QUICK, builder, learn, run_tiny, same

T = torch.tensor
SYNTHESISE = synthesise  # a build is a plain function


def means(rows: int, dim: int = 5) -> st.SearchStrategy[torch.Tensor]:
    values = st.lists(st.floats(-3, 3, width=32), min_size=rows * dim, max_size=rows * dim)
    return values.map(lambda numbers: T(numbers).reshape(rows, dim))


def test_completion_by_hand() -> None:  # invariant 2
    own = {"mean": T([[1.0, 0.0]])}
    here = [{"mean": T([[1.0, 0.0]])}, {"mean": T([[0.0, 1.0]])}]
    there = [{"mean": T([[2.0, 0.0]])}, {"mean": T([[0.0, 4.0]])}]
    assert torch.allclose(mixing_weights(T([[1.0, 0.0]]), 1.0), T([[0.73106, 0.26894]]), atol=1e-5)
    assert torch.allclose(SYNTHESISE(own, here, there, tau=1.0)["mean"], T([[1.46212, 1.07577]]), atol=1e-5)
    assert torch.allclose(SYNTHESISE(own, here[:1], there[:1], tau=1.0)["mean"], T([[2.0, 0.0]]))  # invariant 3, `once`


@pytest.mark.parametrize(
    ("spaces", "reading", "expected"),
    [(2, "official", 1.05), (2, "paper", 1.05), (3, "official", 1.05), (3, "paper", 1.10)],
)
def test_logit_by_hand(spaces: int, reading: str, expected: float) -> None:  # invariant 4: own cosine 1, the others 0.5
    feature, near, half = T([[1.0, 0.0]]), T([[1.0, 0.0]]), T([[1.0, 3.0**0.5]])
    weights = [1.0] + [Weighting(0.1, 0.0, reading).elsewhere(spaces)] * (spaces - 1)
    score = weighted_cosines([feature] * spaces, [[near] + [half] * (spaces - 1)], [weights])
    assert score.item() == pytest.approx(expected, abs=1e-6)


def test_one_task_is_the_own_cosine_without_division() -> None:
    feature, mean = T([[3.0, 4.0]]), T([[1.0, 0.0]])
    assert Weighting(0.1, 0.0, "official").elsewhere(1) == 0.1
    assert weighted_cosines([feature], [[mean]], [[1.0]]).item() == pytest.approx(0.6)
    assert joined_cosines([feature], [[mean]]).item() == pytest.approx(0.6)


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(0, 2**20), st.floats(0, 1), st.floats(0, 1))
def test_scores_are_the_weighted_cosines_of_each_class(sizes: list[int], seed: int, alpha: float, hole: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    spaces = [torch.randn(3, 5, generator=draw) for _ in sizes]
    holes = torch.rand(len(sizes), len(sizes), generator=draw) < hole
    table = [
        [None if holes[i, j] and i != j else torch.randn(size, 5, generator=draw) for j in range(len(sizes))]
        for i, size in enumerate(sizes)
    ]
    weights = [[1.0 if i == j else alpha for j in range(len(sizes))] for i in range(len(sizes))]
    by_class = [
        sum(
            weights[i][j] * torch.cosine_similarity(spaces[j], mean[row][None])
            for j, mean in enumerate(table[i])
            if mean is not None
        )
        for i, size in enumerate(sizes)
        for row in range(size)
    ]
    found = weighted_cosines(spaces, table, weights)
    assert torch.allclose(found, torch.stack(by_class, dim=1), atol=1e-5)  # type: ignore[arg-type]


@given(means(2), means(4), means(4))
def test_weights_and_hull(own: torch.Tensor, here: torch.Tensor, there: torch.Tensor) -> None:  # invariants 5 and 6
    weights = mixing_weights(cosine(own, here), 1.0)
    assert torch.allclose(weights.sum(1), torch.ones(2))
    assert (weights > 0).all() and (weights.max() / weights.min()) <= torch.e**2 * 1.0001
    mixed = SYNTHESISE({"mean": own}, [{"mean": here}], [{"mean": there}], tau=1.0)["mean"]
    assert (mixed <= there.max(0).values + 1e-5).all() and (mixed >= there.min(0).values - 1e-5).all()


@given(means(2), means(3), means(3))
def test_duplicated_and_reordered_sources(
    own: torch.Tensor, here: torch.Tensor, there: torch.Tensor
) -> None:  # invariant 7
    def mixed(order: list[int]) -> torch.Tensor:
        return SYNTHESISE({"mean": own}, [{"mean": here[order]}], [{"mean": there[order]}], tau=1.0)["mean"]

    assert torch.allclose(mixed([0, 1, 2]), mixed([0, 1, 2, 0, 1, 2]), atol=1e-5)
    assert torch.allclose(mixed([0, 1, 2]), mixed([2, 0, 1]), atol=1e-5)


@given(means(1), means(3), means(3), st.floats(0.1, 8))
def test_scaling_a_source_and_linearity(own: torch.Tensor, here: torch.Tensor, there: torch.Tensor, by: float) -> None:
    plain = mixing_weights(cosine(own, here), 1.0)
    scaled = here.clone()
    scaled[0] *= by
    assert torch.allclose(plain, mixing_weights(cosine(own, scaled), 1.0), atol=1e-4)
    double = SYNTHESISE({"mean": own}, [{"mean": here}], [{"mean": 2 * there}], tau=1.0)["mean"]
    assert torch.allclose(double, 2 * SYNTHESISE({"mean": own}, [{"mean": here}], [{"mean": there}], tau=1.0)["mean"])


def test_a_zero_prototype_has_cosine_zero() -> None:  # invariant 10
    assert torch.equal(cosine(T([[1.0, 2.0]]), torch.zeros(1, 2)), torch.zeros(1, 1))


def test_an_adapter_depends_on_its_own_task_only(tmp_path: Path) -> None:  # invariants 11 and 13
    stream = tiny_stream()
    _, whole = learn(Ease, tmp_path / "whole", stream, **QUICK)
    _, alone = learn(Ease, tmp_path / "alone", stream.without(stream.tasks[0].train.ids), **QUICK)
    assert "t0/adapter" not in alone[-1]
    for task in ("t1", "t2"):
        assert alone[-1][f"{task}/adapter"].sole.digest == whole[-1][f"{task}/adapter"].sole.digest
    for early, late in pairwise(whole):
        assert all(late[name].key == handle.key for name, handle in early.entries.items())


def test_a_task_of_one_class_leaves_the_backbones_space(tmp_path: Path) -> None:  # invariant 9
    stream = tiny_stream(tasks=2, classes=1)
    ease, models = learn(Ease, tmp_path, stream, **QUICK)
    shard = stream.tasks[0].train
    adapted = ease.features(shard, models[0]["t0/adapter"], 0.1).open()["features"]
    assert same(adapted, ease.features(shard).open()["features"])


def test_true_prototypes_are_means_in_every_space_so_far(tmp_path: Path) -> None:
    stream = tiny_stream()
    ease, models = learn(Ease, tmp_path, stream, **QUICK)
    names = {name for name in models[-1].entries if "prototypes" in name}
    assert names == {f"t{task}/prototypes/t{space}" for task in range(3) for space in range(task + 1)}
    shard = stream.tasks[2].train
    features = ease.features(shard, models[-1]["t1/adapter"], 0.1).open()["features"]
    mine = [features[[label == name for label in shard.labels]].mean(0) for name in stream.tasks[2].classes]
    assert torch.allclose(models[-1]["t2/prototypes/t1"].open()["mean"], torch.stack(mine), atol=1e-6)


def scores(home: Path, **settings: object) -> torch.Tensor:
    stream = tiny_stream()
    ease, models = learn(Ease, home, stream, **QUICK, **settings)
    return ease.scores(models[-1], stream.tasks[0].test).open()["scores"]


def test_alpha_zero_is_the_diagonal(tmp_path: Path) -> None:  # invariant 14
    assert same(scores(tmp_path, alpha=0.0), scores(tmp_path, complete="diagonal"))
    assert not same(scores(tmp_path, alpha=0.5), scores(tmp_path, complete="diagonal"))


def test_readings_differ_where_they_should(tmp_path: Path) -> None:
    official = scores(tmp_path)
    for change in (
        {"reweight": "paper"},
        {"reweight": "none"},
        {"synthesis": "once"},
        {"complete": "ptm"},
        {"beta": 1.0},
        {"tau": 0.1},
        {"complete": "oracle", "exemplars": True},
    ):
        assert not same(official, scores(tmp_path, **change)), change


def test_after_one_task_all_readings_agree(tmp_path: Path) -> None:
    stream = tiny_stream(tasks=1)
    found = []
    for change in ({}, {"reweight": "paper"}, {"complete": "diagonal"}, {"synthesis": "once"}):
        ease, models = learn(Ease, tmp_path, stream, **QUICK, **change)
        found.append(ease.scores(models[-1], stream.tasks[0].test).open()["scores"])
    assert all(same(found[0], other) for other in found)


def test_the_oracle_needs_leave_to_read_old_images(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="exemplars=true"):
        run_tiny(tmp_path, "ease", complete="oracle")
    _, models = learn(Ease, tmp_path, tiny_stream(), **QUICK)
    with pytest.raises(UndeclaredRead, match="t0"):
        _ = models[-1].tasks[0].train


def test_the_omnibenchmark_preset_has_one_adapter(tmp_path: Path) -> None:  # quirk 6.1: APER, not EASE
    result = run_tiny(tmp_path, "ease", **{**Ease.presets["omni_official"], **QUICK})
    assert result.figures["adapters"] == [1, 1, 1]


def test_changing_alpha_trains_nothing_again(tmp_path: Path) -> None:
    run_tiny(tmp_path, "ease")
    again = run_tiny(tmp_path, "ease", alpha=0.7)
    assert again.figures["forward_passes"] == {"train": 0, "statistics": 0, "evaluate": 0}


def test_evaluation_passes_grow_with_the_square_of_the_tasks(
    tmp_path: Path,
) -> None:  # section 9: N T, not a sum of N t
    passes = {}
    for tasks in (2, 4):
        result = run_tiny(tmp_path / str(tasks), "ease", tiny_stream(tasks))
        passes[tasks] = result.figures["forward_passes"]["evaluate"]
    images = 2 * 4  # test images a task
    assert passes == {2: 2 * 2 * images, 4: 4 * 4 * images}


def test_growth_is_the_formula_of_the_paper(tmp_path: Path) -> None:  # section 11
    result = run_tiny(tmp_path, "ease")
    blocks, d, r, classes = 2, tiny_backbone().dim, QUICK["bottleneck"], 2
    adapter = blocks * (2 * d * r + r + d)
    assert result.figures["adapters"] == [1, 2, 3]
    assert result.figures["parameters_added"] == [adapter + d * classes * (task + 1) for task in range(3)]


def test_a_class_that_comes_back_is_refused(tmp_path: Path) -> None:
    ease = Ease(Ease.Hyper(**QUICK), builder(tmp_path))
    task = tiny_stream().tasks[0]
    from cl.learning.strategy import Model

    with pytest.raises(BadInput, match="t0/c0"):
        ease.learn(task, Model().after(task, {}, False))


def test_one_shard_is_retrained_where_a_sample_goes(tmp_path: Path) -> None:  # section 8, decoupled options
    stream = tiny_stream(tasks=2, train=8)
    gone = stream.tasks[0].train.ids[0]
    _, models = learn(Ease, tmp_path / "all", stream, **QUICK, shards=3)
    _, rest = learn(Ease, tmp_path / "rest", stream.without([gone]), **QUICK, shards=3)
    before, after = ({name: part.digest for name, part in one[-1].parts} for one in (models, rest))
    adapters = [name for name in before if "adapter" in name]
    assert len(adapters) == 2 * 3 and before.keys() == after.keys()
    assert [name for name in adapters if before[name] != after[name]] == [
        name for name in adapters if name == f"t0/adapter/{SHARDING.integer('shard', gone) % 3}"
    ]


def test_shards_join_into_one_space(tmp_path: Path) -> None:
    made, (_, model) = learn(Ease, tmp_path, tiny_stream(tasks=2, train=8), **QUICK, shards=2)
    dim = tiny_backbone().dim
    assert model["t1/prototypes/t0"].open()["mean"].shape == (2, 2 * dim)
    scores = made.scores(model, tiny_stream(tasks=2).tasks[0].test).open()["scores"]
    assert scores.shape[1] == 4 and scores.isfinite().all()


def test_a_shard_without_images_has_no_adapter(tmp_path: Path) -> None:
    _, (model,) = learn(Ease, tmp_path, tiny_stream(tasks=1, train=2), **QUICK, shards=50)
    assert 0 < sum("adapter" in name for name, _ in model.parts) <= 4


@pytest.mark.parametrize("synthesis", ["recalc", "once"])
@pytest.mark.parametrize("k", [1, 2])
def test_synthesised_prototypes_are_tainted_as_the_table_says(tmp_path: Path, k: int, synthesis: str) -> None:
    stream = tiny_stream(tasks=4)  # section 8, invariant 12: a sample of task k goes

    def built(stream: Stream) -> set[str]:
        made, models = learn(Ease, tmp_path, stream, **QUICK, synthesis=synthesis)
        made.scores(models[-1], stream.tasks[0].test)
        return {use.name for use in made._builder.uses if use.built and "synthesised" in use.name}

    assert len(built(stream)) == 6 and not built(stream)
    pairs = [(i, j) for j in range(4) for i in range(j)]
    tainted = [(i, j) for i, j in pairs if k in (i, j) or (synthesis == "recalc" and j < k)]
    assert built(stream.without([stream.tasks[k].train.ids[0]])) == {f"t{i}/synthesised/t{j}" for i, j in tainted}
