"""Homeostatic knowledge allotment of ViDA: how uncertain a batch is, and how its pairs of bottlenecks are weighed.

u is how far the outputs differ between `passes` perturbed passes. Where u >= threshold, l_high = 1 + u and
l_low = 1 - u; elsewhere l_high = 1 - u and l_low = 1 + u. See `strategies.vida`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from cl.adapters import pairs as pair
from cl.data.views import views
from cl.home.store import Tensors
from cl.learning.adaptation import Batch, Log, SourceModel, Weights
from cl.learning.hyper import hyperparameters, setting
from cl.models.backbone import Backbone
from cl.seeds import Seeds

Factors = tuple[pair.Factor, pair.Factor]  # l_low, l_high
NEUTRAL: Factors = (1.0, 1.0)


@hyperparameters
class Allotment:
    """How uncertainty is measured, and what follows from it; sources name the specification's reading."""

    uncertainty: Literal["views", "mc_dropout"] = setting("views", "what perturbs the teacher", "released code")
    space: Literal["logits", "probs"] = setting(
        "logits", "variance of the logits, or distance of the probabilities to their mean", "released code"
    )
    scope: Literal["batch", "sample"] = setting("batch", "one u for the batch, or one for each image", "released code")
    passes: int = setting(10, "perturbed passes", "released code", ge=2)
    scale: float = setting(0.1, "factor of u", "released code", gt=0)
    threshold: float = setting(0.05, "u from which the wide branch is favoured", "released code, CIFAR", ge=0)
    clip: bool = setting(True, "keep the factors between 0 and 2", "ours")
    invert: bool = setting(False, "favour the other branch: the paper's ablation", "paper")
    dropout: float = setting(0.1, "on the hidden vectors, with uncertainty = mc_dropout", "ours", gt=0, lt=1)
    view_draw: Literal["sample", "batch"] = setting("sample", "each image draws its views, or the batch", "ours")
    lambda_apply: Literal["both", "low_only"] = setting("both", "branches that get their factor", "paper")
    chunk: int = setting(400, "images that run as one stack", "ours", ge=1)


class Network:
    """The source model with pairs beside its layers."""

    def __init__(self, backbone: Backbone, source: Mapping[str, Tensors]) -> None:
        self.model = SourceModel(backbone, source)
        self._weights = self.model.weights()

    def logits(self, pixels: Tensor, weights: Weights, factors: Factors, keep: Tensors | None = None) -> Tensor:
        """Logits under `weights`, pairs and whatever else is learnt. Constant factors are merged into the weights."""
        low, high = factors
        others = {name: value for name, value in weights.items() if not pair.is_pair(name)}
        pairs = {name: value for name, value in weights.items() if pair.is_pair(name)}
        if keep is None and not isinstance(low, Tensor):
            return self.model.logits(pixels, {**others, **pair.merged({**self._weights, **others}, pairs, low, high)})
        with pair.attached(self.model.backbone, pairs, low, high, keep):
            return self.model.logits(pixels, others)


class Homeostasis:
    """Uncertainty of a batch and the factors that follow from it."""

    def __init__(self, network: Network, h: Allotment, seeds: Seeds) -> None:
        self.network, self._h, self._seeds = network, h, seeds

    @torch.no_grad()
    def perturbed(self, batch: Batch, teacher: Weights, factors: Factors) -> Tensor:
        """The teacher's logits in every pass, `(passes, n, classes)`, in stacks of `chunk` images."""
        h, count = self._h, self._h.passes
        if h.uncertainty == "views":
            pixels, masks = self.views(batch, count), None
        else:
            pixels, masks = batch.pixels.repeat(count, 1, 1, 1), self._masks(batch, teacher)
        found = []
        for start in range(0, len(pixels), h.chunk):
            part = slice(start, start + h.chunk)
            keep = None if masks is None else {name: mask[part] for name, mask in masks.items()}
            chosen = tuple(_repeated(one, count)[part] if isinstance(one, Tensor) else one for one in factors)
            found.append(self.network.logits(pixels[part], teacher, (chosen[0], chosen[1]), keep))
        return torch.cat(found).unflatten(0, (count, -1))

    def views(self, batch: Batch, count: int) -> Tensor:
        shared = batch.key if self._h.view_draw == "batch" else None
        return views(batch.pixels, batch.ids, count, self._seeds, shared)

    def _masks(self, batch: Batch, teacher: Weights) -> Tensors:
        """Dropout on every hidden vector, one draw for each (image, pass), the same at all tokens."""
        h = self._h
        names = [f"{site}.{branch}" for site in pair.sites(teacher) for branch in pair.BRANCHES]
        widths = [len(teacher[f"{name}.down"]) for name in names]
        draws = self._seeds.uniform(batch.ids, (h.passes, sum(widths)), "dropout").transpose(0, 1).flatten(0, 1)
        keep = (draws >= h.dropout).float().to(batch.pixels.device) / (1 - h.dropout)
        return {name: part[:, None] for name, part in zip(names, keep.split(widths, 1), strict=True)}

    def uncertainty(self, outputs: Tensor) -> Tensor:
        """u of each image `(n,)`, or of the batch `()`: of logits their variance over passes, mean over classes; of
        probabilities the root of their mean squared distance to their mean."""
        if self._h.space == "logits":
            spread = outputs.var(0).mean(1)
        else:
            p = outputs.softmax(2)
            spread = (p - p.mean(0)).square().sum(2).mean(0).sqrt()
        u = self._h.scale * spread
        return u.mean() if self._h.scope == "batch" else u

    def factors(self, u: Tensor) -> Factors:
        """l_low and l_high: numbers for a batch, `(n, 1, 1)` for single images."""
        wide = (u >= self._h.threshold) != self._h.invert
        high = torch.where(wide, 1 + u, 1 - u)
        low = torch.where(wide, 1 - u, 1 + u)
        if self._h.clip:
            low, high = low.clamp(0, 2), high.clamp(0, 2)
        if self._h.lambda_apply == "low_only":
            high = torch.ones_like(high)
        return (low.item(), high.item()) if u.ndim == 0 else (low[:, None, None], high[:, None, None])


def _repeated(factor: Tensor, count: int) -> Tensor:
    return factor.repeat(count, 1, 1)


def told(u: Tensor, factors: Factors, threshold: float) -> Log:
    """What is recorded of a batch: means of u and of the factors, and the share of images above the threshold."""
    low, high = (float(torch.as_tensor(one).mean()) for one in factors)
    above = (u >= threshold).double().mean().item()
    return {"uncertainty": u.mean().item(), "above": above, "lambda_low": low, "lambda_high": high}
