"""Class Gaussians: what is fitted is what is drawn, whatever a class looks like."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl.components.checkpoint import Checkpoint
from cl.data.samples import Samples
from cl.errors import NonFinite
from cl.home.store import Tensors
from cl.learning.train import Optimisation
from cl.parts.gaussians import Gaussians, align, class_spread, covariance
from cl.seeds import Seeds
from cl.testing import tiny_stream
from tests.tiny import same

T = torch.tensor
SEEDS = Seeds("gaussians")
FIT = class_spread  # a build is a plain function


def shard(*sizes: int) -> Samples:
    """A shard of len(sizes) classes of these sizes."""
    task = tiny_stream(tasks=1, classes=len(sizes), train=max(sizes)).tasks[0]
    rows = {name: task.train.labels.index(name) for name in task.classes}
    kept = {
        task.train.ids[rows[name] + row] for name, size in zip(task.classes, sizes, strict=True) for row in range(size)
    }
    return task.train.keep(kept)


def fitted(rows: torch.Tensor, *sizes: int, ridge: float = 1e-4, kind: str = "covariance") -> Tensors:
    samples = shard(*sizes)
    return FIT(samples, {"features": rows}, classes=list(samples.classes), ridge=ridge, kind=kind)  # type: ignore[arg-type]


def test_two_points_by_hand() -> None:
    spread = fitted(T([[0.0, 0.0], [2.0, 0.0]]), 2)
    assert torch.allclose(covariance(spread, 2)[0], torch.diag(T([2 + 1e-4, 1e-4])).double(), rtol=1e-6)
    variance = fitted(T([[0.0, 0.0], [2.0, 0.0]]), 2, kind="variance")
    assert torch.allclose(variance["deviation"].square(), T([[2 + 1e-4, 1e-4]]))


@pytest.mark.parametrize("kind", ["covariance", "variance", "pooled"])
def test_one_image_or_equal_images_give_the_ridge(kind: str) -> None:
    for rows in (torch.ones(1, 3), torch.ones(2, 3)):
        spread = fitted(rows, len(rows), ridge=1e-3, kind=kind)
        assert torch.allclose(covariance(spread, 3)[0], 1e-3 * torch.eye(3).double(), rtol=1e-5)
        drawn, _ = Gaussians(["a"], torch.ones(1, 3), [spread]).of_class(0, 1000, SEEDS)
        assert torch.isfinite(drawn).all() and (drawn - 1).norm(dim=1).max() < 5 * 1e-3**0.5 * 3**0.5


def test_pooled_within_classes() -> None:
    rows = T([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0], [5.0, 9.0]])
    both = covariance(fitted(rows, 2, 2, kind="pooled"), 2)
    expected = torch.diag(T([1.0, 4.0])).double() + 1e-4 * torch.eye(2).double()  # (2, 8) over n - classes = 2
    assert torch.allclose(both[0], expected, rtol=1e-5) and torch.allclose(both[1], expected, rtol=1e-5)


@settings(max_examples=15)
@given(st.integers(2, 5), st.integers(1, 12), st.integers(0, 2**32), st.floats(0.01, 100))
def test_mean_and_covariance_are_recovered(dim: int, count: int, seed: int, size: float) -> None:
    """100,000 draws: the mean within 5 of its standard errors, the covariance within 3 % of its norm."""
    generator = torch.Generator().manual_seed(seed)
    rows = size * torch.randn(count, dim, generator=generator) @ torch.randn(dim, dim, generator=generator)
    spread, mean = fitted(rows, count), rows.mean(0, keepdim=True)
    drawn, _ = Gaussians(["a"], mean, [spread]).of_class(0, 100_000, SEEDS, seed)
    wanted = covariance(spread, dim)[0]
    error = (drawn.double().mean(0) - mean[0].double()).abs()
    # float32 keeps 24 bits of the mean, whatever the spread
    assert (error <= 5 * (wanted.diag() / 100_000).sqrt() + 1e-6 * mean.abs().max()).all()
    assert (drawn.double().T.cov() - wanted).norm() <= 0.03 * wanted.norm() + 1e-6 * float(mean.square().max())


@given(st.integers(1, 4), st.integers(0, 2**32))
def test_a_singular_covariance_is_factored(count: int, seed: int) -> None:
    rows = 10 * torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))
    found = covariance(fitted(rows, count), 12)[0]
    wanted = rows.double().T.cov() if count > 1 else torch.zeros(12, 12).double()
    assert torch.allclose(found, wanted + 1e-4 * torch.eye(12).double(), atol=1e-6 * max(1.0, float(wanted.norm())))


def test_a_classs_draws_are_its_own() -> None:
    means = torch.arange(6.0).reshape(2, 3)
    spread = fitted(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), 3, 3)
    both = Gaussians(["a", "b"], means, [spread])
    alone = Gaussians(["b"], means[1:], [{"factor": spread["factor"][1:]}])
    for epoch in (0, 1):
        assert same(both.of_class(1, 8, SEEDS, epoch)[0], alone.of_class(0, 8, SEEDS, epoch)[0])
    assert not same(both.of_class(1, 8, SEEDS, 0)[0], both.of_class(1, 8, SEEDS, 1)[0])
    vectors, targets = both.draw(8, SEEDS, 0)
    mine, _ = alone.draw(8, SEEDS, 0)
    assert same(vectors[targets == 1], mine)  # the other class shuffles nothing here either
    assert sorted(targets.tolist()) == [0] * 8 + [1] * 8 and targets.tolist() != sorted(targets.tolist())


def logits(head: Tensors, vectors: torch.Tensor) -> torch.Tensor:
    return vectors @ head["weight"].T


def aligned(means: torch.Tensor, names: list[str]) -> tuple[torch.Tensor, Gaussians]:
    one = {"factor": fitted(torch.randn(9, 3, generator=torch.Generator().manual_seed(1)), 9)["factor"]}
    gaussians = Gaussians(names, means, [one] * len(names))
    start = {"weight": torch.zeros(len(names), 3)}
    how = Optimisation(epochs=20, batch_size=64, lr=0.02, weight_decay=0.0)
    return align(start, logits, gaussians, how, SEEDS, Checkpoint(None))["weight"], gaussians


def test_identical_classes_share_their_probability() -> None:
    head, gaussians = aligned(T([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), ["a", "b"])
    vectors, targets = gaussians.draw(4000, SEEDS, "test")
    probability = logits({"weight": head}, vectors).softmax(1)
    assert torch.isfinite(head).all() and (probability - 0.5).abs().mean() < 0.05
    assert (probability.argmax(1) == targets).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_distinct_classes_are_told_apart() -> None:
    head, gaussians = aligned(T([[6.0, 0.0, 0.0], [-6.0, 0.0, 0.0]]), ["a", "b"])
    vectors, targets = gaussians.draw(1000, SEEDS, "test")
    assert (logits({"weight": head}, vectors).argmax(1) == targets).float().mean() > 0.98


def test_a_feature_that_is_not_finite_is_named() -> None:
    rows = torch.ones(4, 2)
    rows[3, 1] = torch.nan
    with pytest.raises(NonFinite, match="t0/c1/1' of class 't0/c1'"):
        fitted(rows, 2, 2)
