"""Figures of a model that picks parts for each query: how often it picks the right one, and what a wrong pick costs.

The home of a test image is the part that was trained on data like it; home[t][i] holds its number among the parts after
task t, or -1 where there is none, for the images of the i-th test set. Cells [t][i] exist once task i was learnt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cl import Samples, Tensors, builds

RANKS = 3  # hit rates are recorded for the best one, two and three parts


@builds("cache")
def at_home(samples: Samples, *, home: list[int]) -> Tensors:
    """The routing of an oracle: every image to its home alone, which follows from what `samples` are labelled with."""
    pick = torch.tensor(home, dtype=torch.int64).clamp(min=0)[:, None]
    return {"pick": pick, "weight": torch.ones(pick.shape), "far": torch.zeros(len(pick), dtype=torch.bool)}


@builds("evidence")
def hit_rates(routings: list[list[Tensors]], *, home: list[list[list[int]]], parts: list[list[str]]) -> Tensors:
    """Share of images whose home is among the best 1, 2, 3 parts after each task: `all` `(T, 3)`, and by part the same
    over the images at home there, NaN before it was learnt. library `(T,)`: how many parts there were.

    parts: names by number after each task.
    """
    found = {name: torch.full((len(routings), RANKS), torch.nan) for name in ("all", *parts[-1])}
    for t, row in enumerate(routings):
        hits = torch.cat([_hits(routing["pick"], own) for routing, own in zip(row, home[t], strict=True)])
        places = torch.tensor([place for own in home[t] for place in own])
        found["all"][t] = hits[places >= 0].float().mean(0)
        for number, name in enumerate(parts[t]):
            found[name][t] = hits[places == number].float().mean(0)
    return {**found, "library": torch.tensor([len(names) for names in parts])}


def _hits(pick: Tensor, home: Sequence[int]) -> Tensor:
    """Whether the home is among the first 1, 2, 3 picks, `(n, 3)`."""
    places = torch.tensor(home, dtype=torch.int64)[:, None]
    return torch.stack([(pick[:, :count] == places).any(1) for count in range(1, RANKS + 1)], dim=1)


@builds("evidence")
def routing_losses(
    tests: list[Samples],
    oracle: list[Tensors],
    ways: dict[str, list[list[Tensors]]],
    routings: list[list[Tensors]],
    *,
    home: list[list[list[int]]],
    classes: list[list[str]],
    own: list[list[str]],
) -> Tensors:
    """Accuracy `(T, tests)` with each way of routing, and forgetting of the retrieved one, split `(tests,)`.

    The oracle's and the retrieved accuracy differ, after each task, by what is lost where the home was not picked
    (routing_loss) and by what is lost although it was (mixing_loss). The oracle's does not change, so forgetting, best
    minus last, is the growth of the two: forgetting = forgetting_routing + forgetting_mixing. Images without a home are
    left out. ways: scores `retrieved`, `uniform` and `backbone`, its features alone; empty where a way is closed. own:
    classes of the oracle's scores.
    """
    retrieved = ways["retrieved"]
    shape = len(retrieved), len(tests)
    names = ("oracle", "retrieved", "uniform", "backbone", "routing_loss", "mixing_loss")
    found = {name: torch.full(shape, torch.nan, dtype=torch.float64) for name in names}
    for t, row in enumerate(retrieved):
        for i in range(len(row)):
            homely = torch.tensor(home[t][i]) >= 0
            best = _right(tests[i], oracle[i], own[i])[homely]
            found["oracle"][t, i] = best.mean()
            for name, cells in ways.items():
                if cells:
                    found[name][t, i] = _right(tests[i], cells[t][i], classes[t])[homely].mean()
            lost = best - _right(tests[i], row[i], classes[t])[homely]
            hit = (routings[t][i]["pick"] == torch.tensor(home[t][i])[:, None]).any(1)[homely]
            found["routing_loss"][t, i] = (lost * ~hit).mean()
            found["mixing_loss"][t, i] = (lost * hit).mean()
    return {**found, **_forgetting(found)}


def _right(samples: Samples, scores: Tensors, classes: Sequence[str]) -> Tensor:
    return (scores["scores"].argmax(1) == samples.targets(classes)).double()


def _forgetting(found: Tensors) -> Tensors:
    """Best minus last retrieved accuracy of each test set, and how much each loss has grown in between."""
    accuracy = found["retrieved"]
    best = accuracy.nan_to_num(-1.0).argmax(0)
    sets = torch.arange(accuracy.shape[1])
    return {
        "forgetting": accuracy[best, sets] - accuracy[-1],
        "forgetting_routing": found["routing_loss"][-1] - found["routing_loss"][best, sets],
        "forgetting_mixing": found["mixing_loss"][-1] - found["mixing_loss"][best, sets],
    }
