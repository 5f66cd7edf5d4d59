"""How a model grows: adapters by block, parameters by role, what was decided and why, and what is reused.

Where parts lie follows from their names: one whose manifest name has a segment `block-N` lies in block N (counted from
0). An adapter part without one lies in every block of the backbone, its parameters in equal shares; any other part
(heads, prototypes) lies in none. A method that decides on growth keeps its grounds in its entries, as parts of role
evidence by these names:

    zscores   blocks (b), zbar (b, K), signal (b), threshold ()     what the decision of the same component rests on
    routing   blocks (b), weights (b, K)                            mean weight of each adapter of a block on the task

An entry's name begins with the id of its task. K runs over what a block held by then, oldest first, padded with NaN; a
signal of minus infinity tells that the block was not looked at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cl import metrics
from cl.components.handles import Handle
from cl.learning.strategy import Model

_BLOCK = re.compile(r"(?:^|/)block-(\d+)(?:/|$)")


@dataclass(frozen=True)
class Size:
    """A model's size: adapters, their parameters and all parameters by block; all parameters by role."""

    adapters: tuple[int, ...]
    adapter_parameters: tuple[float, ...]
    parameters: tuple[float, ...]
    roles: Mapping[str, int]


def size(model: Model, blocks: int) -> Size:
    """The size of `model` on a backbone of `blocks` blocks."""
    adapters, adapter_parameters, parameters = [0] * blocks, [0.0] * blocks, [0.0] * blocks
    roles: dict[str, int] = {}
    for name, part in model.parts:
        roles[part.role] = roles.get(part.role, 0) + part.numel
        lies = [block for block in range(blocks) if _lies_in(name, part.role, block)]
        for block in lies:
            parameters[block] += part.numel / len(lies)
            if part.role == "adapter":
                adapters[block] += 1
                adapter_parameters[block] += part.numel / len(lies)
    return Size(tuple(adapters), tuple(adapter_parameters), tuple(parameters), roles)


def growth_figures(
    model: Model, sizes: Sequence[Size], domains: Sequence[str | None], accuracy: float | None
) -> dict[str, Any]:
    """The growth figures of a run as plain JSON; lists have one entry a task, lists within them one a block.

    model: the last one. sizes: after each task. accuracy: of the last model. Empty for a stream without tasks.
    """
    if not sizes:
        return {}
    totals = [sum(one.roles.values()) for one in sizes]
    added = _changes([sum(one.adapters) for one in sizes])
    roles = sorted({role for one in sizes for role in one.roles})
    adapters_by_layer = _changes_by_layer([one.adapters for one in sizes])
    growing = sum(any(row[layer] > 0 for row in adapters_by_layer[1:]) for layer in range(len(sizes[0].adapters)))
    return {
        "adapters": [list(one.adapters) for one in sizes],
        "adapters_added": added,
        "adapters_added_by_layer": adapters_by_layer,
        "adapter_parameters": [[round(value) for value in one.adapter_parameters] for one in sizes],
        "parameters": totals,
        "parameters_added": {role: _changes([one.roles.get(role, 0) for one in sizes]) for role in roles},
        "parameters_added_by_layer": _changes_by_layer([one.parameters for one in sizes]),
        "expansions": [place + 1 for place, count in enumerate(added) if place and count > 0],
        "expansion_rate": metrics.expansion_rate(added),
        "reuse_rate": metrics.reuse_rate(added, [sum(one.adapters) for one in sizes]),
        "fill": metrics.fill(added, growing),
        "half_ratio": metrics.half_ratio(added),
        "growth_exponent": _interval(metrics.growth_exponent(_changes(totals))),
        "expansion_exponent": _interval(metrics.expansion_exponent(added)),
        "accuracy_per_million_parameters": metrics.accuracy_per_million_parameters(accuracy, totals[-1]),
        "truth": _truth(metrics.expansion_truth(added, domains)),
        "decisions": list(_decisions(model)),
        "routing": list(_routing(model)),
    }


def _changes(totals: Sequence[int]) -> list[int]:
    return [after - before for before, after in zip([0, *totals], totals, strict=False)]


def _changes_by_layer(totals: Sequence[Sequence[float]]) -> list[list[int]]:
    """What each task added in each layer."""
    columns = [_changes([round(value) for value in column]) for column in zip(*totals, strict=True)]
    return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in totals]


def _interval(exponent: metrics.GrowthExponent | None) -> dict[str, float] | None:
    return None if exponent is None else exponent._asdict()


def _truth(truth: metrics.ExpansionTruth | None) -> dict[str, Any] | None:
    return None if truth is None else truth._asdict()


def _decisions(model: Model) -> Iterator[dict[str, Any]]:
    """Task, block, zbar of each descriptor, signal, threshold and what was decided, in the order of learning."""
    for task, handle in _with_evidence(model, "zscores"):
        found: dict[str, Any] = {name: value.tolist() for name, value in handle.open("zscores").items()}
        (decision,) = [part for part in handle.parts.values() if part.role == "decision"]
        grow = next(iter(decision.open().values())).tolist()
        for place, block in enumerate(found["blocks"]):
            if found["signal"][place] == -math.inf:  # the scan did not come to this block
                continue
            yield {
                "task": task,
                "block": block,
                "z": [_number(value) for value in found["zbar"][place]],
                "signal": _number(found["signal"][place]),
                "threshold": _number(found["threshold"]),
                "expand": grow[place],
            }


def _routing(model: Model) -> Iterator[dict[str, Any]]:
    """Task, block, and the mean router weight of each adapter there, by the task that made it."""
    for task, handle in _with_evidence(model, "routing"):
        found = handle.open("routing")
        for block, weights in zip(found["blocks"].tolist(), found["weights"].tolist(), strict=True):
            known = [weight for weight in weights if not math.isnan(weight)]
            yield {"task": task, "block": block, "weights": dict(zip(_owners(model, block), known, strict=False))}


def _with_evidence(model: Model, part: str) -> Iterator[tuple[str, Handle]]:
    for task in model.tasks:
        for name, handle in model.entries.items():
            if name.startswith(f"{task.id}/") and part in handle.parts:
                yield task.id, handle


def _owners(model: Model, block: int) -> list[str]:
    """The tasks that have an adapter in `block`, oldest first."""
    adapters = [name for name, part in model.parts if part.role == "adapter" and _lies_in(name, "adapter", block)]
    return [task.id for task in model.tasks if any(name.startswith(f"{task.id}/") for name in adapters)]


def _lies_in(name: str, role: str, block: int) -> bool:
    named = _BLOCK.search(name)
    return role == "adapter" if named is None else int(named[1]) == block


def _number(value: float) -> float | None:
    """A number for JSON, None for what is none or infinite."""
    return value if math.isfinite(value) else None
