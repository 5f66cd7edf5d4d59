"""Which adapters a query should use: a Gaussian mixture, one component an adapter, from exactly removable statistics.

With n_k, s_k, S_k count, sum and scatter of the embeddings of shard k, mu_k = s_k / n_k, N = sum n_k, g = sum s_k / N:

    S_W = sum_k (S_k - n_k mu_k mu_k^T) / (N - K)        S_B = sum_k n_k (mu_k - g)(mu_k - g)^T / N
    S_B v = lambda (S_W + rho tr(S_W)/d I) v             the m = min(K - 1, components) largest form V
    l_k(x) = log pi_k - 0.5 (z - m_k)^T C^-1 (z - m_k)   z = V^T e(x), m_k = V^T mu_k, C = V^T S_W V + rho I
    p_u(k | x) = softmax of l_k over what user u may use, and over nothing else

The tied C may give way to one C_k a component, its own scatter T_k = V^T (S_k - n_k mu_k mu_k^T) V with m observations
of C added, so that a component with a single embedding keeps C:

    C_k = (T_k + m C) / (n_k - 1 + m)                    l_k has -0.5 log|C_k| too; diag: the diagonal of C_k, C = I
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from scipy.special import chdtri
from torch import Tensor
from torch.nn import functional as F

from cl import Tensors, builds
from cl.models.backbone import BATCH
from cl.parts.statistics import GRID, square

Prior = Literal["uniform", "counts"]
Covariance = Literal["tied", "diag", "full"]


@builds("statistics")
def lda_mixture(totals: Tensors, *, components: int, rho: float, prior: Prior) -> Tensors:
    """The mixture after LDA, its tied covariance folded into the projection, so that it is the identity afterwards.

    projection `(d, m)`, mean `(K, m)`, precision `(K,)`, bias `(K,)`, float64: l_k = bias - precision |z - mean|^2 / 2.
    """
    counts = totals["count"].double()
    means = totals["sum"].double().div_(GRID).div_(counts[:, None])  # (K, d)
    within, between = scatters(totals)
    directions = lda(within, between, min(len(counts) - 1, components), rho)
    tied = directions.T @ within @ directions + rho * torch.eye(directions.shape[1], dtype=torch.float64)
    projection = torch.linalg.solve_triangular(torch.linalg.cholesky(tied), directions.T, upper=False).T
    return {
        "projection": projection.contiguous(),
        "mean": means @ projection,
        "precision": torch.ones_like(counts),
        "bias": _log_prior(counts, prior),
    }


@builds("statistics")
def isolated_mixture(totals: Tensors, *, prior: Prior) -> Tensors:
    """The mixture in which every component depends on its own shard alone: mean, and one variance for all directions.

    Nothing is projected: the public whitening is the identity. The variance has one pseudo-observation of 1/d.
    """
    counts = totals["count"].double()
    sums = totals["sum"].double() / GRID
    dim = sums.shape[1]
    spread = (counts - sums.square().sum(1) / counts).clamp(min=0)  # sum |e - mu|^2, since |e| = 1
    variance = (spread + 1) / (counts * dim)
    return {
        "projection": torch.eye(dim, dtype=torch.float64),
        "mean": sums / counts[:, None],
        "precision": 1 / variance,
        "bias": _log_prior(counts, prior) - 0.5 * dim * variance.log(),
    }


@builds("statistics")
def own_covariances(tied: Tensors, statistics: Mapping[str, Tensors], *, covariance: Covariance) -> Tensors:
    """The mixture `tied` of `lda_mixture` with a covariance for each component, in place of the identity that it has
    after projection. precision is `(K, m)` for `diag`, `(K, m, m)` for `full`.

    statistics: of each shard, in the order of the components.
    """
    projection = tied["projection"]
    precisions, bias = [], tied["bias"].clone()
    for number, one in enumerate(statistics.values()):
        count, mean, dim = one["count"].double(), one["sum"][0].double() / GRID, len(projection)
        own = square(one["scatter"], dim).double() / GRID**2 - torch.outer(mean, mean) / count
        own = projection.T @ own @ projection
        size = len(own)
        own = (own + size * torch.eye(size, dtype=torch.float64)) / (count - 1 + size)
        own = own if covariance == "full" else own.diagonal().diag()
        bias[number] -= 0.5 * own.logdet()
        precisions.append(own.inverse() if covariance == "full" else 1 / own.diagonal())
    return {**tied, "precision": torch.stack(precisions), "bias": bias}


def scatters(totals: Tensors) -> tuple[Tensor, Tensor]:
    """S_W and S_B, float64 `(d, d)`."""
    counts, sums = totals["count"].double(), totals["sum"].double().div_(GRID)
    total, shards = counts.sum(), len(counts)
    outer = (sums / counts[:, None]).T @ sums  # sum_k n_k mu_k mu_k^T
    every = square(totals["scatter"], sums.shape[1]).double() / GRID**2
    centre = sums.sum(0) / total
    within = (every - outer) / max(1.0, float(total) - shards)
    between = outer / total - torch.outer(centre, centre)
    return (within + within.T) / 2, (between + between.T) / 2


def lda(within: Tensor, between: Tensor, components: int, rho: float) -> Tensor:
    """The leading generalised eigenvectors `(d, components)`; the entry of largest magnitude of each is positive."""
    dim = len(within)
    if components == 0:
        return within.new_zeros(dim, 0)
    ridge = rho * float(within.trace()) / dim or 1.0
    root = torch.linalg.cholesky(within + ridge * torch.eye(dim, dtype=torch.float64))
    half = torch.linalg.solve_triangular(root, between, upper=False)
    reduced = torch.linalg.solve_triangular(root, half.T, upper=False)  # root^-1 S_B root^-T
    vectors = torch.linalg.eigh((reduced + reduced.T) / 2).eigenvectors[:, -components:].flip(1)
    directions: Tensor = torch.linalg.solve_triangular(root.T, vectors, upper=True)
    largest = directions.gather(0, directions.abs().argmax(0, keepdim=True))
    return directions * torch.where(largest < 0, -1.0, 1.0)


def _log_prior(counts: Tensor, prior: Prior) -> Tensor:
    """log pi up to a constant, which drops out of every softmax."""
    return (counts / counts.sum()).log() if prior == "counts" else torch.zeros_like(counts)


@builds("cache")
def route(features: Tensors, mixture: Tensors, *, allowed: list[int] | None, top: int, far: float) -> Tensors:
    """For each row the `top` best components among `allowed` (None: all; top 0: all), best first, ties to the lower.

    pick int64 `(n, t)`, places in `allowed`; weight `(n, t)` float32, the posterior over the picks; far bool `(n,)`: no
    allowed component has the row within all but the share `far` of its mass. What is not allowed is dropped before
    anything is computed.
    """
    keep = slice(None) if allowed is None else torch.tensor(allowed, dtype=torch.int64)
    mean, precision, bias = (mixture[name][keep] for name in ("mean", "precision", "bias"))
    limit = float(chdtri(mean.shape[1], far)) if far > 0 and mean.shape[1] else float("inf")
    found = [_route(rows, mixture["projection"], mean, precision, bias, top, limit) for rows in _blocks(features)]
    pick, weight, distant = (torch.cat(column)[: len(features["features"])] for column in zip(*found, strict=True))
    return {"pick": pick, "weight": weight.float(), "far": distant}


def _blocks(features: Tensors) -> list[Tensor]:
    """The embeddings in blocks of one shape, so that a row's bits do not depend on its neighbours."""
    rows = F.normalize(features["features"].double(), dim=-1)
    return [F.pad(block, (0, 0, 0, BATCH - len(block))) for block in rows.split(BATCH)]


