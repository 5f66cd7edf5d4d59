"""EASE: expandable subspace ensemble.

Zhou, Sun, Ye, Zhan, "Expandable Subspace Ensemble for Pre-Trained Model-Based Class-Incremental Learning", CVPR 2024,
arXiv 2403.12030. Space j is the feature space under the adapter of task j; k = k(c) is the task of class c; t is the
newest of T tasks. Where paper and released code differ, options are named `paper` and `official`; defaults follow
the released code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.adapters.bottleneck import Shape
from cl.components.builder import builds
from cl.components.checkpoint import Checkpoint
from cl.components.handles import Handle
from cl.data.samples import Samples
from cl.data.stream import Task
from cl.errors import BadInput
from cl.home.store import Tensors
from cl.learning.hyper import AdapterTraining, hyperparameters, setting
from cl.learning.strategy import Model, PastTask, Strategy
from cl.learning.train import Batch, Optimisation, tune_adapter
from cl.models.backbone import Backbone
from cl.models.heads import cosine, uniform_rows
from cl.parts.prototypes import class_means
from cl.seeds import Seeds


@hyperparameters
class EaseHyper(AdapterTraining):
    """EASE's settings."""

    alpha: float = setting(0.1, "weight of the cosines in other tasks' spaces", "section 4.1", ge=0)
    beta: float = setting(0.0, "weight of the bare backbone's space; 0 leaves it out", "released presets", ge=0)
    reweight: Literal["official", "paper", "none"] = setting(
        "official",
        "weight of another space: alpha/(T-1) | alpha (Eq. 12) | one cosine over all spaces joined",
        "released code, Eq. 12",
    )
    complete: Literal["semantic", "diagonal", "ptm", "oracle"] = setting(
        "semantic",
        "prototypes of old classes in new spaces: synthesised | left out | synthesised by similarity in the bare "
        "backbone's space (not in the paper) | measured on old images (needs exemplars = true)",
        "Eqs. 8-10",
    )
    synthesis: Literal["recalc", "once"] = setting(
        "recalc",
        "sources of a synthesised prototype: all classes from task j on, anew each task | those of task j, kept",
        "released presets | section 3.3",
    )
    tau: float = setting(1.0, "temperature of the synthesis (other values are not in the paper)", "Eq. 8", gt=0)
    exemplars: bool = setting(False, "allow reading old tasks' images, for complete = oracle only", "ours")
    adapt: Literal["each", "first"] = setting(
        "each",
        "an adapter for each task, or for the first only (which is APER, not EASE)",
        "released OmniBenchmark preset",
    )
    optimizer: Literal["sgd", "adam"] = setting("sgd", "optimiser of the adapter", "section 4.1")
    shards: int = setting(
        1,
        "parts of a task, by hash of the sample id, each with an adapter of its own, so that a deletion trains one of "
        "them again; the task's space is theirs joined (not in the paper)",
        "Bourtoule et al., IEEE S&P 2021",
        ge=1,
        le=1000,
    )

    @property
    def optimisation(self) -> Optimisation:
        """With the chosen optimiser."""
        return replace(super().optimisation, optimizer=self.optimizer)


def _released(
    lr: float, epochs: int, batch_size: int, weight_decay: float, bottleneck: int, alpha: float, **more: object
) -> dict[str, object]:
    values = {"lr": lr, "epochs": epochs, "batch_size": batch_size, "weight_decay": weight_decay}
    return {**values, "bottleneck": bottleneck, "alpha": alpha, **more}


_OMNI = _released(0.01, 20, 16, 5e-4, 64, 1.0)

PRESETS = {
    "quick": {"epochs": 2},
    "official": {"reweight": "official", "synthesis": "recalc", "bottleneck": 64},
    "paper": {"reweight": "paper", "synthesis": "once", "bottleneck": 16, "alpha": 0.1, "lr": 0.01, "epochs": 20},
    # The released configurations (exps/*.json); IN1K and IN21K name the backbone's pretraining.
    "cifar100": _released(0.025, 20, 48, 5e-4, 64, 0.1),
    "cub_in1k": _released(0.005, 20, 16, 5e-4, 64, 0.005, beta=1.0),
    "cub_in21k": _released(0.008, 20, 32, 5e-4, 64, 0.05),
    "imagenet_r": _released(0.05, 20, 16, 5e-3, 64, 0.1),
    "imagenet_a": _released(0.05, 20, 32, 5e-3, 64, 0.1),
    "objectnet_in1k": _released(0.03, 20, 48, 5e-3, 64, 0.1, optimizer="adam"),
    "objectnet_in21k": _released(0.05, 25, 48, 5e-3, 64, 0.2),
    "omni_ease": _OMNI,  # true EASE on the released settings; no published figure
    "omni_official": {**_OMNI, "adapt": "first", "beta": 1.0, "reweight": "none", "complete": "diagonal"},
    "vtab": _released(0.03, 45, 16, 5e-3, 16, 0.1),
}

