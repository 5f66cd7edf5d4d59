"""SAR: sharpness-aware entropy minimisation on the sure samples.

Niu, Wu, Zhang, Wen, Chen, Zhao, Tan, "Towards Stable Test-Time Adaptation in Dynamic Wild World", ICLR 2023,
arXiv 2302.12400. Of a batch the samples with H(x) < E_0 = margin ln C are kept; their mean entropy is made small and
flat: the weights are moved by rho g / |g|, samples that are still sure there give the gradient, and the step is taken
from where the weights were. Norm layers of the last quarter of the blocks and the final norm stay as they are. When the
moving average of the loss falls below `collapse`, everything is reset.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from cl import Backbone, Handle, Model, Part, Samples, Tensors, builds, hyperparameters, setting
from cl.learning.adaptation import Descent, Learner, Log, OnlineBatch, SourceModel, entropy, learn_through, norm_names
from strategies.source import TestTime, source_of
from strategies.tent import EntropyHyper


@dataclass(frozen=True)
class Sharpness:
    """Which samples are learnt from and how flat: E_0 / ln C, rho, the share of blocks, the loss of a collapse."""

    margin: float
    rho: float
    depth: float
    collapse: float


@hyperparameters
class SarHyper(EntropyHyper):
    """SAR's settings."""

    margin: float = setting(0.4, "E_0 as a share of ln C", "SAR, released code", ge=0)
    rho: float = setting(0.05, "radius of the neighbourhood", "SAR, released code", ge=0)
    depth: float = setting(0.75, "share of the blocks whose norms are learnt; 1: all, the final norm too", "SAR", gt=0)
    collapse: float = setting(0.2, "moving average of the loss below which all is reset", "SAR, released code", ge=0)

    @property
    def sharpness(self) -> Sharpness:
        """What is learnt from, and how, by these settings."""
        return Sharpness(self.margin, self.rho, self.depth, self.collapse)


@builds(state="state", prediction="prediction", evidence="evidence")
def minimise_sharpness(
    batches: dict[str, Samples],
    source: dict[str, Tensors],
    before: Tensors | None,
    *,
    backbone: Backbone,
    how: Descent,
    sharpness: Sharpness,
    reset_every: int,
) -> dict[str, Tensors]:
    """The segment's batches, each scored and then, where it holds sure samples, learnt from."""
    model = SourceModel(backbone, source)
    learner = Learner(model.weights(norm_names(backbone, sharpness.depth)), how, before)
    limit = sharpness.margin * math.log(model.classes)  # E_0

    def step(batch: OnlineBatch) -> tuple[Tensor, Log]:
        logits = model.batch_logits(batch.pixels, learner.live)  # (n, classes)
        h = entropy(logits)  # (n,)
        sure = h < limit
        log = {"kept": sure.double().mean().item(), "passes": 6.0}
        if not sure.any():
            return logits, {**log, "passes": 1.0}
        with _neighbour(learner, learner.gradients(h[sure].mean()), sharpness.rho):
            there = entropy(model.batch_logits(batch.pixels, learner.live))[sure]  # (sure,)
            still = there < limit
            gradients = learner.gradients(there[still].mean()) if still.any() else []
        if not gradients:
            return logits, {**log, "passes": 4.0}
        if not learner.step_by(gradients):
            return logits, log
        log = {**log, "updated": 1.0, "loss": there[still].mean().item()}
        return logits, {**log, "reset": float(_collapsed(learner, there.detach().mean(), sharpness.collapse))}

    return learn_through(batches, model, learner, step, reset_every)


@contextmanager
def _neighbour(learner: Learner, gradients: list[Tensor], rho: float) -> Iterator[None]:
    """Inside, the weights stand at w + rho g / |g|; afterwards exactly where they were."""
    weights = list(learner.live.values())
    before = [value.detach().clone() for value in weights]
    norm = torch.stack([one.norm() for one in gradients]).norm()
    with torch.no_grad():
        for value, one in zip(weights, gradients, strict=True):
            value += rho * one / (norm + 1e-12)
    try:
        yield
    finally:
        with torch.no_grad():
            for value, one in zip(weights, before, strict=True):
                value.copy_(one)


def _collapsed(learner: Learner, loss: Tensor, limit: float) -> bool:
    """Take the loss into its moving average, and reset where that has become too small to be true."""
    average = learner.memory.get("loss")
    learner.memory["loss"] = loss if average is None else 0.9 * average + 0.1 * loss
    if learner.memory["loss"] >= limit:
        return False
    learner.reset()
    return True


class Sar(TestTime[SarHyper]):
    """Sharpness-aware entropy minimisation on sure samples."""

    title = "SAR: sharpness-aware entropy minimisation on sure samples, reset at collapse"
    paper = "Niu et al., ICLR 2023, arXiv 2302.12400"
    Hyper = SarHyper
    presets = {"quick": {"source_epochs": 2}}

    def online(self, model: Model, batches: Mapping[str, Samples], before: Part | None) -> Handle:
        h = self.hyper
        return self.component(
            "online",
            minimise_sharpness,
            batches,
            source_of(model),
            before,
            how=h.descent,
            sharpness=h.sharpness,
            reset_every=h.batches_between_resets,
        )
