"""SAR: sharpness-aware entropy minimisation on the sure samples.

Niu, Wu, Zhang, Wen, Chen, Zhao, Tan, "Towards Stable Test-Time Adaptation in Dynamic Wild World", ICLR 2023,
arXiv 2302.12400. Of a batch the samples with H(x) < E_0 = margin ln C are kept; their mean entropy is made small and
flat: the weights are moved by rho g / |g|, samples that are still sure there give the gradient, and the step is taken
from where the weights were. Norm layers of the last quarter of the blocks and the final norm stay as they are. When the
moving average of the loss falls below `collapse`, everything is reset.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cl.components.builder import builds
from cl.data.samples import Samples
from cl.home.store import Tensors
from cl.learning.adaptation import Batch, Descent, Learner, Log, SourceModel, entropy, learn_through, norm_names
from cl.learning.hyper import hyperparameters, setting
from cl.models.backbone import Backbone
from strategies.source import TestTime
from strategies.tent import EntropyHyper


@hyperparameters
class SarHyper(EntropyHyper):
    """SAR's settings."""

    margin: float = setting(0.4, "E_0 as a share of ln C", "SAR, released code", ge=0)
    rho: float = setting(0.05, "radius of the neighbourhood", "SAR, released code", ge=0)
    depth: float = setting(0.75, "share of the blocks whose norms are learnt; 1: all, the final norm too", "SAR", gt=0)
    collapse: float = setting(0.2, "moving average of the loss below which all is reset", "SAR, released code", ge=0)


@builds(state="state", prediction="prediction", evidence="evidence")
def sharpness_aware(
    batches: dict[str, Samples],
    source: dict[str, Tensors],
    before: Tensors | None,
    *,
    backbone: Backbone,
    how: Descent,
    margin: float,
    rho: float,
    depth: float,
    collapse: float,
    reset_every: int,
) -> dict[str, Tensors]:
    """The segment's batches, each scored and then, where it holds sure samples, learnt from."""
    model = SourceModel(backbone, source)
    learner = Learner(model.weights(norm_names(backbone, depth)), how, before)
    limit = margin * math.log(model.classes)

    def step(batch: Batch) -> tuple[Tensor, Log]:
        logits = model.batch_logits(batch.pixels, learner.live)
        h = entropy(logits)
        sure = h < limit
        log = {"kept": sure.double().mean().item(), "passes": 6.0}
        if not sure.any():
            return logits, {**log, "passes": 1.0}
        with _moved(learner, learner.gradients(h[sure].mean()), rho):
            there = entropy(model.batch_logits(batch.pixels, learner.live))[sure]
            still = there < limit
            gradients = learner.gradients(there[still].mean()) if still.any() else []
        if not gradients:
            return logits, {**log, "passes": 4.0}
        if not learner.step_by(gradients):
            return logits, log
        log = {**log, "updated": 1.0, "loss": there[still].mean().item()}
        return logits, {**log, "reset": float(_collapsed(learner, there.detach().mean(), collapse))}

    return learn_through(batches, model, learner, step, reset_every)


class _moved:
    """Inside, the weights stand at w + rho g / |g|; afterwards exactly where they were."""

    def __init__(self, learner: Learner, gradients: list[Tensor], rho: float) -> None:
        self._weights = list(learner.live.values())
        norm = torch.stack([one.norm() for one in gradients]).norm()
        self._offsets = [rho * one / (norm + 1e-12) for one in gradients]

    @torch.no_grad()
    def __enter__(self) -> None:
        self._before = [value.clone() for value in self._weights]
        for value, offset in zip(self._weights, self._offsets, strict=True):
            value += offset

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        for value, before in zip(self._weights, self._before, strict=True):
            value.copy_(before)


def _collapsed(learner: Learner, loss: Tensor, limit: float) -> bool:
    """Take the loss into its moving average, and reset where that has become too small to be true."""
    average = learner.memory.get("loss")
    learner.memory["loss"] = loss if average is None else 0.9 * average + 0.1 * loss
    if learner.memory["loss"] >= limit:
        return False
    learner.reset()
    return True


class Sar(TestTime):
    """Sharpness-aware entropy minimisation on sure samples."""

    title = "SAR: sharpness-aware entropy minimisation on sure samples, reset at collapse"
    paper = "Niu et al., ICLR 2023, arXiv 2302.12400"
    Hyper = SarHyper
    presets = {"quick": {"source_epochs": 2}}
    build = sharpness_aware
    arguments = ("margin", "rho", "depth", "collapse")
