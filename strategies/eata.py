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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import TypeVar

from cl import Backbone, Handle, Model, Part, Samples, Seeds, Task, Tensors, builds, hyperparameters, setting
from cl.data.samples import concat
from cl.learning.adaptation import Descent, Learner, Log, OnlineBatch, SourceModel, entropy, learn_through, norm_names
from strategies.source import TestTime, source_of, source_split
from strategies.tent import EntropyHyper

FISHER_BATCH = 64  # images whose gradient is squared together, as in the released code


@dataclass(frozen=True)
class Selection:
    """Which samples are learnt from: E_0 / ln C, the limit of the cosine, what m keeps; and beta, the weight of F."""

    margin: float
    redundancy: float
    memory: float
    fisher_weight: float = 0.0


@hyperparameters
class SelectiveHyper(EntropyHyper):
    """What EATA and RDumb share."""

    margin: float = setting(0.4, "E_0 as a share of ln C", "EATA, released code", ge=0)
    redundancy: float = setting(0.05, "cosine to the running mean from which a sample is old", "EATA, ImageNet", ge=0)
    memory: float = setting(0.9, "share that the running mean keeps", "EATA, released code", ge=0, lt=1)

    @property
    def selection(self) -> Selection:
        """What is learnt from by these settings."""
        return Selection(self.margin, self.redundancy, self.memory)


@hyperparameters
class EataHyper(SelectiveHyper):
    """EATA's settings."""

    fisher_images: int = setting(2000, "source images for F", "EATA, released code", ge=1)
    fisher_weight: float = setting(1.0, "beta: 2000 for ImageNet, 1 for CIFAR", "EATA, released code", ge=0)

    @property
    def selection(self) -> Selection:
        return Selection(self.margin, self.redundancy, self.memory, self.fisher_weight)


@hyperparameters
class RDumbHyper(SelectiveHyper):
    """RDumb's settings."""

    reset: Literal["never", "segment", "every"] = setting("every", "every `reset_every` batches", "RDumb")


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
def minimise_selectively(
    batches: dict[str, Samples],
    source: dict[str, Tensors],
    importance: Tensors | None,
    before: Tensors | None,
    *,
    backbone: Backbone,
    how: Descent,
    selection: Selection,
    reset_every: int,
) -> dict[str, Tensors]:
    """The segment's batches, each scored and then, where it holds sure and new samples, learnt from.

    importance: F, where weights are held near the source.
    """
    model = SourceModel(backbone, source)
    learner = Learner(model.weights(norm_names(backbone)), how, before)
    limit = selection.margin * math.log(model.classes)  # E_0
    weight = {name: value.to(backbone.device) for name, value in (importance or {}).items()}

    def step(batch: OnlineBatch) -> tuple[Tensor, Log]:
        logits = model.batch_logits(batch.pixels, learner.live)  # (n, classes)
        h, p = entropy(logits), logits.detach().softmax(1)  # (n,), (n, classes)
        kept = (h < limit).detach()  # (n,)
        mean = learner.memory.get("mean")  # m (classes,)
        if mean is not None:
            kept &= F.cosine_similarity(mean[None], p).abs() < selection.redundancy
        log = {"kept": kept.double().mean().item(), "passes": 3.0}
        if not kept.any():
            return logits, {**log, "passes": 1.0}
        new = p[kept].mean(0)
        learner.memory["mean"] = new if mean is None else selection.memory * mean + (1 - selection.memory) * new
        loss = (torch.exp(limit - h[kept].detach()) * h[kept]).mean()
        for name, value in weight.items():
            moved = learner.live[name] - learner.start[name]
            loss = loss + selection.fisher_weight * (value * moved.square()).sum()
        return logits, {**log, "updated": float(learner.step(loss)), "loss": loss.item()}

    return learn_through(batches, model, learner, step, reset_every)


S = TypeVar("S", bound=SelectiveHyper)


class Selective(TestTime[S]):
    """Entropy minimisation on sure and new samples."""

    def importance(self, model: Model) -> Part | None:
        """F, where weights are held near the source by it."""
        return None

    def online(self, model: Model, batches: Mapping[str, Samples], before: Part | None) -> Handle:
        h = self.hyper
        return self.component(
            "online",
            minimise_selectively,
            batches,
            source_of(model),
            self.importance(model),
            before,
            how=h.descent,
            selection=h.selection,
            reset_every=h.batches_between_resets,
        )


class Eata(Selective[EataHyper]):
    """Entropy minimisation on sure and new samples, held near the source where it matters."""

    title = "EATA: entropy of sure and new samples, weights held near the source by their Fisher information"
    paper = "Niu et al., ICML 2022, arXiv 2204.02610"
    Hyper = EataHyper
    presets = {
        "quick": {"source_epochs": 2},
        "cifar10": {"redundancy": 0.4},  # released code
        "cifar100": {"redundancy": 0.1},  # as read in mariodoebler/test-time-adaptation
        "imagenet": {"redundancy": 0.05, "fisher_weight": 2000.0},  # released code
    }

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        entries, images = super().learn(task, model), self.hyper.fisher_images
        importance = self.component("fisher", fisher, source_split(task, model), source_of(entries), images=images)
        return {**entries, "fisher": importance}

    def importance(self, model: Model) -> Part | None:
        return model["fisher"].sole


class RDumb(Selective[RDumbHyper]):
    """EATA without Fisher information, back at the source every so many batches."""

    title = "RDumb: EATA without Fisher information, reset to the source at fixed intervals"
    paper = "Press et al., NeurIPS 2023, arXiv 2306.05401"
    Hyper = RDumbHyper
    presets = {
        "quick": {"source_epochs": 2},
        "cifar10": {"redundancy": 0.4},  # as EATA
        "cifar100": {"redundancy": 0.1},  # as EATA
    }
