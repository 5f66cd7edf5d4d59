"""MOS's training-free self-refined retrieval: prototypes guess a task; then adapter and head correct each other.

A walk is kept tensor by tensor, one row an image: `cosines` to the prototypes under A_0, the `first` guess, the adapter
that is `next`, the `task` whose adapter spoke last, whether the image has `settled`, the head's `logits`, how many
`evaluations` of the head it took, and the adapters `visited` `(n, T)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cl import Tensors, builds, cosine
from cl.models.heads import linear


@builds("cache")
def first_guess(features: Tensors, prototypes: list[Tensors], *, tasks: list[int]) -> Tensors:
    """cosines `(n, classes)` to the prototypes under A_0, and where a walk from them begins: `next` `(n,)`.

    tasks: the task of each class column. visited: the adapters that each image has met, `(n, T)`.
    """
    cosines = cosine(features["features"], torch.cat([mean["mean"] for mean in prototypes]))  # (n, classes)
    start = torch.tensor(tasks)[cosines.argmax(1)]
    visited = torch.zeros(len(cosines), max(tasks) + 1, dtype=torch.bool)
    visited[:, 0] = True
    return {
        "cosines": cosines,
        "first": start,
        "next": start,
        "task": start,
        "settled": torch.zeros(len(cosines), dtype=torch.bool),
        "logits": torch.zeros_like(cosines),
        "evaluations": torch.zeros(len(cosines), dtype=torch.int64),
        "visited": visited,
    }


@builds("cache")
def refine(state: Tensors, spaces: dict[str, Tensors], head: Tensors, *, tasks: list[int]) -> Tensors:
    """One round: each image not settled yet goes through the head under its next adapter, and settles if the class
    that the head names is of that adapter's task.

    spaces: features of the shard under each adapter that an image needs next, by the adapter's place.
    """
    live, here = ~state["settled"], state["next"]
    logits = state["logits"].clone()
    for place, space in spaces.items():
        rows = live & (here == int(place))
        logits[rows] = linear(space["features"], head)[rows]
    named = torch.tensor(tasks)[logits.argmax(1)]  # (n,): the task of the class that the head names
    visited = state["visited"].clone()
    visited[torch.nonzero(live)[:, 0], here[live]] = True
    return {
        **state,
        "next": torch.where(live, named, here),
        "task": torch.where(live, here, state["task"]),
        "settled": ~live | (named == here),
        "logits": logits,
        "evaluations": state["evaluations"] + live,
        "visited": visited,
    }


@builds("cache")
def two_stage_scores(state: Tensors, *, sharpness: int, ensemble: bool) -> Tensors:
    """scores `(n, classes)`: softmax of the head plus softmax of `sharpness` x cosines; the head's logits alone
    without `ensemble`."""
    logits = state["logits"]
    if not ensemble:
        return {"scores": logits}
    return {"scores": torch.softmax(logits, 1) + torch.softmax(sharpness * state["cosines"], 1)}


@builds("evidence")
def retrieval_figures(walks: list[list[Tensors]]) -> Tensors:
    """How retrieval went; walks[t][i] is that of test task i after task t, i <= t. Matrices `(T, T)`, NaN elsewhere.

    before, after: share of images whose first and last adapter is their own task's. rounds: head evaluations an image.
    extra_passes: adapters beyond the first that an image met. needed: distinct (image, adapter) pairs over the whole
    run; made: passes that the (adapter, shard) blocks with such a pair take, each block once.
    """
    size = len(walks)
    names = ("before", "after", "rounds", "extra_passes")
    matrices = {name: torch.full((size, size), torch.nan, dtype=torch.float64) for name in names}
    for t, row in enumerate(walks):
        for i, walk in enumerate(row):
            matrices["before"][t, i] = (walk["first"] == i).double().mean()
            matrices["after"][t, i] = (walk["task"] == i).double().mean()
            matrices["rounds"][t, i] = walk["evaluations"].double().mean()
            matrices["extra_passes"][t, i] = walk["visited"].sum(1).double().mean() - 1
    visits = [_ever([row[i]["visited"] for row in walks[i:]]) for i in range(size)]
    needed = torch.tensor(sum(int(pairs.sum()) for pairs in visits))
    made = torch.tensor(sum(len(pairs) * int(pairs.any(0).sum()) for pairs in visits))
    return {**matrices, "needed": needed, "made": made}


def _ever(visited: Sequence[Tensor]) -> Tensor:
    """Pairs that any of these evaluations needed, `(n, adapters at the end)`."""
    pairs = torch.zeros_like(visited[-1])
    for one in visited:
        pairs[:, : one.shape[1]] |= one
    return pairs
