"""ViDA: a narrow and a wide bottleneck beside each attention layer, weighed against each other by uncertainty.

Liu, Yang, Jia, Zhang, Lu, Guo, Xue, Zhang, "ViDA: Homeostatic Visual Domain Adapter for Continual Test-Time
Adaptation", ICLR 2024, arXiv 2306.04344. A linear layer W with a pair (U, D) of low and of high rank computes

    y = W x + b + l_low U_low D_low x + l_high U_high D_high x.

The pairs are warmed up on the labelled source split. Then, for each batch at test time:

    1  u: how far the teacher's outputs differ between `passes` perturbed passes
    2  homeostatic allotment: l_high = 1 + u, l_low = 1 - u where u >= threshold, else l_high = 1 - u, l_low = 1 + u
    3  the prediction: the teacher's logits on the plain images
    4  student <- one step on -softmax(target) . log softmax(student)
    5  teacher <- a teacher + (1 - a) student, with one a for the pairs and one for the rest
    6  each scalar of the student returns to its start with probability `restore`

Paper and released code differ in almost every part; presets name the reading. `palimpsest` (the defaults) is ours: the
target is the teacher's mean over the views, since with equal teacher, student and images (`target = plain`) step 4 has
no gradient at first. The `official-*` presets keep what the code does: l_high is never applied, views run under the
last batch's factors. The released runs do not normalise their input: give a backbone of mean 0 and deviation 1.

`vida-static` scores with the warmed pairs and learns nothing; `vida-static+hka` lets steps 1 to 3 run. A gain of `vida`
counts as adaptation only over these.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.adapters import pairs as pair
from cl.components.builder import builds
from cl.components.checkpoint import Checkpoint
from cl.components.handles import Handle, Part
from cl.data.samples import Samples, concat
from cl.data.stream import Task
from cl.data.veil import Veiled
from cl.errors import BadInput
from cl.home.store import Tensors
from cl.learning.adaptation import (
    Batch,
    Descent,
    Learner,
    Log,
    SourceModel,
    Weights,
    average_into,
    cross_entropy,
    entropy,
    go_through,
    learn_through,
    named,
    norm_names,
    restore,
)
from cl.learning.hyper import hyperparameters, setting
from cl.learning.strategy import Adaptation, Model
from cl.learning.train import Batch as TrainingBatch
from cl.learning.train import Optimisation, augmented, fit
from cl.models.backbone import Backbone, batches, on_device, rows
from cl.seeds import Seeds
from strategies.source import Source, TestTime, TestTimeHyper, source_of
from strategies.vida_allotment import NEUTRAL, Allotment, Factors, Homeostasis, Network, told

FLAT, PATIENCE = 0.1, 20  # a mean prediction of entropy below 0.1 ln C for 20 batches counts as collapse


@hyperparameters
class VidaHyper(Allotment, TestTimeHyper):
    """ViDA's settings; sources name the specification's reading."""

    sites: Literal["attention", "all"] = setting("attention", "layers with a pair: attention, or all", "released code")
    low_rank: int = setting(1, "rank of the narrow bottleneck", "released code", ge=1)
    high_rank: int = setting(128, "rank of the wide bottleneck", "released code", ge=1)
    init: Literal["fan_in", "code"] = setting("fan_in", "deviation of D: in^-1/2, or 1/r^2", "ours")
    warm_epochs: int = setting(1, "passes over the source split to warm the pairs up", "ours", ge=0)
    warm_batch_size: int = setting(64, "images a step of warming up", "ours", ge=1)
    warm_lr: float = setting(1e-4, "learning rate of warming up (Adam)", "ours", gt=0)
    views_lambda: Literal["neutral", "carried"] = setting("neutral", "factors under which the views run", "ours")
    target: Literal["views_mean", "one_view", "plain"] = setting(
        "views_mean",
        "the teacher's output that the student follows: mean over the passes, one view, or plain",
        "ours",
    )
    symmetric: bool = setting(False, "half the loss with teacher and student exchanged", "released code, CIFAR")
    train: Literal["vida", "vida+norm", "all"] = setting("vida", "what learns at test time", "ours")
    optimizer: Literal["sgd", "adam"] = setting("adam", "optimiser at test time", "released code, CIFAR")
    lr: float = setting(1e-4, "learning rate of what is no pair", "released code, CIFAR10", ge=0)
    lr_vida: float = setting(1e-4, "learning rate of the pairs", "ours", ge=0)
    momentum: float = setting(0.9, "Nesterov momentum of sgd", "released code, ImageNet", ge=0, lt=1)
    ema_model: float = setting(0.999, "what the teacher keeps of what is no pair", "released code", ge=0, le=1)
    ema_vida: float = setting(0.999, "what the teacher keeps of the pairs", "released code, CIFAR", ge=0, le=1)
    restore: float = setting(0.0, "probability of returning a scalar to its start", "ours", ge=0, le=1)
    reset: Literal["never", "segment", "every", "collapse"] = setting(
        "never", "as for all methods, or once predictions have become one class", "released code"
    )

    @property
    def warming(self) -> Optimisation:
        """How the pairs are warmed up by these settings."""
        return Optimisation(self.warm_epochs, self.warm_batch_size, self.warm_lr, weight_decay=0.0, optimizer="adam")


SHAPE = ("sites", "low_rank", "high_rank", "init")
ALLOTMENT = tuple(field.name for field in dataclasses.fields(Allotment))
LEARNING = (
    "views_lambda", "target", "symmetric", "train", "optimizer", "lr", "lr_vida", "momentum", "ema_model", "ema_vida",
    "restore",
)  # fmt: skip

OFFICIAL = {
    "init": "code", "clip": False, "view_draw": "batch", "lambda_apply": "low_only", "views_lambda": "carried",
    "target": "plain", "train": "all",
}  # fmt: skip
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "quick": {"source_epochs": 2},
    "palimpsest": {},
    "paper": {
        "uncertainty": "mc_dropout", "space": "probs", "scope": "sample", "scale": 1.0, "threshold": 0.2,
        "target": "one_view",
    },
    "official-cifar10": {**OFFICIAL, "lr": 1e-4, "lr_vida": 1e-5, "restore": 0.1},
    "official-cifar100": {**OFFICIAL, "lr": 3e-4, "lr_vida": 1e-6, "restore": 0.1},
    "official-imagenet": {
        **OFFICIAL, "symmetric": True, "optimizer": "sgd", "lr": 5e-7, "lr_vida": 2e-7, "ema_vida": 0.8,
        "threshold": 0.2,
    },
}  # fmt: skip


@builds("adapter")
def warmed(
    shards: list[Samples],
    source: dict[str, Tensors],
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    classes: list[str],
    sites: Literal["attention", "all"],
    low_rank: int,
    high_rank: int,
    init: str,
    how: Optimisation,
) -> Tensors:
    """Pairs tuned on labelled source images beside the frozen source model, both factors 1."""
    samples, network = concat(shards), Network(backbone, source)
    targets = samples.targets(classes).to(backbone.device)
    start = pair.init(backbone, sites, {"low": low_rank, "high": high_rank}, init, seeds)

    def loss(live: Tensors, batch: TrainingBatch) -> Tensor:
        pixels = backbone.pixels(augmented(samples, batch, seeds))
        return F.cross_entropy(network.logits(pixels, live, NEUTRAL), targets[batch.rows])

    return fit(on_device(start, backbone), loss, samples.ids, how, seeds, checkpoint)


@builds(prediction="prediction", evidence="evidence")
@torch.no_grad()
def unadapted(
    batches: dict[str, Samples],
    source: dict[str, Tensors],
    warm: Tensors,
    *,
    backbone: Backbone,
    seeds: Seeds,
    hka: bool,
    **how: Any,
) -> dict[str, Tensors]:
    """The warmed pairs on a segment's batches; with `hka` under factors from the uncertainty of each batch."""
    h, network = Allotment(**how), Network(backbone, source)
    pairs, homeostasis = on_device(warm, backbone), Homeostasis(network, h, seeds)

    def step(batch: Batch) -> tuple[Tensor, Log]:
        if not hka:
            return network.logits(batch.pixels, pairs, NEUTRAL), {"passes": 1.0}
        u = homeostasis.uncertainty(homeostasis.perturbed(batch, pairs, NEUTRAL))
        factors = homeostasis.factors(u)
        log = {**told(u, factors, h.threshold), "passes": h.passes + 1.0}
        return network.logits(batch.pixels, pairs, factors), log

    return go_through(batches, network.model, step)


