"""CoTTA: a student follows the averaged predictions of its own moving average, and parts of it return to the source.

Wang, Fink, Van Gool, Dai, "Continual Test-Time Domain Adaptation", CVPR 2022, arXiv 2203.13591. For each batch:

    teacher   y' = mean of its logits over `passes` augmentations if conf(f_0(x)) < p_th, else its logits on x
    student   one step on the cross-entropy -sum_c softmax(y')_c log softmax(y)_c
    teacher <- a teacher + (1 - a) student
    student   each scalar returns to its source value with probability p

The prediction is y'. conf is the source's mean highest probability over the batch. The augmentations run only where
they are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cl import Backbone, Handle, Model, Part, Samples, Seeds, Tensors, builds, hyperparameters, setting
from cl.data.test_time_augmentation import augmentations
from cl.learning.adaptation import (
    Descent,
    Learner,
    Log,
    OnlineBatch,
    SourceModel,
    average_into,
    cross_entropy,
    images_a_stack,
    learn_through,
    restore,
    subset,
)
from strategies.source import TestTime, TestTimeHyper, source_of


@dataclass(frozen=True)
class MeanTeacher:
    """How the teacher is averaged and asked: `passes` augmentations below `confidence` (p_th), in stacks of `chunk`
    images; `ema` (a) is what it keeps, `probability` (p) that of restoring a scalar of the student."""

    passes: int
    confidence: float
    ema: float
    probability: float
    symmetric: bool
    chunk: int


@hyperparameters
class CottaHyper(TestTimeHyper):
    """CoTTA's settings."""

    optimizer: Literal["sgd", "adam"] = setting("adam", "optimiser at test time", "released code, CIFAR")
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

    @property
    def teacher(self) -> MeanTeacher:
        """The teacher that these settings describe."""
        return MeanTeacher(self.passes, self.confidence, self.ema, self.probability, self.symmetric, self.chunk)


@builds(state="state", prediction="prediction", evidence="evidence")
def learn_from_mean_teacher(
    batches: dict[str, Samples],
    source: dict[str, Tensors],
    before: Tensors | None,
    *,
    backbone: Backbone,
    seeds: Seeds,
    how: Descent,
    teacher: MeanTeacher,
    reset_every: int,
) -> dict[str, Tensors]:
    """The segment's batches, each scored by the teacher and then learnt from by the student."""
    model = SourceModel(backbone, source)
    weights = model.weights()
    memory = {f"teacher/{name}": value for name, value in weights.items()}
    learner = Learner(weights, how, before, memory=memory)

    def step(batch: OnlineBatch) -> tuple[Tensor, Log]:
        averaged = subset("teacher", learner.memory)
        with torch.no_grad():
            sure = model.batch_logits(batch.pixels).softmax(1).max(1).values.mean().item()
            if sure < teacher.confidence:
                copies = augmentations(batch.pixels, batch.ids, teacher.passes, seeds)  # (passes * n, 3, side, side)
                size = images_a_stack(backbone, len(batch.ids), teacher.chunk)
                stacks = [model.batch_logits(one, averaged) for one in copies.split(size)]
                target = torch.cat(stacks).unflatten(0, (teacher.passes, -1)).mean(0)  # (n, classes)
            else:
                target = model.batch_logits(batch.pixels, averaged)
        logits = model.batch_logits(batch.pixels, learner.live)  # (n, classes)
        loss = cross_entropy(target, logits)
        if teacher.symmetric:
            loss = 0.5 * loss + 0.5 * cross_entropy(logits, target)
        passes = 4.0 + (teacher.passes if sure < teacher.confidence else 1)
        log = {"confidence": sure, "loss": loss.mean().item(), "passes": passes}
        if not learner.step(loss.mean()):
            return target, log
        average_into(averaged, learner.live, lambda name: teacher.ema)
        restore(learner.live, learner.start, teacher.probability, seeds, batch.key)
        return target, {**log, "updated": 1.0}

    return learn_through(batches, model, learner, step, reset_every)


class Cotta(TestTime[CottaHyper]):
    """A student, its moving average as a teacher over augmentations, stochastic restoration."""

    title = "CoTTA: weight- and augmentation-averaged teacher, stochastic restoration"
    paper = "Wang et al., CVPR 2022, arXiv 2203.13591"
    Hyper = CottaHyper
    weights = "memory/teacher"
    presets = {
        "quick": {"source_epochs": 2},
        "cifar10": {},  # released code
        "cifar100": {"lr": 3e-4, "confidence": 0.72},  # released p_th; the rate that ViDA's code takes for transformers
        "imagenet": {  # released code, at the rate that ViDA's code takes for transformers
            "optimizer": "sgd",
            "lr": 1e-4,
            "confidence": 0.1,
            "probability": 0.001,
            "symmetric": True,
        },
    }

    def online(self, model: Model, batches: Mapping[str, Samples], before: Part | None) -> Handle:
        h = self.hyper
        return self.component(
            "online",
            learn_from_mean_teacher,
            batches,
            source_of(model),
            before,
            how=h.descent,
            teacher=h.teacher,
            reset_every=h.batches_between_resets,
        )
