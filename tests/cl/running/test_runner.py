"""Runs: the figures, what is built again, and equal bytes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import cl
from cl import metrics
from cl.data.stream import Stream
from cl.errors import BadInput, NonFinite, UnknownName
from cl.home.results import PRINTED, Results
from cl.testing import tiny_backbone, tiny_stream
from tests.tiny import run_tiny

STRATEGIES = ["ease", "simplecil", "finetune", "joint", "mos", "ssiat", "sema"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_cold_runs_are_equal_and_a_warm_one_builds_nothing(tmp_path: Path, strategy: str) -> None:
    first = run_tiny(tmp_path / "a", strategy).figures
    second = run_tiny(tmp_path / "b", strategy).figures
    again = run_tiny(tmp_path / "a", strategy).figures
    assert first["manifest"] == second["manifest"] == again["manifest"]
    assert first["components"] == second["components"]
    assert first["components_built"] > 0 and again["components_built"] == 0
    assert again["components_reused"] == first["components_built"] + first["components_reused"]
    assert sum(again["forward_passes"].values()) == 0
    assert again["cost"] == first["cost"]


def test_seeds_differ_but_share_what_draws_nothing(tmp_path: Path) -> None:
    first = run_tiny(tmp_path, "ease", seed=0).figures
    second = run_tiny(tmp_path, "ease", seed=1).figures
    assert first["run"] != second["run"]
    assert first["components"]["t0/adapter"] != second["components"]["t0/adapter"]
    assert run_tiny(tmp_path, "simplecil", seed=0).figures["components_built"] > 0
    assert run_tiny(tmp_path, "simplecil", seed=1).figures["components_built"] == 0


def test_the_printed_object(tmp_path: Path) -> None:
    result = run_tiny(tmp_path, "ease")
    printed = result.as_json()
    assert tuple(printed) == PRINTED  # EASE has no blocks of figures of its own
    assert result.figures["inference"]["passes"] == 3 * result.figures["inference"]["images"]
    assert [len(row) for row in printed["accuracy"]] == [3, 3, 3]
    assert printed["accuracy"][0][1:] == [None, None]
    for t, row in enumerate(printed["accuracy"]):  # equal test shards: the curve is the mean of the row
        assert printed["curve"][t] == pytest.approx(sum(row[: t + 1]) / (t + 1))
    assert printed["average_accuracy"] == metrics.average_accuracy(printed["accuracy"])
    assert printed["classes_per_task"] == [2, 2, 2]
    assert printed["peak_memory_bytes"] > 1 << 20


def test_the_manifest_covers_durable_parts_and_predictions(tmp_path: Path) -> None:
    names = run_tiny(tmp_path, "ease").figures["components"]
    assert "t0/adapter" in names and "t2/predictions/t0" in names
    assert not any("features" in name or "scores" in name or "synthesised" in name for name in names)


def test_loss_is_told_apart_by_task(tmp_path: Path) -> None:
    figures = run_tiny(tmp_path, "ease").figures
    plain, known, task = (figures[name] for name in ("accuracy", "known_task_accuracy", "task_correct"))
    assert plain[0][0] == known[0][0] and task[0][0] == 1 and task[0][1] is None  # one task: nothing to confuse
    for row in range(3):
        for i in range(row + 1):  # who is right, is right within the task, and in the right task
            assert plain[row][i] <= min(known[row][i], task[row][i])
            assert plain[row][i] >= known[row][i] + task[row][i] - 1 - 1e-9


def test_pandas_views(tmp_path: Path) -> None:
    result = run_tiny(tmp_path, "ease")
    assert result.accuracy.loc["t2", "t0"] == result.figures["accuracy"][2][0]
    assert math.isnan(result.accuracy.loc["t0", "t2"])
    assert list(result.curve.index) == ["t0", "t1", "t2"]
    assert result.growth["adapters"].tolist() == [1, 2, 3]


def test_results_are_found_by_the_beginning_of_their_id(tmp_path: Path) -> None:
    run = run_tiny(tmp_path, "simplecil").id
    run_tiny(tmp_path, "ease")
    results = Results(tmp_path)
    assert results.find(run[:6]).id == run
    assert len(results.table()) == 2
    with pytest.raises(BadInput, match="ambiguous"):
        results.find("")
    with pytest.raises(BadInput, match="no run 'zzz'"):
        results.find("zzz")


def test_global_generators_are_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    run_tiny(tmp_path, "ease")
    assert torch.equal(before, torch.get_rng_state())


def test_a_loss_that_explodes_is_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    good = run_tiny(tmp_path, "ease").figures["manifest"]
    with pytest.raises(NonFinite, match="lower the learning rate"):
        run_tiny(tmp_path, "finetune", lr=1e30)
    assert run_tiny(tmp_path, "ease").figures["manifest"] == good


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "did you mean epochs"),
        ({"epochs": 0}, "epochs"),
        ({"lr": "fast"}, "lr"),
        ({"dropout": 1.0}, "dropout"),
        ({"lr": float("nan")}, "lr"),
        ({"reweight": "offical"}, "reweight"),
    ],
)
def test_wrong_hyperparameters(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        cl.run(tiny_stream(), "ease", backbone=tiny_backbone(), settings=settings, home=tmp_path)


def test_wrong_names(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean ease"):
        cl.run(tiny_stream(), "eese", backbone=tiny_backbone(), home=tmp_path)
    with pytest.raises(UnknownName, match="split-digits"):
        cl.run("split-digit", "ease", backbone=tiny_backbone(), home=tmp_path)
    with pytest.raises(UnknownName, match="preset"):
        cl.run(tiny_stream(), "ease", backbone=tiny_backbone(), presets=["quik"], home=tmp_path)


def test_a_shorter_stream_shares_its_tasks_with_a_longer_one(tmp_path: Path) -> None:
    short = run_tiny(tmp_path, "ease", tiny_stream(2)).figures
    long = run_tiny(tmp_path, "ease", tiny_stream(3)).figures
    assert long["components"]["t1/adapter"] == short["components"]["t1/adapter"]
    assert long["forward_passes"]["train"] == short["forward_passes"]["train"] // 2


def test_removing_samples_equals_never_having_had_them(tmp_path: Path) -> None:
    stream = tiny_stream()
    run_tiny(tmp_path / "warm", "ease", stream)
    filtered: Stream = stream.without({"t1/c0/0", "t0/c1/8"})
    warm, cold = run_tiny(tmp_path / "warm", "ease", filtered), run_tiny(tmp_path / "cold", "ease", filtered)
    assert warm.figures["components"] == cold.figures["components"]
    assert 0 < warm.figures["components_built"] < cold.figures["components_built"]