@builds(state="state", prediction="prediction", evidence="evidence")
def adapted(
    batches: dict[str, Samples],
    source: dict[str, Tensors],
    warm: Tensors,
    before: Tensors | None,
    *,
    backbone: Backbone,
    seeds: Seeds,
    reset_every: int,
    at_collapse: bool,
    **how: Any,
) -> dict[str, Tensors]:
    """A segment's batches, each scored by the teacher and then learnt from by the student."""
    h, network = VidaHyper(**how), Network(backbone, source)
    homeostasis = Homeostasis(network, h, seeds)
    learner = _learner(h, network.model, on_device(warm, backbone), before)

    def step(batch: Batch) -> tuple[Tensor, Log]:
        teacher = named("teacher", learner.memory)
        outputs = homeostasis.perturbed(batch, teacher, _carried(h, learner))
        u = homeostasis.uncertainty(outputs)
        factors = homeostasis.factors(u)
        with torch.no_grad():
            prediction = network.logits(batch.pixels, teacher, factors)
            target = _target(h, homeostasis, batch, outputs, prediction, teacher, factors)
        logits = network.logits(batch.pixels, learner.live, factors)
        loss = cross_entropy(target, logits)
        if h.symmetric:
            loss = 0.5 * loss + 0.5 * cross_entropy(logits, target)
        passes = h.passes + 4.0 + (h.target == "one_view" and h.uncertainty == "mc_dropout")
        log = {**told(u, factors, h.threshold), "loss": loss.mean().item(), "passes": passes}
        log["entropy"] = _entropy_of_mean(prediction)
        gradients = learner.gradients(loss.mean())
        log["gradient"] = torch.stack([one.norm() for one in gradients]).norm().item()
        if not (math.isfinite(log["loss"]) and learner.step_by(gradients)):
            return prediction, log
        average_into(teacher, learner.live, lambda name: h.ema_vida if pair.is_pair(name) else h.ema_model)
        restore(learner.live, learner.start, h.restore, seeds, batch.key)
        if h.views_lambda == "carried":
            learner.memory["carried"] = torch.tensor(factors, dtype=torch.float64)
        collapsed = at_collapse and _collapsed(learner, log["entropy"], network.model.classes)
        return prediction, {**log, "updated": 1.0, "reset": float(collapsed)}

    return learn_through(batches, network.model, learner, step, reset_every)


