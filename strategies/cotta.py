"""CoTTA: a student follows the averaged predictions of its own moving average, and parts of it return to the source.

Wang, Fink, Van Gool, Dai, "Continual Test-Time Domain Adaptation", CVPR 2022, arXiv 2203.13591. For each batch:

    teacher   y' = mean of its logits over `passes` augmented views if conf(f_0(x)) < p_th, else its logits on x
    student   one step on the cross-entropy -sum_c softmax(y')_c log softmax(y)_c
    teacher <- a teacher + (1 - a) student
    student   each scalar returns to its source value with probability p

The prediction is y'. conf is the source's mean highest probability over the batch. The views run only where they are
used.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cl.components.builder import builds
from cl.data.samples import Samples
from cl.data.views import views
from cl.home.store import Tensors
from cl.learning.adaptation import (
    Batch,
    Descent,
    Learner,
    Log,
    SourceModel,
    average_into,
    cross_entropy,
    images_a_stack,
    learn_through,
    restore,
)
from cl.learning.hyper import hyperparameters, setting
from cl.models.backbone import Backbone
from cl.seeds import Seeds
from strategies.source import TestTime, TestTimeHyper


@hyperparameters
class CottaHyper(TestTimeHyper):
    """CoTTA's settings."""

    optimizer: Literal["sgd", "adam"] = setting(
        "adam",
        "optimiser at test time",
        "released code, CIFAR",
    )
    lr: float = setting(1e-3, "learning rate at test time", "released code, CIFAR", ge=0)
    momentum: float = setting(0.9, "momentum of sgd", "released code", ge=0, lt=1)
    passes: int = setting(32, "augmented views a batch", "released code", ge=1)
    confidence: float = setting(0.92, "p_th, below which views are averaged", "released code, CIFAR10", ge=0)
    ema: float = setting(0.999, "a, what the teacher keeps", "released code", ge=0, le=1)
    probability: float = setting(0.01, "p, of restoring a scalar", "released code, CIFAR", ge=0, le=1)
    symmetric: bool = setting(False, "half the loss with teacher and student exchanged", "released code, ImageNet")
    chunk: int = setting(400, "images that run as one stack", "ours", ge=1)

    @property
    def descent(self) -> Descent:
        """The optimiser that these settings describe."""
        return Descent(self.optimizer, self.lr, self.momentum)


@builds(state="state", prediction="prediction", evidence="evidence")
def taught(
    batches: dict[str, Samples],
    source: dict[str, Tensors],
    before: Tensors | None,
    *,
    backbone: Backbone,
    seeds: Seeds,
    how: Descent,
    passes: int,
    confidence: float,
    ema: float,
    probability: float,
    symmetric: bool,
    chunk: int,
    reset_every: int,
) -> dict[str, Tensors]:
    """The segment's batches, each scored by the teacher and then learnt from by the student."""
    model = SourceModel(backbone, source)
    weights = model.weights()
    memory = {f"teacher/{name}": value for name, value in weights.items()}
    learner = Learner(weights, how, before, memory=memory)

    def step(batch: Batch) -> tuple[Tensor, Log]:
        teacher = {name: learner.memory[f"teacher/{name}"] for name in weights}
        with torch.no_grad():
            sure = model.batch_logits(batch.pixels).softmax(1).max(1).values.mean().item()
            if sure < confidence:
                seen = views(batch.pixels, batch.ids, passes, seeds)
                size = images_a_stack(backbone, len(batch.ids), chunk)
                stacks = [model.batch_logits(one, teacher) for one in seen.split(size)]
                target = torch.cat(stacks).unflatten(0, (passes, -1)).mean(0)
            else:
                target = model.batch_logits(batch.pixels, teacher)
        logits = model.batch_logits(batch.pixels, learner.live)
        loss = cross_entropy(target, logits)
        if symmetric:
            loss = 0.5 * loss + 0.5 * cross_entropy(logits, target)
        log = {"confidence": sure, "loss": loss.mean().item(), "passes": 4.0 + (passes if sure < confidence else 1)}
        if not learner.step(loss.mean()):
            return target, log
        average_into(teacher, learner.live, lambda name: ema)
        restore(learner.live, learner.start, probability, seeds, batch.key)
        return target, {**log, "updated": 1.0}

    return learn_through(batches, model, learner, step, reset_every)


class Cotta(TestTime):
    """A student, its moving average as a teacher over augmented views, stochastic restoration."""

    title = "CoTTA: weight- and augmentation-averaged teacher, stochastic restoration"
    paper = "Wang et al., CVPR 2022, arXiv 2203.13591"
    Hyper = CottaHyper
    presets = {
        "quick": {"source_epochs": 2},
        "cifar10": {},
        "cifar100": {"lr": 3e-4, "confidence": 0.72},
        "imagenet": {
            "optimizer": "sgd",
            "lr": 1e-4,
            "confidence": 0.1,
            "probability": 0.001,
            "symmetric": True,
        },
    }
    build = taught
    learnt = "memory/teacher"
    arguments = ("passes", "confidence", "ema", "probability", "symmetric", "chunk")