def _route(
    rows: Tensor, projection: Tensor, mean: Tensor, precision: Tensor, bias: Tensor, top: int, limit: float
) -> tuple[Tensor, Tensor, Tensor]:
    z = rows @ projection  # (BATCH, m)
    distance = _distance(z, mean, precision)  # (BATCH, K)
    likelihood = bias - 0.5 * distance
    pick = _best(likelihood, min(top, len(mean)) if top else len(mean))
    return pick, torch.softmax(likelihood.gather(1, pick), 1), distance.amin(1) > limit


def _distance(z: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """Squared distance of rows `(n, m)` from means `(K, m)` under precisions `(K,)`, `(K, m)` or `(K, m, m)`."""
    if precision.ndim == 1:
        return precision * (z.square().sum(1, keepdim=True) - 2 * z @ mean.T + mean.square().sum(1))
    if precision.ndim == 2:
        return z.square() @ precision.T - 2 * z @ (precision * mean).T + (precision * mean.square()).sum(1)
    turned = torch.bmm(precision, mean[:, :, None])[:, :, 0]  # (K, m)
    pairs = (z[:, :, None] * z[:, None, :]).flatten(1)  # (n, m m)
    return pairs @ precision.flatten(1).T - 2 * z @ turned.T + (turned * mean).sum(1)


def _best(likelihood: Tensor, count: int) -> Tensor:
    """Columns of the `count` largest entries of each row, in order; of equal ones the first."""
    if count == likelihood.shape[1]:
        return likelihood.argsort(dim=1, descending=True, stable=True)
    left, picks = likelihood.clone(), []
    for _ in range(count):  # argmax takes the first of equal columns, which topk does not promise
        picks.append(left.argmax(1, keepdim=True))
        left.scatter_(1, picks[-1], -torch.inf)
    return torch.cat(picks, 1)
