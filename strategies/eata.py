"""EATA and RDumb: entropy minimisation on the samples that are sure and new.

Niu, Wu, Zhang, Chen, Zheng, Zhao, Tan, "Efficient Test-Time Model Adaptation without Forgetting", ICML 2022,
arXiv 2204.02610. With E_0 = margin ln C, and m the running mean of the probabilities of the samples kept so far:

    kept      H(x) < E_0  and  |cos(p(x), m)| < redundancy
    loss      mean over kept of exp(E_0 - H(x)) H(x)  +  beta sum_i F_i (w_i - w_i^source)^2
    F_i       mean over batches of source images of (d CE(y, arg max y) / d w_i)^2

A batch of which nothing is kept changes nothing. RDumb (Press, Schneider, Kümmerer, Bethge, "RDumb: A simple approach
that questions our progress in continual test-time adaptation", NeurIPS 2023, arXiv 2306.05401) leaves F out and returns
to the source every 1,000 batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.components.builder import builds
from cl.components.handles import Handle
from cl.data.samples import Samples, concat
from cl.data.stream import Task
from cl.home.store import Tensors
from cl.learning.adaptation import Batch, Descent, Learner, Log, SourceModel, entropy, learn_through, norm_names
from cl.learning.hyper import hyperparameters, setting
from cl.learning.strategy import Model
from cl.models.backbone import Backbone
from cl.seeds import Seeds
from strategies.source import TestTime, source_of
from strategies.tent import EntropyHyper

FISHER_BATCH = 64  # images whose gradient is squared together, as in the released code


@hyperparameters
class SelectiveHyper(EntropyHyper):
    """What EATA and RDumb share."""

    margin: float = setting(0.4, "E_0 as a share of ln C", "EATA, released code", ge=0)
    redundancy: float = setting(0.05, "cosine to the running mean from which a sample is old", "EATA, ImageNet", ge=0)
    memory: float = setting(0.9, "share that the running mean keeps", "EATA, released code", ge=0, lt=1)


@hyperparameters
class EataHyper(SelectiveHyper):
    """EATA's settings."""

    fisher_images: int = setting(2000, "source images for F", "EATA, released code", ge=1)
    fisher_weight: float = setting(1.0, "beta: 2000 for ImageNet, 1 for CIFAR", "EATA, released code", ge=0)


@builds("statistics")
def fisher(
    shards: list[Samples], source: dict[str, Tensors], *, backbone: Backbone, seeds: Seeds, images: int
) -> Tensors:
    """F of every norm weight, from `images` source images chosen by their ids; their labels are not read."""
    model, samples = SourceModel(backbone, source), concat(shards).plain
    weights = {name: value.requires_grad_() for name, value in model.weights(norm_names(backbone)).items()}
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    chosen = seeds.order(samples.ids, "fisher")[:images]
    chunks = list(_chunks(chosen))
    for chunk in chunks:
        logits = model.logits(backbone.pixels(samples.images(chunk)), weights)
        loss = F.cross_entropy(logits, logits.argmax(1))
        for sums, one in zip(total.values(), torch.autograd.grad(loss, list(weights.values())), strict=True):
            sums += one.square() / len(chunks)
    return {name: value.cpu() for name, value in total.items()}


def _chunks(chosen: list[int]) -> Iterator[list[int]]:
    return (chosen[start : start + FISHER_BATCH] for start in range(0, len(chosen), FISHER_BATCH))


@builds(state="state", prediction="prediction", evidence="evidence")
def selected(
    batches: dict[str, Samples],
    source: dict[str, Tensors],
    importance: Tensors | None,
    before: Tensors | None,
    *,
    backbone: Backbone,
    how: Descent,
    margin: float,
    redundancy: float,
    memory: float,
    reset_every: int,
    fisher_weight: float = 0.0,
) -> dict[str, Tensors]:
    """The segment's batches, each scored and then, where it holds sure and new samples, learnt from."""
    model = SourceModel(backbone, source)
    learner = Learner(model.weights(norm_names(backbone)), how, before)
    limit = margin * math.log(model.classes)
    weight = {name: value.to(backbone.device) for name, value in (importance or {}).items()}

    def step(batch: Batch) -> tuple[Tensor, Log]:
        logits = model.batch_logits(batch.pixels, learner.live)
        h, p = entropy(logits), logits.detach().softmax(1)
        kept = (h < limit).detach()
        mean = learner.memory.get("mean")
        if mean is not None:
            kept &= F.cosine_similarity(mean[None], p).abs() < redundancy
        log = {"kept": kept.double().mean().item(), "passes": 3.0}
        if not kept.any():
            return logits, {**log, "passes": 1.0}
        new = p[kept].mean(0)
        learner.memory["mean"] = new if mean is None else memory * mean + (1 - memory) * new
        loss = (torch.exp(limit - h[kept].detach()) * h[kept]).mean()
        for name, value in weight.items():
            loss = loss + fisher_weight * (value * (learner.live[name] - learner.start[name]).square()).sum()
        return logits, {**log, "updated": float(learner.step(loss)), "loss": loss.item()}

    return learn_through(batches, model, learner, step, reset_every)


class Eata(TestTime):
    """Entropy minimisation on sure and new samples, held near the source where it matters."""

    title = "EATA: entropy of sure and new samples, weights held near the source by their Fisher information"
    paper = "Niu et al., ICML 2022, arXiv 2204.02610"
    Hyper: type = EataHyper
    presets = {
        "quick": {"source_epochs": 2},
        "cifar10": {"redundancy": 0.4},
        "cifar100": {"redundancy": 0.1},
        "imagenet": {"redundancy": 0.05, "fisher_weight": 2000.0},
    }
    build = selected
    arguments = ("margin", "redundancy", "memory", "fisher_weight")

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        found = super().learn(task, model)
        shards = [*(past.train for past in model.tasks), task.train]
        parts = {name or "head": part for name, part in found["source"].parts.items()}
        return {**found, "fisher": self.component("fisher", fisher, shards, parts, images=self.hyper.fisher_images)}

    def origin(self, model: Model) -> tuple[Any, ...]:
        return source_of(model), model["fisher"]


@hyperparameters
class RDumbHyper(SelectiveHyper):
    """RDumb's settings."""

    reset: Literal["never", "segment", "every"] = setting("every", "every `reset_every` batches", "RDumb")


class RDumb(TestTime):
    """EATA without Fisher information, back at the source every so many batches."""

    title = "RDumb: EATA without Fisher information, reset to the source at fixed intervals"
    paper = "Press et al., NeurIPS 2023, arXiv 2306.05401"
    Hyper = RDumbHyper
    presets = {"quick": {"source_epochs": 2}, "cifar10": {"redundancy": 0.4}, "cifar100": {"redundancy": 0.1}}
    build = selected
    arguments = ("margin", "redundancy", "memory")

    def origin(self, model: Model) -> tuple[Any, ...]:
        return source_of(model), None
