"""MOS's merging of parameters: means of adapters, and the pull of one adapter towards a mean."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cl import Tensors, builds


@builds("cache")
def mean_parameters(several: list[Tensors]) -> Tensors:
    """The mean of each tensor over sets of parameters, taken in float64.

    This merges parameters, not the functions they stand for: a ReLU lies between.
    """
    return {name: torch.stack([one[name].double() for one in several]).mean(0).float() for name in several[0]}


def pull(live: Mapping[str, Tensor], towards: Mapping[str, Tensor], momentum: float, times: int = 1) -> None:
    """`times` steps of A <- (1-m) A + m towards, in place, for every tensor that `towards` has.

    In closed form: what is left of A - towards is (1-m)^times of it.
    """
    if momentum == 0:
        return
    for name, value in towards.items():
        live[name].lerp_(value, 1 - (1 - momentum) ** times)


@builds("evidence")
def adapter_distances(adapters: list[Tensors]) -> Tensors:
    """How far each bottleneck adapter is from the first, block by block, `(tasks, blocks)`.

    absolute: over all parameters. relative: over what begins at zero (all but down.weight), as a share of the first
    adapter's norm there, which is how far its training went.
    """
    trained = [{name: value for name, value in one.items() if name != "down.weight"} for one in adapters]
    origin = {name: torch.zeros_like(value) for name, value in trained[0].items()}
    absolute = torch.stack([_norms(one, adapters[0]) for one in adapters])
    moved = torch.stack([_norms(one, trained[0]) for one in trained])
    return {"absolute": absolute, "relative": moved / _norms(trained[0], origin)}


def _norms(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> Tensor:
    """Euclidean norm of the difference, block by block; every tensor has the blocks first."""
    squares = [(one[name] - other[name]).double().square().flatten(1).sum(1) for name in other]
    return torch.stack(squares).sum(0).sqrt()
