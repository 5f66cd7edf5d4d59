"""ViDA at test time: a student follows its moving average, both with pairs; steps 3 to 6 of `strategies.vida`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cl import Backbone, Samples, Seeds, Tensors, builds
from cl.adapters import pairs as pair
from cl.learning.adaptation import (
    Descent,
    Learner,
    Log,
    OnlineBatch,
    SourceModel,
    average_into,
    cross_entropy,
    entropy,
    learn_through,
    norm_names,
    restore,
    subset,
)
from cl.models.backbone import on_device
from strategies.vida.allotment import NEUTRAL, Allotment, Factors, Homeostasis, PairedModel

FLAT, PATIENCE = 0.1, 20  # a mean prediction of entropy below 0.1 ln C for 20 batches counts as collapse


@dataclass(frozen=True)
class Teaching:
    """How student and teacher learn.

    train: what learns beside the pairs. how: the optimiser, with the rate of what is no pair. target: the teacher's
    output that the student follows. symmetric: half the loss with the two exchanged. ema, ema_pairs: what the teacher
    keeps. restore: probability of returning a scalar to its start. carry_factors: perturbed passes run under the
    factors of the batch before, as in the released code. reset_every: batches, 0: never.
    """

    train: Literal["vida", "vida+norm", "all"]
    how: Descent
    lr_pairs: float
    target: Literal["views_mean", "one_view", "plain"]
    symmetric: bool
    ema: float
    ema_pairs: float
    restore: float
    carry_factors: bool
    reset_every: int
    reset_at_collapse: bool


@builds(state="state", prediction="prediction", evidence="evidence")
def learn_from_teacher(
    batches: dict[str, Samples],
    source: dict[str, Tensors],
    warm: Tensors,
    before: Tensors | None,
    *,
    backbone: Backbone,
    seeds: Seeds,
    allotment: Allotment,
    teaching: Teaching,
) -> dict[str, Tensors]:
    """A segment's batches, each scored by the teacher and then learnt from by the student."""
    model = PairedModel(backbone, source)
    homeostasis = Homeostasis(model, allotment, seeds)
    learner = _learner(teaching, model.source, on_device(warm, backbone), before)
    extra = teaching.target == "one_view" and allotment.uncertainty == "mc_dropout"  # a pass for the target alone

    def target(batch: OnlineBatch, teacher: Tensors, factors: Factors, outputs: Tensor, prediction: Tensor) -> Tensor:
        """The logits `(n, classes)` that the student follows."""
        if teaching.target == "plain":
            return prediction
        if teaching.target == "views_mean":
            return outputs.mean(0)
        return model.logits(homeostasis.augmented(batch, 1), teacher, factors) if extra else outputs[0]

    def step(batch: OnlineBatch) -> tuple[Tensor, Log]:
        teacher = subset("teacher", learner.memory)
        outputs = homeostasis.perturbed_logits(batch, teacher, _carried(learner))  # (passes, n, classes)
        u = homeostasis.uncertainty(outputs)
        factors = homeostasis.factors(u)
        with torch.no_grad():
            prediction = model.logits(batch.pixels, teacher, factors)  # (n, classes)
            followed = target(batch, teacher, factors, outputs, prediction)
        logits = model.logits(batch.pixels, learner.live, factors)
        loss = cross_entropy(followed, logits)
        if teaching.symmetric:
            loss = 0.5 * loss + 0.5 * cross_entropy(logits, followed)
        log = {**homeostasis.log(u, factors), "loss": loss.mean().item(), "passes": allotment.passes + 4.0 + extra}
        log["entropy"] = _entropy_of_mean(prediction)
        gradients = learner.gradients(loss.mean())
        log["gradient"] = torch.stack([one.norm() for one in gradients]).norm().item()
        if not (math.isfinite(log["loss"]) and learner.step_by(gradients)):
            return prediction, log
        average_into(teacher, learner.live, lambda name: teaching.ema_pairs if pair.is_pair(name) else teaching.ema)
        restore(learner.live, learner.start, teaching.restore, seeds, batch.key)
        if teaching.carry_factors:
            learner.memory["carried"] = torch.tensor(factors, dtype=torch.float64)
        collapsed = teaching.reset_at_collapse and _collapsed(learner, log["entropy"], model.source.classes)
        return prediction, {**log, "updated": 1.0, "reset": float(collapsed)}

    return learn_through(batches, model.source, learner, step, teaching.reset_every)


def _learner(teaching: Teaching, model: SourceModel, warm: Tensors, before: Tensors | None) -> Learner:
    """The student, and the teacher in its memory; both begin as the warmed source model."""
    others = {"vida": [], "vida+norm": norm_names(model.backbone), "all": None}[teaching.train]
    start = {**model.weights(others), **warm}
    memory = {f"teacher/{name}": value for name, value in start.items()}
    return Learner(start, teaching.how, before, memory=memory, rates=dict.fromkeys(warm, teaching.lr_pairs))


def _carried(learner: Learner) -> Factors:
    """The factors under which the perturbed passes run: those of the batch before, where they are carried."""
    if "carried" not in learner.memory:
        return NEUTRAL
    low, high = learner.memory["carried"].tolist()
    return low, high


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