def _learner(h: VidaHyper, model: SourceModel, warm: Weights, before: Tensors | None) -> Learner:
    """The student, and the teacher in its memory; both begin as the warmed source model."""
    others = {"vida": [], "vida+norm": norm_names(model.backbone), "all": None}[h.train]
    start = {**model.weights(others), **warm}
    memory = {f"teacher/{name}": value for name, value in start.items()}
    how = Descent(h.optimizer, h.lr, h.momentum, nesterov=True)
    return Learner(start, how, before, memory=memory, rates=dict.fromkeys(warm, h.lr_vida))


def _carried(h: VidaHyper, learner: Learner) -> Factors:
    """The factors under which the views run: neutral, or those of the batch before."""
    if h.views_lambda == "neutral" or "carried" not in learner.memory:
        return NEUTRAL
    low, high = learner.memory["carried"].tolist()
    return low, high


def _target(
    h: VidaHyper,
    homeostasis: Homeostasis,
    batch: Batch,
    outputs: Tensor,
    prediction: Tensor,
    teacher: Weights,
    factors: Factors,
) -> Tensor:
    """The logits that the student follows."""
    if h.target == "plain":
        return prediction
    if h.target == "views_mean":
        return outputs.mean(0)
    if h.uncertainty == "views":
        return outputs[0]
    return homeostasis.network.logits(homeostasis.views(batch, 1), teacher, factors)


def _entropy_of_mean(logits: Tensor) -> float:
    return entropy(logits.softmax(1).mean(0, keepdim=True).log()).item()


def _collapsed(learner: Learner, flatness: float, classes: int) -> bool:
    """Count batches whose mean prediction is all but one class; reset after too many in a row."""
    flat = flatness < FLAT * math.log(classes)
    learner.memory["flat"] = (learner.memory.get("flat", torch.tensor(0)) + 1) if flat else torch.tensor(0)
    if learner.memory["flat"] < PATIENCE:
        return False
    learner.reset()
    return True