PRESET_NOTES = {
    "quick": "two epochs a task, to try things out",
    "official": "the released code: alpha/(T-1) for other spaces, sources from all tasks since, r = 64",
    "paper": "the paper's text: alpha for every other space (Eq. 12), sources from the space's own task, r = 16",
    "cifar100": "released settings; 20 tasks of 5 classes",
    "cub_in1k": "released settings for ImageNet-1k weights; 20 tasks of 10 classes, the bare backbone's space too",
    "cub_in21k": "released settings for ImageNet-21k weights; 20 tasks of 10 classes",
    "imagenet_r": "released settings; 10 tasks of 20 classes",
    "imagenet_a": "released settings; 10 tasks of 20 classes",
    "objectnet_in1k": "released settings for ImageNet-1k weights; 20 tasks of 10 classes, Adam",
    "objectnet_in21k": "released settings for ImageNet-21k weights; 20 tasks of 10 classes",
    "omni_ease": "true EASE on the released settings; no published figure",
    "omni_official": "what the released code runs on OmniBenchmark: one adapter, which is APER and not EASE",
    "vtab": "released settings; 5 tasks of 10 classes",
}


SHARDING = Seeds("ease")  # of no run: a sample stays in its shard whatever the run's seed


# Training: a fresh adapter and a throw-away cosine head on the task's own classes (section 3.2).


@builds("adapter")
def train_adapter(
    samples: Samples,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    classes: list[str],
    shape: Shape,
    how: Optimisation,
) -> Tensors:
    """The task's adapter. The head's logit is sigma * cos, sigma learned from 1 on; the head is thrown away."""
    head = {"rows": uniform_rows(classes, backbone.dim, seeds), "sigma": torch.ones(())}
    targets = samples.targets(classes).to(backbone.device)

    def loss(features: Tensor, live: Tensors, batch: Batch) -> Tensor:
        return F.cross_entropy(live["sigma"] * cosine(features, live["rows"]), targets[batch.rows])

    adapter, _ = tune_adapter(samples, None, head, loss, shape, how, backbone, seeds, checkpoint)
    return adapter


@builds("cache")
def join(features: list[Tensors]) -> Tensors:
    """One space `(n, d * shards)` of those under several adapters."""
    return {"features": torch.cat([each["features"] for each in features], dim=1)}


# Prototype complement (section 3.3): rows of task i in a space j that came later.


def mixing_weights(similarity: Tensor, tau: float) -> Tensor:
    """softmax over the sources of similarity / tau, row by row (Eq. 8; rows are the old classes)."""
    return torch.softmax(similarity / tau, dim=1)


@builds("cache")
def synthesise(own: Tensors, sources_own: list[Tensors], sources_new: list[Tensors], *, tau: float) -> Tensors:
    """phat[c, j] = sum over r of w[c, r] p[r, j], with w from cosines in the co-occurrence space (Eqs. 8-10).

    own: p[c, k] `(classes, d)`. sources_own, sources_new: p[r, k] and p[r, j] of the source tasks, in the same order.
    """
    here = torch.cat([mean["mean"] for mean in sources_own])
    there = torch.cat([mean["mean"] for mean in sources_new])
    return {"mean": mixing_weights(cosine(own["mean"], here), tau) @ there}


# Subspace ensemble (section 3.4): a class counts most in its own space.


@builds("cache")
def gather(prototypes: list[list[Tensors | None]]) -> Tensors:
    """Measured and synthesised prototypes in one place: "i/j" holds those of task i in space j, `(classes, d)`."""
    rows = ((i, j, mean) for i, row in enumerate(prototypes) for j, mean in enumerate(row) if mean is not None)
    return {f"{i}/{j}": mean["mean"] for i, j, mean in rows}


