"""Homeostatic knowledge allotment of ViDA: how uncertain a batch is, and how its pairs of bottlenecks are weighed.

u is how far the outputs differ between `passes` perturbed passes. Where u >= threshold, l_high = 1 + u and
l_low = 1 - u; elsewhere l_high = 1 - u and l_low = 1 + u: steps 1 and 2 of `strategies.vida`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cl import Backbone, Seeds, Tensors
from cl.adapters import pairs as pair
from cl.data.test_time_augmentation import augmentations
from cl.learning.adaptation import Log, OnlineBatch, SourceModel

Factors = tuple[pair.Factor, pair.Factor]  # l_low, l_high
NEUTRAL: Factors = (1.0, 1.0)


@dataclass(frozen=True)
class Allotment:
    """How uncertainty is measured, and what follows from it.

    uncertainty: what perturbs the passes: augmentation, or dropout with probability `dropout` on the hidden vectors.
    space: variance of the logits, or distance of the probabilities to their mean; u is `scale` times it. scope: one u
    for the batch, or one an image. clip: keep factors in 0 to 2. invert: favour the other branch. shared_draw: one
    draw of the augmentation for the batch. low_only: l_high stays 1. chunk: images that run as one stack.
    """

    uncertainty: Literal["views", "mc_dropout"]
    space: Literal["logits", "probs"]
    scope: Literal["batch", "sample"]
    passes: int
    scale: float
    threshold: float
    clip: bool
    invert: bool
    dropout: float
    shared_draw: bool
    low_only: bool
    chunk: int


class PairedModel:
    """The source model with pairs beside its layers."""

    def __init__(self, backbone: Backbone, source: Mapping[str, Tensors]) -> None:
        self.source = SourceModel(backbone, source)
        self._weights = self.source.weights()

    def logits(self, pixels: Tensor, weights: Tensors, factors: Factors, keep: Tensors | None = None) -> Tensor:
        """Logits `(n, classes)` under `weights`, pairs and whatever else is learnt; keep: see `pairs.attached`.
        Constant factors are merged into the weights."""
        low, high = factors
        others = {name: value for name, value in weights.items() if not pair.is_pair(name)}
        pairs = {name: value for name, value in weights.items() if pair.is_pair(name)}
        if keep is None and not isinstance(low, Tensor):
            return self.source.logits(pixels, {**others, **pair.merged({**self._weights, **others}, pairs, low, high)})
        with pair.attached(self.source.backbone, pairs, low, high, keep):
            return self.source.logits(pixels, others)


class Homeostasis:
    """Uncertainty of a batch and the factors that follow from it."""

    def __init__(self, model: PairedModel, how: Allotment, seeds: Seeds) -> None:
        self._model, self._how, self._seeds = model, how, seeds

    @torch.no_grad()
    def perturbed_logits(self, batch: OnlineBatch, teacher: Tensors, factors: Factors) -> Tensor:
        """The teacher's logits in every pass, `(passes, n, classes)`, in stacks of `chunk` images."""
        count, chunk = self._how.passes, self._how.chunk
        if self._how.uncertainty == "views":
            pixels, masks = self.augmented(batch, count), None
        else:
            pixels, masks = batch.pixels.repeat(count, 1, 1, 1), self._masks(batch, teacher)
        stacks = []  # pixels: (passes * n, 3, side, side)
        for start in range(0, len(pixels), chunk):
            rows = slice(start, start + chunk)
            keep = None if masks is None else {name: mask[rows] for name, mask in masks.items()}
            low, high = (one.repeat(count, 1, 1)[rows] if isinstance(one, Tensor) else one for one in factors)
            stacks.append(self._model.logits(pixels[rows], teacher, (low, high), keep))
        logits: Tensor = torch.cat(stacks).unflatten(0, (count, -1))
        return logits

    def augmented(self, batch: OnlineBatch, count: int) -> Tensor:
        """The batch under test-time augmentation, `count` times: `(count * n, 3, side, side)`."""
        shared = batch.key if self._how.shared_draw else None
        return augmentations(batch.pixels, batch.ids, count, self._seeds, shared)

    def _masks(self, batch: OnlineBatch, teacher: Tensors) -> Tensors:
        """Dropout on every hidden vector, one draw for each (image, pass), the same at all tokens."""
        how = self._how
        names = [f"{site}.{branch}" for site in pair.sites(teacher) for branch in pair.BRANCHES]
        widths = [len(teacher[f"{name}.down"]) for name in names]
        draws = self._seeds.uniform(batch.ids, (how.passes, sum(widths)), "dropout")  # (n, passes, widths)
        draws = draws.transpose(0, 1).flatten(0, 1)  # (passes * n, widths)
        keep = (draws >= how.dropout).float().to(batch.pixels.device) / (1 - how.dropout)
        return {name: part[:, None] for name, part in zip(names, keep.split(widths, 1), strict=True)}

    def uncertainty(self, outputs: Tensor) -> Tensor:
        """u of each image `(n,)`, or of the batch `()`: of logits their variance over passes, mean over classes; of
        probabilities the root of their mean squared distance to their mean."""
        if self._how.space == "logits":
            spread = outputs.var(0).mean(1)  # (n,)
        else:
            p = outputs.softmax(2)  # (passes, n, classes)
            spread = (p - p.mean(0)).square().sum(2).mean(0).sqrt()
        u = self._how.scale * spread
        return u.mean() if self._how.scope == "batch" else u

    def factors(self, u: Tensor) -> Factors:
        """l_low and l_high: numbers for a batch, `(n, 1, 1)` for single images."""
        wide = (u >= self._how.threshold) != self._how.invert
        high = torch.where(wide, 1 + u, 1 - u)
        low = torch.where(wide, 1 - u, 1 + u)
        if self._how.clip:
            low, high = low.clamp(0, 2), high.clamp(0, 2)
        if self._how.low_only:
            high = torch.ones_like(high)
        return (low.item(), high.item()) if u.ndim == 0 else (low[:, None, None], high[:, None, None])

    def log(self, u: Tensor, factors: Factors) -> Log:
        """What is recorded of a batch: means of u and of the factors, and the share of images above the threshold."""
        low, high = (float(torch.as_tensor(one).mean()) for one in factors)
        above = (u >= self._how.threshold).double().mean().item()
        return {"uncertainty": u.mean().item(), "above": above, "lambda_low": low, "lambda_high": high}
