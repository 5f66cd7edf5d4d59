"""The expansion signal: a block grows where the data look new to every descriptor that it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cl import Samples, Tensors, builds
from cl.errors import NonFinite
from strategies.sema import descriptors
from strategies.sema.descriptors import Activation
from strategies.sema.passes import as_matrix

SCAN_BATCH = 128

Described = list[list[Tensors]]  # of one block: a pair of descriptor and statistics for each adapter that has them


@dataclass(frozen=True)
class Scan:
    """When data are new; values are those of the settings of these names. activation: inside the descriptors."""

    threshold: float | Literal["inf"]
    z: Literal["abs", "signed"]
    sigma_floor: Literal["none", "small"]
    min_scan_batch: int
    non_finite: Literal["ignore", "raise"]
    activation: Activation


@builds(grow="decision", visited="checkpoint", zscores="evidence")
def scan(
    samples: Samples,
    pooled: list[Tensors],
    known: list[Described],
    order: Tensors | None,
    before: Tensors | None,
    *,
    blocks: list[int],
    rule: Scan,
) -> dict[str, Tensors]:
    """Which of `blocks` grows next, if any: the first, batch by batch, with min over RDs k of mean_i z_ik > tau.

    pooled: m of the task in each block. known: of each block. order: rows in batches of 128; None for all in one.
    before: what this pass had visited when an addition broke it off. grow: one flag a block, at most one set. zscores:
    of each block, the batch with the highest minimum.
    """
    tau = float(rule.threshold)
    scores = [_z_scores(samples.ids, m["m"].double(), one, rule) for m, one in zip(pooled, known, strict=True)]
    batches = order["rows"].split(SCAN_BATCH) if order is not None else [torch.arange(len(samples))]
    visited = int(before["visited"]) if before is not None else 0
    grow = torch.zeros(len(blocks), dtype=torch.bool)
    best = [torch.full((one.shape[1],), -torch.inf) for one in scores]  # (K,) of each block
    while visited < len(batches) and not grow.any():
        batch, visited = batches[visited], visited + 1
        first = strongest(scores, batch, best, tau) if len(batch) >= rule.min_scan_batch else None
        if first is not None:
            grow[first] = True
    signal = torch.stack([one.min() for one in best])
    evidence = {
        "blocks": torch.tensor(blocks),
        "zbar": as_matrix(best),
        "signal": signal,
        "threshold": torch.tensor(tau),
    }
    return {"grow": {"grow": grow}, "visited": {"visited": torch.tensor(visited)}, "zscores": evidence}


def _z_scores(ids: Sequence[str], m: Tensor, described: Described, rule: Scan) -> Tensor:
    """z `(n, K)` of each image to each of a block's K descriptors."""
    columns = []
    for descriptor, statistics in described:
        errors = descriptors.errors(descriptor, m, rule.activation)  # (n,)
        bad = torch.nonzero(~torch.isfinite(errors))
        if rule.non_finite == "raise" and len(bad):
            raise NonFinite(f"the image '{ids[int(bad[0])]}' gives features that are not finite; remove it")
        signed, floor = rule.z == "signed", rule.sigma_floor == "small"
        columns.append(descriptors.z_scores(errors, statistics, signed, floor))
    return torch.stack(columns, 1)


def strongest(scores: list[Tensor], batch: Tensor, best: list[Tensor], tau: float) -> int | None:
    """The first block whose z-scores `(n, K)`, mean over the batch, are all above tau (0: always); updates `best`."""
    for place, one in enumerate(scores):
        means = one[batch].mean(0)  # (K,)
        if not means.min() <= best[place].min():
            best[place] = means
        if means.min() > tau or tau == 0:
            return place
    return None
