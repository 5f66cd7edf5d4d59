"""The strategies `vida`, `vida-static` and `vida-static+hka`: pairs warmed up on the source split, then scored with as
they are, under homeostatic allotment, or learnt at test time (see `strategies.vida`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from cl import Adaptation, Backbone, Handle, Model, Part, Samples, Seeds, Task, Tensors, Veiled, builds
from cl.adapters import pairs as pair
from cl.components.checkpoint import Checkpoint
from cl.data.samples import concat
from cl.errors import BadInput
from cl.learning.adaptation import Log, OnlineBatch, SourceModel, go_through, subset
from cl.learning.train import Batch, Optimisation, augmented, fit
from cl.models.backbone import batches as padded_batches
from cl.models.backbone import on_device, rows
from strategies.source import OnlineHyper, Source, TestTime, source_of, source_split
from strategies.vida.allotment import NEUTRAL, Allotment, Homeostasis, PairedModel
from strategies.vida.settings import PRESETS, VidaHyper
from strategies.vida.teaching import learn_from_teacher


@builds("adapter")
def warm_up(
    shards: list[Samples],
    source: dict[str, Tensors],
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    classes: list[str],
    shape: pair.PairShape,
    how: Optimisation,
) -> Tensors:
    """Pairs tuned on labelled source images beside the frozen source model, both factors 1."""
    samples, model = concat(shards), PairedModel(backbone, source)
    targets = samples.targets(classes).to(backbone.device)

    def loss(live: Tensors, batch: Batch) -> Tensor:
        pixels = backbone.pixels(augmented(samples, batch, seeds))
        return F.cross_entropy(model.logits(pixels, live, NEUTRAL), targets[batch.rows])

    start = on_device(pair.init(backbone, shape, seeds), backbone)
    return fit(start, loss, samples.ids, how, seeds, checkpoint)


@builds(prediction="prediction", evidence="evidence")
@torch.no_grad()
def static_scores(
    batches: dict[str, Samples],
    source: dict[str, Tensors],
    warm: Tensors,
    *,
    backbone: Backbone,
    seeds: Seeds,
    allotment: Allotment | None,
) -> dict[str, Tensors]:
    """The warmed pairs on a segment's batches, both factors 1, or as `allotment` weighs them by uncertainty."""
    model, pairs = PairedModel(backbone, source), on_device(warm, backbone)

    def step(batch: OnlineBatch) -> tuple[Tensor, Log]:
        if allotment is None:
            return model.logits(batch.pixels, pairs, NEUTRAL), {"passes": 1.0}
        homeostasis = Homeostasis(model, allotment, seeds)
        u = homeostasis.uncertainty(homeostasis.perturbed_logits(batch, pairs, NEUTRAL))
        factors = homeostasis.factors(u)
        log = {**homeostasis.log(u, factors), "passes": allotment.passes + 1.0}
        return model.logits(batch.pixels, pairs, factors), log

    return go_through(batches, model.source, step)


@builds("cache")
@torch.no_grad()
def scores_with_pairs(
    samples: Samples, source: dict[str, Tensors], weights: Tensors, *, backbone: Backbone, prefix: str
) -> Tensors:
    """Logits `(n, classes)` with both factors 1. weights: pairs, or a state that holds them under `prefix`."""
    model = PairedModel(backbone, source)
    chosen = on_device(subset(prefix, weights) if prefix else weights, backbone)
    padded = padded_batches(samples, "features")
    return {"scores": rows(backbone, padded, lambda raw: model.logits(backbone.pixels(raw), chosen, NEUTRAL))}


@builds("state")
def merged_weights(
    source: dict[str, Tensors], weights: Tensors, *, backbone: Backbone, prefix: str, low: float, high: float
) -> Tensors:
    """W' of every layer with a pair, and what else was learnt: plain weights of the backbone and its head."""
    model = SourceModel(backbone, source)
    chosen = on_device(subset(prefix, weights) if prefix else weights, backbone)
    others = {name: value for name, value in chosen.items() if not pair.is_pair(name)}
    whole = {**model.weights(), **others}
    return {name: value.cpu() for name, value in {**whole, **pair.merged(whole, chosen, low, high)}.items()}


class WarmedPairs(Source[VidaHyper]):
    """The source model with pairs that were warmed up beside it."""

    paper = "control of Liu et al., ICLR 2024, arXiv 2306.04344"
    Hyper: ClassVar[type[OnlineHyper]] = VidaHyper
    presets = PRESETS

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        entries, h = super().learn(task, model), self.hyper
        classes = list(dict.fromkeys([*model.classes, *task.classes]))
        shards, source = source_split(task, model), source_of(entries)
        warm = self.component("warm", warm_up, shards, source, classes=classes, shape=h.pairs, how=h.warming)
        return {**entries, "warm": warm}

    def pairs(self, model: Model) -> tuple[Part, str]:
        """The part that holds the pairs, and under which prefix."""
        return model["warm"].sole, ""

    def scores(self, model: Model, samples: Samples) -> Handle:
        part, prefix = self.pairs(model)
        return self.component("scores", scores_with_pairs, samples.plain, source_of(model), part, prefix=prefix)

    def exported(self, model: Model, low: float = 1.0, high: float = 1.0) -> Handle:
        """The model with its pairs merged into plain weights, for these factors: a component, tainted as they are."""
        part, prefix = self.pairs(model)
        return self.component("exported", merged_weights, source_of(model), part, prefix=prefix, low=low, high=high)


class VidaStatic(WarmedPairs):
    """The warmed pairs, not adapted, both factors 1: what `vida` has to beat."""

    title = "ViDA's warmed source model, not adapted: what a gain of vida is measured against"
    weighed: ClassVar[bool] = False

    def adapt(self, model: Model, segment: Veiled) -> Adaptation:
        # Without the rule its settings change nothing, so they are left out of the key.
        allotment = self.hyper.allotment if self.weighed else None
        reads = segment.batches, source_of(model), model["warm"]
        online = self.component("online", static_scores, *reads, allotment=allotment)
        return Adaptation(online["prediction"], {}, online["evidence"])


class VidaStaticHka(VidaStatic):
    """The warmed pairs under factors from the uncertainty of each batch, nothing learnt."""

    title = "ViDA's warmed source model with homeostatic allotment, nothing learnt at test time"
    weighed = True


class Vida(WarmedPairs, TestTime[VidaHyper]):
    """Homeostatic pairs of bottlenecks, learnt at test time from a moving average."""

    title = "ViDA: low- and high-rank adapters weighed by uncertainty, taught by their moving average"
    paper = "Liu et al., ICLR 2024, arXiv 2306.04344"

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        if self.hyper.scope == "sample" and self.hyper.views_lambda == "carried":
            raise BadInput("factors of single images fit no later batch; set views_lambda=neutral or scope=batch")
        return super().learn(task, model)

    def online(self, model: Model, batches: Mapping[str, Samples], before: Part | None) -> Handle:
        h, reads = self.hyper, (batches, source_of(model), model["warm"], before)
        return self.component("online", learn_from_teacher, *reads, allotment=h.allotment, teaching=h.teaching)

    def pairs(self, model: Model) -> tuple[Part, str]:
        return (model["online"]["state"], "memory/teacher") if "online" in model else super().pairs(model)
