"""SimpleCIL, fine-tuning and joint training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.neighbors import NearestCentroid

from cl.models.backbone import embed
from cl.testing import tiny_backbone, tiny_stream
from strategies.joint import Joint
from strategies.simplecil import SimpleCIL
from tests.tiny import QUICK, learn, run_tiny, same


def test_simplecil_is_the_nearest_centroid_of_unit_features(tmp_path: Path) -> None:
    stream = tiny_stream()
    method, models = learn(SimpleCIL, tmp_path, stream)
    train = torch.cat([embed(tiny_backbone(), task.train) for task in stream.tasks])
    labels = [label for task in stream.tasks for label in task.train.labels]
    oracle = NearestCentroid().fit(train.numpy(), labels)
    centroids = torch.nn.functional.normalize(torch.tensor(oracle.centroids_).float())
    for task in stream.tasks:
        found = method.scores(models[-1], task.test).open()["scores"].argmax(1)
        cosines = torch.nn.functional.normalize(embed(tiny_backbone(), task.test)) @ centroids.T
        expected = [oracle.classes_[column] for column in cosines.argmax(1)]
        assert [models[-1].classes[column] for column in found] == expected


def test_simplecil_trains_nothing(tmp_path: Path) -> None:
    result = run_tiny(tmp_path, "simplecil")
    assert result.figures["forward_passes"]["train"] == 0
    assert result.figures["adapters"] == [0, 0, 0]


def test_finetuning_goes_on_from_the_last_network(tmp_path: Path) -> None:
    whole = run_tiny(tmp_path, "finetune")
    stream = tiny_stream()
    other = run_tiny(tmp_path, "finetune", stream.without(stream.tasks[0].train.ids))
    assert whole.figures["components"]["network/adapter"] != other.figures["components"]["network/adapter"]
    assert whole.figures["adapters"] == [1, 1, 1]


def test_joint_does_not_depend_on_the_order_of_the_tasks(tmp_path: Path) -> None:
    stream = tiny_stream(2)
    _, models = learn(Joint, tmp_path, stream, **QUICK)
    adapter = models[-1]["network"]["adapter"].open()
    fresh = run_tiny(tmp_path / "last", "joint", stream, when="last")
    assert fresh.figures["components"]["network/adapter"] == models[-1]["network"]["adapter"].digest
    assert adapter["down.weight"].shape == (2, 4, 32)


def test_joint_after_the_last_task_only(tmp_path: Path) -> None:
    figures = run_tiny(tmp_path, "joint", when="last").figures
    assert figures["accuracy"][:2] == [[None] * 3] * 2 and None not in figures["accuracy"][2]
    assert figures["curve"][:2] == [None, None]
    assert figures["average_incremental_accuracy"] is None and figures["forgetting"] is None


@pytest.mark.parametrize("strategy", ["finetune", "joint"])
def test_every_weight_may_be_tuned(tmp_path: Path, strategy: str) -> None:
    before = {name: value.clone() for name, value in tiny_backbone().parameters().items()}
    figures = run_tiny(tmp_path, strategy, tiny_stream(2), tune="full").figures
    assert figures["parameters_added"][0] > sum(value.numel() for value in before.values())
    assert all(same(before[name], value) for name, value in tiny_backbone().parameters().items())
