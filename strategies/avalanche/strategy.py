"""Avalanche's strategies as strategies of ours: `avalanche:EWC` and the like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor

from cl import Backbone, Handle, Model, Samples, Seeds, Strategy, Task, Tensors, builds
from cl.errors import BadInput
from cl.models.backbone import batches, rows
from cl.numerics import Numerics
from cl.progress import tell
from strategies.avalanche.objects import avalanche_release, data_set, make_experience, make_strategy, quietly
from strategies.avalanche.settings import (
    AvalancheMethod,
    BaselineHyper,
    DERHyper,
    EWCHyper,
    LwFHyper,
    MemoryHyper,
    Settings,
    SLDAHyper,
)
from strategies.avalanche.state import load_state, state_of


@dataclass(frozen=True)
class Columns:
    """All classes so far, by column; the first `known` are of earlier tasks."""

    classes: list[str]
    known: int


@builds("state")
def train_task(
    shards: list[Samples],
    features: list[Tensors] | None,
    before: Tensors | None,
    *,
    method: AvalancheMethod,
    columns: Columns,
    backbone: Backbone,
    seeds: Seeds,
    numerics: Numerics,
) -> Tensors:
    """What one of Avalanche's strategies has learnt after one more task (see `state`).

    shards: the task's images last, before them those of earlier tasks that the strategy trains on again. features: of
    each, unless the images themselves are trained on. before: what it had learnt.
    """
    units, classes = method.settings.units, columns.classes
    if len(classes) > units:
        mend = f"--set units={2 * len(classes)}"
        raise BadInput(f"avalanche:{method.kind} has {units} outputs, but there are {len(classes)} classes; {mend}")
    with quietly():
        strategy = _strategy(method, before, backbone, seeds, numerics)
        inputs = [one["features"] for one in features] if features is not None else [one.images() for one in shards]
        sets = [
            data_set(x, shard.targets(classes).tolist(), shard.ids) for x, shard in zip(inputs, shards, strict=True)
        ]
        with seeds.forked("train"):
            _train(strategy, method.kind, sets, columns.known, units)
        return state_of(strategy, method.kind)


def _strategy(
    method: AvalancheMethod, before: Tensors | None, backbone: Backbone, seeds: Seeds, numerics: Numerics
) -> Any:
    """Avalanche's strategy, fresh or where it stopped."""
    with seeds.forked("init"):
        strategy = make_strategy(method, backbone, numerics)
    if before is not None:
        load_state(strategy, method.kind, before)
    return strategy


class _Epochs:
    """A plugin that tells how far the training is."""

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        tell("epochs", strategy.clock.train_exp_epochs + 1, strategy.train_epochs)


def _train(strategy: Any, kind: str, sets: Sequence[Any], known: int, units: int) -> None:
    strategy.plugins.insert(0, _Epochs())
    number = strategy.clock.train_exp_counter
    if kind == "Joint":  # all tasks at once, afresh
        strategy.train([make_experience(one, place, 0, units) for place, one in enumerate(sets)], eval_streams=[])
        return
    if kind == "Cumulative" and len(sets) > 1:
        from avalanche.benchmarks.utils.utils import concat_datasets

        strategy.dataset = concat_datasets(sets[:-1])
    strategy.train(make_experience(sets[-1], number, known, units), eval_streams=[])


@builds("cache")
@torch.no_grad()
def scores_of(
    samples: Samples,
    features: Tensors | None,
    state: Tensors,
    *,
    method: AvalancheMethod,
    columns: int,
    backbone: Backbone,
    numerics: Numerics,
) -> Tensors:
    """Scores `(n, columns)` by the strategy's own rule: SLDA's discriminant, iCaRL's nearest mean, else the logits."""
    with quietly():
        strategy = _strategy(method, state, backbone, Seeds("scores"), numerics)
    strategy.model.eval()
    device = torch.device(numerics.device)

    def rule(inputs: Tensor) -> Tensor:
        outputs: Tensor = strategy.model(inputs.to(device))
        scores: Tensor = strategy.predict(outputs) if method.kind == "SLDA" else outputs  # (n, units)
        return scores[:, :columns]

    if features is not None:
        return {"scores": rule(features["features"]).cpu().contiguous()}
    return {"scores": rows(backbone, batches(samples, "scores"), rule).contiguous()}


class AvalancheBaseline(Strategy[Settings]):
    """A strategy of Avalanche's, by its name there. With `rehearsal` it trains on the images of earlier tasks again."""

    kind: ClassVar[str]
    afresh: ClassVar[bool] = False
    Hyper = BaselineHyper
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"epochs": 2}}

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        shards = [*(past.train for past in model.tasks), task.train] if self.rehearsal else [task.train]
        columns = Columns(list(dict.fromkeys([*model.classes, *task.classes])), known=len(model.classes))
        before = model["state"] if model.tasks and not self.afresh else None
        features = [self.features(shard) for shard in shards] if self.hyper.over == "features" else None
        reads = [shard.plain for shard in shards], features, before
        return {"state": self.component(f"{task.id}/state", train_task, *reads, method=self.method, columns=columns)}

    def scores(self, model: Model, samples: Samples) -> Handle:
        features = self.features(samples) if self.hyper.over == "features" else None
        reads = samples.plain, features, model["state"]
        return self.component("scores", scores_of, *reads, method=self.method, columns=len(model.classes))

    @property
    def method(self) -> AvalancheMethod:
        """What it is to Avalanche."""
        return AvalancheMethod(self.kind, self.hyper, avalanche_release())


# What is not said here is a baseline's as it is: `BaselineHyper`, one task's images, from the model before.
_OWN: dict[str, dict[str, Any]] = {
    "Cumulative": {"rehearsal": True},
    "Joint": {"rehearsal": True, "afresh": True},
    "EWC": {"Hyper": EWCHyper},
    "LwF": {"Hyper": LwFHyper},
    "Replay": {"Hyper": MemoryHyper},
    "DER": {"Hyper": DERHyper},
    "ER_ACE": {"Hyper": MemoryHyper},
    "GDumb": {"Hyper": MemoryHyper},
    "SLDA": {"Hyper": SLDAHyper, "presets": {}},
    "iCaRL": {"Hyper": MemoryHyper},
}


@cache
def baseline(kind: str, title: str, paper: str) -> type[AvalancheBaseline]:
    """The strategy of this name there."""
    body = {"kind": kind, "title": title, "paper": paper, "__module__": __name__}
    return type(kind, (AvalancheBaseline,), {**body, **_OWN.get(kind, {})})