@builds("cache")
@torch.no_grad()
def scores_with_pairs(
    samples: Samples, source: dict[str, Tensors], weights: Tensors, *, backbone: Backbone, prefix: str
) -> Tensors:
    """Logits `(n, classes)` with both factors 1. weights: pairs, or a state that holds them under `prefix`."""
    network = Network(backbone, source)
    chosen = on_device(named(prefix, weights) if prefix else weights, backbone)
    padded = batches(samples, "features")
    return {"scores": rows(backbone, padded, lambda raw: network.logits(backbone.pixels(raw), chosen, NEUTRAL))}


@builds("state")
def reparameterised(
    source: dict[str, Tensors], weights: Tensors, *, backbone: Backbone, prefix: str, low: float, high: float
) -> Tensors:
    """W' of every layer with a pair, and what else was learnt: plain weights of the backbone and its head."""
    model = SourceModel(backbone, source)
    chosen = on_device(named(prefix, weights) if prefix else weights, backbone)
    others = {name: value for name, value in chosen.items() if not pair.is_pair(name)}
    whole = {**model.weights(), **others}
    return {name: value.cpu() for name, value in {**whole, **pair.merged(whole, chosen, low, high)}.items()}


class VidaStatic(Source):
    """The warmed pairs, not adapted, both factors 1: what `vida` has to beat."""

    title = "ViDA's warmed source model, not adapted: what a gain of vida is measured against"
    paper = "control of Liu et al., ICLR 2024, arXiv 2306.04344"
    Hyper: type = VidaHyper
    presets = PRESETS
    hka = False

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        found, h = super().learn(task, model), self.hyper
        shards = [*(past.train for past in model.tasks), task.train]
        classes = list(dict.fromkeys([*model.classes, *task.classes]))
        parts = {name or "head": part for name, part in found["source"].parts.items()}
        warm = self.component("warm", warmed, shards, parts, classes=classes, how=h.warming, **self.chosen(SHAPE))
        return {**found, "warm": warm}

    def chosen(self, names: tuple[str, ...]) -> dict[str, Any]:
        """These hyperparameters by name."""
        return {name: getattr(self.hyper, name) for name in names}

    def adapt(self, model: Model, segment: Veiled) -> Adaptation:
        # Without the rule its settings change nothing, so they are left out of the key.
        how = self.chosen(ALLOTMENT) if self.hka else {}
        found = self.component(
            "online", unadapted, segment.batches, source_of(model), model["warm"], hka=self.hka, **how
        )
        return Adaptation(found["prediction"], {}, found["evidence"])

    def pairs(self, model: Model) -> tuple[Part, str]:
        """The part that holds what was learnt, and under which prefix."""
        return model["warm"].sole, ""

    def scores(self, model: Model, samples: Samples) -> Handle:
        part, prefix = self.pairs(model)
        return self.component("scores", scores_with_pairs, samples.plain, source_of(model), part, prefix=prefix)

    def exported(self, model: Model, low: float = 1.0, high: float = 1.0) -> Handle:
        """The model with its pairs merged into plain weights, for these factors: a component, tainted as they are."""
        part, prefix = self.pairs(model)
        return self.component("exported", reparameterised, source_of(model), part, prefix=prefix, low=low, high=high)


class VidaStaticHka(VidaStatic):
    """The warmed pairs under factors from the uncertainty of each batch, nothing learnt."""

    title = "ViDA's warmed source model with homeostatic allotment, nothing learnt at test time"
    hka = True


class Vida(VidaStatic, TestTime):
    """Homeostatic pairs of bottlenecks, learnt at test time from a moving average."""

    title = "ViDA: low- and high-rank adapters weighed by uncertainty, taught by their moving average"
    paper = "Liu et al., ICLR 2024, arXiv 2306.04344"

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        if self.hyper.scope == "sample" and self.hyper.views_lambda == "carried":
            raise BadInput("factors of single images fit no later batch; set views_lambda=neutral or scope=batch")
        return super().learn(task, model)

    def adapt(self, model: Model, segment: Veiled) -> Adaptation:
        before = model["online"]["state"] if "online" in model else None
        found = self.component(
            "online",
            adapted,
            segment.batches,
            source_of(model),
            model["warm"],
            before,
            reset_every=self.hyper.reset_every if self.hyper.reset == "every" else 0,
            at_collapse=self.hyper.reset == "collapse",
            **self.chosen((*ALLOTMENT, *LEARNING)),
        )
        return Adaptation(found["prediction"], {"online": found}, found["evidence"])

    def pairs(self, model: Model) -> tuple[Part, str]:
        return (model["online"]["state"], "memory/teacher") if "online" in model else super().pairs(model)
