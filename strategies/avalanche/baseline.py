"""Avalanche's strategies as strategies of ours: `avalanche:EWC` and the like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from cl import Backbone, Handle, Model, Samples, Seeds, Strategy, Task, Tensors, builds
from cl.errors import BadInput
from cl.models.backbone import batches, rows
from cl.numerics import Numerics
from cl.progress import tell
from cl.registry import Family
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


def _baseline(
    kind: str, title: str, paper: str, hyper: type[Settings] = BaselineHyper, **more: Any
) -> type[AvalancheBaseline]:
    body = {"kind": kind, "title": f"{title} (Avalanche)", "paper": paper, "Hyper": hyper, "__module__": __name__}
    return type(kind, (AvalancheBaseline,), {**body, **more})


_ON_ALL = "training on all images so far"
_MEMBERS = (
    _baseline("Naive", "training on each task in turn, nothing against forgetting", "baseline"),
    _baseline("Cumulative", f"{_ON_ALL}, from the model before", "baseline", rehearsal=True),
    _baseline("Joint", f"{_ON_ALL}, afresh", "baseline", rehearsal=True, afresh=True),
    _baseline("EWC", "weights held by their Fisher information", "Kirkpatrick et al., PNAS 2017", EWCHyper),
    _baseline("LwF", "scores of the model before, distilled", "Li and Hoiem, ECCV 2016", LwFHyper),
    _baseline("Replay", "a memory of images, half of every batch", "Chaudhry et al., arXiv 1902.10486", MemoryHyper),
    _baseline("DER", "a memory of images and their scores", "Buzzega et al., NeurIPS 2020", DERHyper),
    _baseline("ER_ACE", "a memory, and an asymmetric cross-entropy", "Caccia et al., ICLR 2022", MemoryHyper),
    _baseline("GDumb", "a balanced memory, and training on it alone, afresh", "Prabhu et al., ECCV 2020", MemoryHyper),
    _baseline("SLDA", "streaming linear discriminant analysis", "Hayes and Kanan, CVPRW 2020", SLDAHyper, presets={}),
    _baseline("iCaRL", "nearest mean of exemplars, distillation", "Rebuffi et al., CVPR 2017", MemoryHyper),
)
_UNTESTED = (
    "AGEM",
    "CWRStar",
    "CoPE",
    "FeatureReplay",
    "GSS_greedy",
    "MAS",
    "MER",
    "MIR",
    "SCR",
    "SynapticIntelligence",
)
_OWN_MODEL = ("GenerativeReplay", "LFL", "LearningToPrompt", "PNNStrategy", "PackNet", "ER_AML")
baselines = Family(
    {one.kind: one for one in _MEMBERS},
    {
        "BiC": "Avalanche 0.6 passes an argument that today's torch has no more; use avalanche:iCaRL",
        "GEM": "it needs a solver for quadratic programs that Avalanche does not install; use avalanche:Replay",
        **dict.fromkeys(_UNTESTED, "it is not offered, as no test of ours covers it; see palimpsest list strategies"),
        **dict.fromkeys(_OWN_MODEL, "it needs a model of its own; see palimpsest list strategies"),
    },
)
