"""Retrieval: LDA as the textbook has it, a mixture whose components keep their shards, and who is left out of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.special import softmax
from scipy.stats import multivariate_normal
from torch import Tensor
from torch.nn import functional as F

from cl.home.store import Tensors
from cl.parts.statistics import embedding_sums, totals
from strategies.adapterswap.retrieval import isolated_mixture, lda, lda_mixture, own_covariances, route, scatters

SHARDS, ROWS, DIM = 5, 30, 8


def embeddings(shards: int = SHARDS) -> list[Tensor]:
    draws = torch.Generator().manual_seed(1)
    centres = torch.randn(shards, DIM, generator=draws)
    return [centre + 0.3 * torch.randn(ROWS, DIM, generator=draws) for centre in centres]


def mixture(shards: list[Tensor], kind: str = "view") -> Tensors:
    joined = totals([embedding_sums({"features": rows}) for rows in shards])
    if kind == "local":
        return isolated_mixture(joined, prior="uniform")
    return lda_mixture(joined, components=128, rho=0.01, prior="uniform")


def routed(rows: Tensor, fitted: Tensors, top: int = 3, allowed: list[int] | None = None, far: float = 0.0) -> Tensors:
    return route({"features": rows}, fitted, allowed=allowed, top=top, far=far)


def test_directions_span_the_space_of_textbook_lda_on_the_raw_data() -> None:
    shards = [F.normalize(rows.double(), dim=1) for rows in embeddings()]
    raw, means = torch.cat(shards), [rows.mean(0) for rows in shards]
    within = sum(((rows - mean).T @ (rows - mean) for rows, mean in zip(shards, means, strict=True)), torch.zeros(()))
    between = sum((ROWS * torch.outer(mean - raw.mean(0), mean - raw.mean(0)) for mean in means), torch.zeros(()))
    values, vectors = np.linalg.eig(np.linalg.solve(within.numpy(), between.numpy()))
    textbook = vectors[:, np.argsort(-values.real)[: SHARDS - 1]].real
    found = lda(*scatters(totals([embedding_sums({"features": rows}) for rows in embeddings()])), SHARDS - 1, 1e-9)
    assert subspace_angles(found.numpy(), textbook).max() < 1e-4


@pytest.mark.parametrize("kind", ["view", "local"])
def test_every_component_is_the_best_for_its_own_mean(kind: str) -> None:
    shards = embeddings()
    means = torch.stack([F.normalize(rows, dim=1).mean(0) for rows in shards])
    assert routed(means, mixture(shards, kind), top=1)["pick"][:, 0].tolist() == list(range(SHARDS))


@given(st.sets(st.integers(0, SHARDS - 1), min_size=1), st.sampled_from([0, 1, 2, 3]))
def test_what_is_not_allowed_is_never_picked_and_changes_no_bit(allowed: set[int], top: int) -> None:
    rows, fitted = torch.cat(embeddings()), mixture(embeddings())
    before = routed(rows, fitted, top, sorted(allowed))
    assert set(before["pick"].flatten().tolist()) <= set(range(len(allowed)))
    assert before["pick"].shape[1] == (min(top, len(allowed)) if top else len(allowed))
    forbidden = torch.tensor(sorted(set(range(SHARDS)) - allowed), dtype=torch.int64)
    for value in (torch.nan, 1e300, 0.0):
        other = {name: tensor.clone() for name, tensor in fitted.items()}
        for name in ("mean", "precision", "bias"):
            other[name][forbidden] = value
        after = routed(rows, other, top, sorted(allowed))
        assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("kind", ["view", "local"])
def test_a_shard_alone_gets_everything_and_a_rows_bits_do_not_depend_on_its_neighbours(kind: str) -> None:
    alone = routed(embeddings()[0], mixture(embeddings()[:1], kind))
    assert alone["pick"].tolist() == [[0]] * ROWS and torch.equal(alone["weight"], torch.ones(ROWS, 1))
    rows, fitted = torch.cat(embeddings()), mixture(embeddings(), kind)
    whole, part = routed(rows, fitted), routed(rows[70:73], fitted)
    assert all(torch.equal(whole[name][70:73], part[name]) for name in whole)


@pytest.mark.parametrize("kind", ["tied", "diag", "full"])
def test_likelihoods_are_those_of_gaussians_with_these_covariances(kind: str) -> None:
    shards, rows = [*embeddings(3), embeddings(4)[3][:1]], torch.cat(embeddings(3))
    parts = [embedding_sums({"features": one}) for one in shards]
    fitted = mixture(shards)
    if kind != "tied":
        fitted = own_covariances(fitted, dict(enumerate(parts)), covariance=kind)  # type: ignore[arg-type]
    base = mixture(shards)["projection"].numpy()
    size, z = base.shape[1], F.normalize(rows.double(), dim=1).numpy() @ base
    likelihood = np.stack([_log_density(F.normalize(one.double(), dim=1).numpy() @ base, z, kind) for one in shards], 1)
    found = routed(rows, fitted, 0)
    every = torch.zeros(found["weight"].shape).scatter(1, found["pick"], found["weight"])
    assert size == 3 and np.allclose(every, softmax(likelihood, 1), atol=1e-4)


def _log_density(own: np.ndarray, z: np.ndarray, kind: str) -> np.ndarray:
    """Of rows z under the component of the projected embeddings `own`; the tied covariance is the identity there."""
    size, centred = z.shape[1], own - own.mean(0)
    covariance = (centred.T @ centred + size * np.eye(size)) / (len(own) - 1 + size)
    covariance = {"tied": np.eye(size), "diag": np.diag(np.diag(covariance)), "full": covariance}[kind]
    return multivariate_normal(own.mean(0), covariance).logpdf(z)


def test_of_equal_components_the_first_is_picked() -> None:
    rows = embeddings()[0]
    fitted = mixture([rows, rows, embeddings()[1]])
    assert routed(rows, fitted, top=2)["pick"].tolist() == [[0, 1]] * ROWS


def test_isolated_components_do_not_depend_on_one_another() -> None:
    first, second = mixture(embeddings(), "local"), mixture([embeddings()[0], *embeddings(7)[5:]], "local")
    for name in ("mean", "precision", "bias"):
        assert torch.equal(first[name][0], second[name][0])


@pytest.mark.parametrize("edit", ["huge counts", "far means", "near-duplicates", "one more", "one less"])
def test_edits_of_forbidden_statistics_show_only_in_a_mixture_fitted_on_them(edit: str) -> None:
    """NI5 and NI6, and NI8: the published mixture over all shards must fail what isolated components pass."""
    permitted, forbidden = embeddings()[:3], embeddings()[3:]
    other = {
        "huge counts": [rows.repeat(200, 1) for rows in forbidden],
        "far means": [-5 * rows for rows in forbidden],
        "near-duplicates": [rows + 1e-3 for rows in permitted[:2]],
        "one more": [*forbidden, embeddings(6)[5]],
        "one less": forbidden[:1],
    }[edit]
    for kind, same in (("local", True), ("global", False)):
        fitted = [mixture([*permitted, *rest], kind) for rest in (forbidden, other)]
        before, after = (routed(torch.cat(permitted), one, 3, [0, 1, 2]) for one in fitted)
        assert all(torch.equal(before[name], after[name]) for name in ("pick", "weight")) == same, kind


def test_what_is_far_from_everything_is_told() -> None:
    shards = embeddings()
    rows = torch.cat([shards[0], -torch.cat(shards).mean(0, keepdim=True) * 9])
    far = routed(rows, mixture(shards), far=0.001)["far"]
    assert far[-1] and far[:-1].float().mean() < 0.2