@builds("cache")
def ensemble_scores(
    spaces: list[Tensors],
    bare: Tensors | None,
    prototypes: Tensors,
    bare_prototypes: list[Tensors],
    *,
    own: list[int],
    alpha: float,
    beta: float,
    reweight: str,
) -> Tensors:
    """Scores `(n, classes)`, the classes of each task side by side.

    spaces[j]: features `(n, d)` in space j. prototypes: as `gather` names them, absent where there are none. own[i]:
    the space of task i. bare: features of the backbone, with bare_prototypes[i].
    """
    places = range(len(spaces))
    features = [space["features"] for space in spaces]
    table = [[prototypes.get(f"{i}/{j}") for j in places] for i in range(len(own))]
    other = other_weight(alpha, reweight, len(spaces))
    weights = [[1.0 if j == place else other for j in places] for place in own]
    if bare is not None:
        features.append(bare["features"])
        table = [[*row, mean["mean"]] for row, mean in zip(table, bare_prototypes, strict=True)]
        weights = [[*row, beta] for row in weights]
    return {
        "scores": joined_cosines(features, table) if reweight == "none" else weighted_cosines(features, table, weights)
    }


def other_weight(alpha: float, reweight: str, spaces: int) -> float:
    """Weight of a space that is not the class's own: alpha (Eq. 12) or, in the released code, alpha/(T-1)."""
    return alpha if reweight == "paper" else alpha / max(1, spaces - 1)


Table = Sequence[Sequence[Tensor | None]]  # [i][j]: prototypes of task i in space j, `(classes, d)`, if there are any


def weighted_cosines(features: Sequence[Tensor], table: Table, weights: Sequence[Sequence[float]]) -> Tensor:
    """Sum over the spaces of weights[i][j] x cosine (Eq. 12): 1 in the class's own, alpha in others, beta in the bare
    one. features[j]: `(n, d)`. One product a space, for the classes of all tasks."""
    sizes = [next(len(mean) for mean in row if mean is not None) for row in table]
    columns = torch.arange(sum(sizes)).split(sizes)
    scores = features[0].new_zeros(len(features[0]), sum(sizes))
    for j, here in enumerate(features):
        held = [(i, mean) for i, row in enumerate(table) if (mean := row[j]) is not None and weights[i][j]]
        if not held:
            continue
        rows = torch.cat([mean for _, mean in held])
        weight = torch.cat([torch.full((len(mean),), weights[i][j]) for i, mean in held])
        scores[:, torch.cat([columns[i] for i, _ in held])] += weight * cosine(here, rows)
    return scores


def joined_cosines(features: Sequence[Tensor], table: Table) -> Tensor:
    """One cosine over all spaces' vectors joined (Eq. 11, without reweighting)."""
    return torch.cat([_joined_cosine(features, row) for row in table], dim=1)


def _joined_cosine(features: Sequence[Tensor], row: Sequence[Tensor | None]) -> Tensor:
    held = [(here, mean) for here, mean in zip(features, row, strict=True) if mean is not None]
    return cosine(torch.cat([here for here, _ in held], dim=1), torch.cat([mean for _, mean in held], dim=1))


