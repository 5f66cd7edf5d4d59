"""SLDA against scikit-learn's discriminant analysis, and what a deletion costs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from cl.data.samples import ArrayPixels, Samples
from cl.testing import tiny_stream
from strategies.slda import moments, shrunk_discriminant
from tests.tiny import run_tiny

NAMES = ["a", "b", "c", "d"]


def shard(rows: list[int]) -> Samples:
    """Samples whose class is their row's remainder; their images do not matter here."""
    ids = [f"{row:03d}" for row in rows]
    labels = {sample: NAMES[row % 4] for sample, row in zip(ids, rows, strict=True)}
    return Samples.of(labels, ArrayPixels(ids, np.zeros((len(ids), 1, 1), np.uint8)))


@pytest.fixture
def features() -> torch.Tensor:
    draws = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    return draws @ torch.tensor(np.diag([3.0, 1, 1, 0.5, 2])).float() + torch.arange(200)[:, None] % 4


def fitted(features: torch.Tensor, parts: list[list[int]], classes: list[list[str]], shrinkage: float) -> dict:
    tasks = [
        moments(shard(rows), {"features": features[rows]}, classes=names)
        for rows, names in zip(parts, classes, strict=True)
    ]
    columns = [[NAMES.index(name) for name in names] for names in classes]
    return shrunk_discriminant(tasks, columns=columns, shrinkage=shrinkage)


def test_it_is_linear_discriminant_analysis_with_equal_priors(features: torch.Tensor) -> None:
    targets = np.arange(200) % 4
    oracle = LinearDiscriminantAnalysis(solver="lsqr").fit(features.double().numpy(), targets)
    parts = [[r for r in range(200) if r % 4 < 2], [r for r in range(200) if r % 4 >= 2]]
    head = fitted(features, parts, [NAMES[:2], NAMES[2:]], shrinkage=1e-9)
    np.testing.assert_allclose(head["weight"], oracle.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(head["bias"], oracle.intercept_ - np.log(oracle.priors_), rtol=1e-4, atol=1e-4)


def test_classes_that_come_back_are_pooled(features: torch.Tensor) -> None:
    whole = fitted(features, [list(range(200))], [NAMES], shrinkage=0.1)
    halves = fitted(features, [list(range(100)), list(range(100, 200))], [NAMES, NAMES], shrinkage=0.1)
    for name in whole:
        torch.testing.assert_close(whole[name], halves[name])


def test_a_deletion_builds_one_tasks_sums_again_and_what_reads_them(tmp_path: Path) -> None:
    stream = tiny_stream(tasks=3)
    run_tiny(tmp_path, "slda", stream)
    after = run_tiny(tmp_path, "slda", stream.without({stream.tasks[0].train.ids[0]}))
    # features and sums of the task, then for each model after it: discriminant, and scores and predictions of each test
    assert after.figures["components_built"] == 2 + 3 + 2 * (1 + 2 + 3)
