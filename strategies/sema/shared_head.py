"""One linear head shared by all tasks, of which a task trains the rows of its own classes only.

A task's head holds weight `(classes, d)` and bias `(classes)` of its classes. Where the optimiser of the released code
keeps every row, weight decay shrinks the others meanwhile; a task's `shrink` is the factor that it puts on them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from cl import Backbone, Optimisation, Samples, Seeds, Tensors, builds
from cl.models.heads import linear, uniform_rows

Places = list[list[int]]  # of each class: head among those given (-1 for none), row in it, first shrink since then


def newest_rows(tasks: Sequence[Sequence[str]], classes: Sequence[str]) -> tuple[list[int], Places]:
    """The tasks that last trained one of `classes`, and where in their heads each class lies.

    tasks: the classes of each task so far.
    """
    newest = {name: number for number, names in enumerate(tasks) for name in names}
    used = sorted({newest[name] for name in classes if name in newest})
    places = []
    for name in classes:
        number = newest.get(name, -1)
        known = number >= 0
        places.append([used.index(number) if known else -1, tasks[number].index(name) if known else 0, number + 1])
    return used, places


@builds("checkpoint")
def start_rows(
    samples: Samples,
    heads: list[Tensors],
    shrinks: list[Tensors],
    *,
    backbone: Backbone,
    seeds: Seeds,
    classes: list[str],
    places: Places,
) -> Tensors:
    """Where a task's rows start: the class's newest row, or one drawn by its name (within 1/sqrt(d), bias 0).

    samples: the task's images, of which the values do not depend; but what names a task's classes goes when they go.
    """
    fresh = {"weight": uniform_rows(classes, backbone.dim, seeds), "bias": torch.zeros(len(classes))}
    sources = [[-1, row, since] if head < 0 else [head, old, since] for row, (head, old, since) in enumerate(places)]
    return gathered([*heads, fresh], shrinks, sources)


def gathered(heads: list[Tensors], shrinks: list[Tensors], places: Places) -> Tensors:
    """The rows at `places`, each times all shrinks since it was trained."""
    return {
        name: torch.stack([heads[head][name][row] * factor(shrinks, since) for head, row, since in places])
        for name in ("weight", "bias")
    }


@builds("cache")
def head_scores(features: Tensors, heads: list[Tensors], shrinks: list[Tensors], *, places: Places) -> Tensors:
    """Logits `(n, classes)` of the shared head."""
    # Head by head: a product of another shape rounds otherwise, and a new task must not move the old logits.
    every = [linear(features["features"], head) for head in heads]
    return {"scores": torch.stack([every[head][:, row] * factor(shrinks, since) for head, row, since in places], dim=1)}


def factor(shrinks: list[Tensors], since: int) -> float:
    """The product of all shrinks from number `since` on."""
    return math.prod(one["factor"].item() for one in shrinks[since:])


@builds("statistics")
def shrink(samples: Samples, *, phases: int, how: Optimisation) -> Tensors:
    """The factor that weight decay puts on a row without gradient, in `phases` trainings on this shard."""
    steps, value = math.ceil(len(samples) / how.batch_size), 1.0
    for _ in range(phases):
        velocity = 0.0
        for epoch in range(how.epochs):
            rate = how.lr * 0.5 * (1 + math.cos(math.pi * epoch / how.epochs))
            for _ in range(steps):
                velocity = how.momentum * velocity + how.weight_decay * value
                value -= rate * velocity
    return {"factor": torch.tensor(value, dtype=torch.float64)}