class Ease(Strategy):
    """An adapter for each task; prototypes in every space, old ones synthesised in new spaces."""

    title = "EASE: an adapter for each task, an ensemble of their subspaces"
    paper = "Zhou et al., CVPR 2024, arXiv 2403.12030"
    Hyper = EaseHyper
    presets = PRESETS
    preset_notes = PRESET_NOTES
    _found: tuple[Model, Handle] | None = None

    @property
    def rehearsal(self) -> bool:  # type: ignore[override]
        return bool(self.hyper.exemplars)

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        self._check(task, model)
        spaces = self._spaces(model)
        entries: dict[str, Handle] = {}
        if self.hyper.adapt == "each" or not spaces:
            entries |= self._adapters(task)
            spaces = [*spaces, task.id]
        features = self._features(task.train.plain, {**model.entries, **entries}, spaces)
        for space, there in zip(spaces, features, strict=True):
            entries[f"{task.id}/prototypes/{space}"] = self._prototypes(task, there)
        if self._bare:
            entries[f"{task.id}/prototypes/bare"] = self._prototypes(task, self.features(task.train.plain))
        return {**entries, **self._measured(task, model, entries)}

    def _measured(self, task: Task, model: Model, entries: Mapping[str, Handle]) -> dict[str, Handle]:
        """With `complete = oracle`, prototypes of the old classes in the space that the task adds, if it adds one."""
        if self.hyper.complete != "oracle" or not self._in_space(entries, task.id):
            return {}
        return {
            f"{past.id}/measured/{task.id}": self._prototypes(
                past, self._features(past.train.plain, entries, [task.id])[0]
            )
            for past in model.tasks
        }

    def scores(self, model: Model, samples: Samples) -> Handle:
        spaces = self._spaces(model)
        features = self._features(samples, model.entries, spaces)
        own = [self._own(model, task, spaces) for task in model.tasks]
        bare = self.features(samples) if self.hyper.beta > 0 else None
        bare_prototypes = [model[f"{task.id}/prototypes/bare"] for task in model.tasks] if bare else []
        return self.component(
            "scores",
            ensemble_scores,
            features,
            bare,
            self._gathered(model),
            bare_prototypes,
            own=own,
            alpha=self.hyper.alpha,
            beta=self.hyper.beta,
            reweight=self.hyper.reweight,
        )

    def _gathered(self, model: Model) -> Handle:
        """The prototypes of all tasks in all spaces. Every test shard asks for them, so they are found once a model."""
        if self._found is None or self._found[0] is not model:
            spaces = self._spaces(model)
            table = [[self._prototype(model, task, j, spaces) for j in range(len(spaces))] for task in model.tasks]
            self._found = model, self.component("prototypes gathered", gather, table)
        return self._found[1]

    @property
    def _bare(self) -> bool:
        """Whether prototypes in the bare backbone's space are needed."""
        return bool(self.hyper.beta > 0 or self.hyper.complete == "ptm")

    def _adapters(self, task: Task) -> dict[str, Handle]:
        """The task's adapter, or one for each of its shards that holds any image."""
        if self.hyper.shards == 1:
            return {f"{task.id}/adapter": self._adapter(f"{task.id}/adapter", task, task.train)}
        shards: dict[int, list[str]] = {}
        for sample in task.train.ids:
            shards.setdefault(SHARDING.integer("shard", sample) % self.hyper.shards, []).append(sample)
        names = {f"{task.id}/adapter/{shard}": ids for shard, ids in sorted(shards.items())}
        return {name: self._adapter(name, task, task.train.keep(ids)) for name, ids in names.items()}

    def _adapter(self, name: str, task: Task, images: Samples) -> Handle:
        h = self.hyper
        return self.component(
            name,
            train_adapter,
            images,
            classes=list(task.classes),
            shape=h.shape,
            how=h.optimisation,
        )

    def _in_space(self, entries: Mapping[str, Handle], space: str) -> list[Handle]:
        """The adapters of a space: that of its task, or those of the task's shards."""
        names = [f"{space}/adapter", *(f"{space}/adapter/{shard}" for shard in range(self.hyper.shards))]
        return [entries[name] for name in names if name in entries]

    def _features(self, images: Samples, entries: Mapping[str, Handle], spaces: list[str]) -> list[Handle]:
        """Features of the images in each of the spaces."""
        adapters = [self._in_space(entries, space) for space in spaces]
        found = iter(self.features_under(images, [one for several in adapters for one in several], self.hyper.scale))
        each = [[next(found) for _ in several] for several in adapters]
        return [own[0] if len(own) == 1 else self.component("features", join, own) for own in each]

    def _prototypes(self, task: Task | PastTask, features: Handle) -> Handle:
        """True prototypes: means of the task's own images, in evaluation mode."""
        return self.component("prototypes", class_means, task.train.plain, features, classes=list(task.classes))

    def _spaces(self, model: Model) -> list[str]:
        """The tasks that have an adapter, oldest first."""
        return [task.id for task in model.tasks if self._in_space(model.entries, task.id)]

    def _own(self, model: Model, task: PastTask, spaces: list[str]) -> int:
        """The newest space in which the task's prototypes are measured: its own, or the only one."""
        return max(place for place, space in enumerate(spaces) if f"{task.id}/prototypes/{space}" in model)

    def _prototype(self, model: Model, task: PastTask, place: int, spaces: list[str]) -> Handle | None:
        """Prototypes of `task` in the space at `place`: measured, synthesised or none."""
        space = spaces[place]
        if f"{task.id}/prototypes/{space}" in model:
            diagonal = self.hyper.complete == "diagonal" and self.hyper.adapt == "each"
            return None if diagonal and space != task.id else model[f"{task.id}/prototypes/{space}"]
        if self.hyper.complete == "diagonal":
            return None
        if self.hyper.complete == "oracle":
            return model[f"{task.id}/measured/{space}"]
        sources = spaces[place:] if self.hyper.synthesis == "recalc" else [space]
        similar = "bare" if self.hyper.complete == "ptm" else task.id
        return self.component(
            f"{task.id}/synthesised/{space}",
            synthesise,
            model[f"{task.id}/prototypes/{similar}"],
            [model[f"{source}/prototypes/{similar}"] for source in sources],
            [model[f"{source}/prototypes/{space}"] for source in sources],
            tau=self.hyper.tau,
        )

    def _check(self, task: Task, model: Model) -> None:
        if self.hyper.complete == "oracle" and not self.hyper.exemplars:
            raise BadInput("complete = oracle reads old tasks' images; allow it with --set exemplars=true")
        self.require_new_classes(task, model)
