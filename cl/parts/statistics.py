"""Sufficient statistics that can be taken away exactly: integer sums of embeddings, and a tree of partial totals.

Embeddings are normalised and rounded to a grid of 2^-20; sums of integers do not depend on order, batches or threads.
Totals over many shards are a tree whose shape follows from the hashes of the shards' ids alone, so that one shard more
or less touches one node a level.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.components.builder import builds
from cl.data.samples import Samples
from cl.home.store import Tensors

GRID = 2**20
ROWS = 8192  # a float64 product of so many rows of integers up to 2^20 is exact: every partial sum stays below 2^53
FAN = 16  # shards that one node of the tree holds before it is split by the next hexadecimal digit


@builds("statistics")
def embedding_sums(features: Tensors) -> Tensors:
    """Count `(1,)`, sum `(1, d)` and scatter `(d (d+1) / 2,)` of the normalised rows, int64 on the grid, the scatter's
    on the grid squared; the scatter is the upper triangle of sum e e^T."""
    rows = on_grid(features["features"])
    return {"count": torch.tensor([len(rows)]), "sum": rows.sum(0, keepdim=True), "scatter": _upper(gram(rows))}


def on_grid(features: Tensor) -> Tensor:
    """Normalised rows, rounded to the grid: int64 `(n, d)`."""
    return torch.round(GRID * F.normalize(features.double(), dim=-1)).long()


def gram(rows: Tensor) -> Tensor:
    """rows^T rows, int64 `(d, d)`, exact: in float64 products of at most ROWS rows."""
    blocks = (block.double() for block in rows.split(ROWS))
    return sum((block.T @ block).long() for block in blocks) + torch.zeros(rows.shape[1], rows.shape[1]).long()


def _upper(square: Tensor) -> Tensor:
    row, column = torch.triu_indices(*square.shape)
    return square[row, column].contiguous()


def square(upper: Tensor, dim: int) -> Tensor:
    """The symmetric `(d, d)` matrix of an upper triangle."""
    row, column = torch.triu_indices(dim, dim)
    found = upper.new_zeros(dim, dim)
    found[row, column] = upper
    found[column, row] = upper
    return found


@builds("statistics")
def totals(parts: list[Tensors]) -> Tensors:
    """Counts `(K,)` and sums `(K, d)` of all shards below, in the order of the parts, and the sum of their scatters."""
    scatter = parts[0]["scatter"].clone()
    for part in parts[1:]:
        scatter += part["scatter"]
    return {
        "count": torch.cat([part["count"] for part in parts]),
        "sum": torch.cat([part["sum"] for part in parts]),
        "scatter": scatter,
    }


@builds("prototype")
def class_sums(samples: Samples, features: Tensors, *, classes: list[str]) -> Tensors:
    """Count `(classes,)` and sum `(classes, d)` of each class's normalised features, int64 on the grid."""
    targets, rows = samples.targets(classes), on_grid(features["features"])
    sums = torch.zeros(len(classes), rows.shape[1], dtype=torch.int64).index_add_(0, targets, rows)
    return {"count": torch.bincount(targets, minlength=len(classes)), "sum": sums}


@dataclass(frozen=True)
class Node:
    """One partial total: over the shards `shards`, or over the nodes below it with the prefixes `below`."""

    prefix: str
    shards: tuple[str, ...] = ()
    below: tuple[str, ...] = ()


def tree(shards: Iterable[str]) -> list[Node]:
    """The nodes over these shards, those below before those above; the last one, of prefix "", is over all."""
    return _nodes("", in_order(shards))


def touched(shards: Iterable[str]) -> set[str]:
    """The prefixes of all nodes that hold, or would hold, any of these shards."""
    return {place[:length] for place in map(_place, shards) for length in range(len(place))}


def in_order(shards: Iterable[str]) -> list[str]:
    """The order in which the tree holds them: that of the hashes of their ids."""
    return sorted(shards, key=_place)


def _nodes(prefix: str, shards: list[str]) -> list[Node]:
    if len(shards) <= FAN:
        return [Node(prefix, shards=tuple(shards))]
    groups: dict[str, list[str]] = {}
    for shard in shards:
        groups.setdefault(_place(shard)[: len(prefix) + 1], []).append(shard)
    nodes = [node for longer, group in groups.items() for node in _nodes(longer, group)]
    return [*nodes, Node(prefix, below=tuple(groups))]


def _place(shard: str) -> str:
    return hashlib.sha256(shard.encode("utf-8", "surrogatepass")).hexdigest()
