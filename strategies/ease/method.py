"""EASE: expandable subspace ensemble.

Zhou, Sun, Ye, Zhan, "Expandable Subspace Ensemble for Pre-Trained Model-Based Class-Incremental Learning", CVPR 2024,
arXiv 2403.12030. Space j is the feature space f_j under the adapter of task j; k = k(c) is the task of class c; t is
the newest of T tasks. A class's prototype p[c,j] is the mean of its features in space j, measured while its images are
at hand (j <= k), later synthesised from the classes r of newer tasks (section 3.3, Eqs. 8-10):

    p^[c,j] = sum_r w[c,r] p[r,j],    w[c,.] = softmax_r cos(p[c,k], p[r,k])        for j > k

A class counts most in its own space (section 3.4, Eq. 12; P is p or p^):

    score(c | x) = cos(f_k(x), p[c,k]) + alpha sum_{j != k} cos(f_j(x), P[c,j])

Where paper and released code differ, options are named `paper` and `official`; defaults follow the released code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cl import (
    AdapterTraining,
    Backbone,
    Checkpoint,
    Handle,
    Model,
    Optimisation,
    PastTask,
    Samples,
    Seeds,
    Strategy,
    Task,
    Tensors,
    Tuner,
    Tuning,
    builds,
    class_means,
    cosine,
    hyperparameters,
    setting,
)
from cl.learning.train import Batch
from cl.models.heads import uniform_rows
from strategies.ease.presets import EASE_PRESETS


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


# Training: a fresh adapter and a throw-away cosine head on the task's own classes (section 3.2).


@builds("adapter")
def train_adapter(
    samples: Samples,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    classes: list[str],
    tuning: Tuning,
) -> Tensors:
    """The task's adapter. The head's logit is sigma * cos, sigma learned from 1 on; the head is thrown away."""
    head = {"rows": uniform_rows(classes, backbone.dim, seeds), "sigma": torch.ones(())}
    targets = samples.targets(classes).to(backbone.device)

    def loss(features: Tensor, live: Tensors, batch: Batch) -> Tensor:
        return F.cross_entropy(live["sigma"] * cosine(features, live["rows"]), targets[batch.rows])

    adapter, _ = Tuner(samples, tuning, backbone, seeds).tune(None, head, loss, checkpoint)
    return adapter


# Prototype complement (section 3.3): rows of task i in a space j that came later.


def mixing_weights(similarity: Tensor, tau: float) -> Tensor:
    """softmax over the sources of similarity / tau, row by row (Eq. 8; rows are the old classes)."""
    return torch.softmax(similarity / tau, dim=1)


@builds("cache")
def synthesise(own: Tensors, sources_own: list[Tensors], sources_new: list[Tensors], *, tau: float) -> Tensors:
    """phat[c, j] = sum over r of w[c, r] p[r, j], with w from cosines in the co-occurrence space (Eqs. 8-10).

    own: p[c, k] `(classes, d)`. sources_own, sources_new: p[r, k] and p[r, j] of the source tasks, in the same order.
    """
    here = torch.cat([mean["mean"] for mean in sources_own])  # (sources, d), as there
    there = torch.cat([mean["mean"] for mean in sources_new])
    weights = mixing_weights(cosine(own["mean"], here), tau)  # (classes, sources)
    return {"mean": weights @ there}  # (classes, d)


# Subspace ensemble (section 3.4): a class counts most in its own space.


@builds("cache")
def gather(prototypes: list[list[Tensors | None]]) -> Tensors:
    """Measured and synthesised prototypes in one place: "i/j" holds those of task i in space j, `(classes, d)`."""
    rows = ((i, j, mean) for i, row in enumerate(prototypes) for j, mean in enumerate(row) if mean is not None)
    return {f"{i}/{j}": mean["mean"] for i, j, mean in rows}


@dataclass(frozen=True)
class Weighting:
    """What a cosine counts: 1 in the class's own space, beta in the bare backbone's, alpha in others as `reweight`
    reads it."""

    alpha: float
    beta: float
    reweight: str

    def elsewhere(self, spaces: int) -> float:
        """The weight in another of so many spaces: alpha (Eq. 12) or, in the released code, alpha/(T-1)."""
        return self.alpha if self.reweight == "paper" else self.alpha / max(1, spaces - 1)


@builds("cache")
def ensemble_scores(
    spaces: list[Tensors],
    bare: Tensors | None,
    prototypes: Tensors,
    bare_prototypes: list[Tensors],
    *,
    own: list[int],
    weighting: Weighting,
) -> Tensors:
    """Scores `(n, classes)`, the classes of each task side by side.

    spaces[j]: features `(n, d)` in space j. prototypes: as `gather` names them, absent where there are none. own[i]:
    the space of task i. bare: features of the backbone, with bare_prototypes[i].
    """
    places = range(len(spaces))
    features = [space["features"] for space in spaces]
    table = [[prototypes.get(f"{i}/{j}") for j in places] for i in range(len(own))]
    other = weighting.elsewhere(len(spaces))
    weights = [[1.0 if j == place else other for j in places] for place in own]
    if bare is not None:
        features.append(bare["features"])
        table = [[*row, mean["mean"]] for row, mean in zip(table, bare_prototypes, strict=True)]
        weights = [[*row, weighting.beta] for row in weights]
    joined = weighting.reweight == "none"
    return {"scores": joined_cosines(features, table) if joined else weighted_cosines(features, table, weights)}


Prototypes = Sequence[Sequence[Tensor | None]]  # [i][j]: those of task i in space j, `(classes, d)`, if there are any


def weighted_cosines(features: Sequence[Tensor], table: Prototypes, weights: Sequence[Sequence[float]]) -> Tensor:
    """Sum over the spaces of weights[i][j] x cosine (Eq. 12): 1 in the class's own, alpha in others, beta in the bare
    one. features[j]: `(n, d)`. One product a space, for the classes of all tasks."""
    sizes = [next(len(mean) for mean in row if mean is not None) for row in table]
    columns = torch.arange(sum(sizes)).split(sizes)
    scores = features[0].new_zeros(len(features[0]), sum(sizes))
    for j, here in enumerate(features):
        present = [(i, mean) for i, row in enumerate(table) if (mean := row[j]) is not None and weights[i][j]]
        if not present:
            continue
        rows = torch.cat([mean for _, mean in present])  # (classes here, d)
        weight = torch.cat([torch.full((len(mean),), weights[i][j]) for i, mean in present])
        scores[:, torch.cat([columns[i] for i, _ in present])] += weight * cosine(here, rows)
    return scores


def joined_cosines(features: Sequence[Tensor], table: Prototypes) -> Tensor:
    """One cosine over all spaces' vectors joined (Eq. 11, without reweighting)."""
    return torch.cat([_joined_cosine(features, row) for row in table], dim=1)


def _joined_cosine(features: Sequence[Tensor], row: Sequence[Tensor | None]) -> Tensor:
    present = [(here, mean) for here, mean in zip(features, row, strict=True) if mean is not None]
    joined = torch.cat([here for here, _ in present], dim=1)  # (n, spaces d)
    return cosine(joined, torch.cat([mean for _, mean in present], dim=1))


class PaperEase(Strategy[EaseHyper]):
    """The method itself; what options add that are not in the paper, `strategies.ease.variants` overrides."""

    title = "EASE: an adapter for each task, an ensemble of their subspaces"
    paper = "Zhou et al., CVPR 2024, arXiv 2403.12030"
    Hyper = EaseHyper
    presets = {name: values for name, (values, _) in EASE_PRESETS.items()}
    preset_notes = {name: note for name, (_, note) in EASE_PRESETS.items()}

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        self.require_new_classes(task, model)
        entries = self._adapters(task, model)
        known = {**model.entries, **entries}
        spaces = self._spaces(known, [*(past.id for past in model.tasks), task.id])
        features = self._features(task.train.plain, known, spaces)
        for space, there in zip(spaces, features, strict=True):
            entries[f"{task.id}/prototypes/{space}"] = self._true_prototypes(task, there)
        if self._bare:
            entries[f"{task.id}/prototypes/bare"] = self._true_prototypes(task, self.features(task.train.plain))
        return entries

    def scores(self, model: Model, samples: Samples) -> Handle:
        h, spaces = self.hyper, self._spaces_of(model)
        bare = h.beta > 0
        return self.component(
            "scores",
            ensemble_scores,
            self._features(samples, model.entries, spaces),
            self.features(samples) if bare else None,
            model.once(self._all_prototypes),
            [model[f"{task.id}/prototypes/bare"] for task in model.tasks] if bare else [],
            own=[self._own(model, task, spaces) for task in model.tasks],
            weighting=Weighting(h.alpha, h.beta, h.reweight),
        )

    def _adapters(self, task: Task, model: Model) -> dict[str, Handle]:
        """What the task is trained to: its adapter."""
        return {f"{task.id}/adapter": self._adapter(f"{task.id}/adapter", task, task.train)}

    def _adapter(self, name: str, task: Task, images: Samples) -> Handle:
        return self.component(name, train_adapter, images, classes=list(task.classes), tuning=self.hyper.tuning)

    def _features(self, images: Samples, entries: Mapping[str, Handle], spaces: list[str]) -> list[Handle]:
        """Features of the images in each of the spaces."""
        return self.features_under(images, [entries[f"{space}/adapter"] for space in spaces], self.hyper.scale)

    def _true_prototypes(self, task: Task | PastTask, features: Handle) -> Handle:
        """True prototypes: means of the task's own images, in evaluation mode."""
        return self.component("prototypes", class_means, task.train.plain, features, classes=list(task.classes))

    def _spaces(self, entries: Mapping[str, Handle], tasks: Sequence[str]) -> list[str]:
        """Those of the tasks that have a space of their own, oldest first."""
        return list(tasks)

    def _spaces_of(self, model: Model) -> list[str]:
        return self._spaces(model.entries, [task.id for task in model.tasks])

    def _own(self, model: Model, task: PastTask, spaces: list[str]) -> int:
        """The place of the task's own space."""
        return spaces.index(task.id)

    @property
    def _bare(self) -> bool:
        """Whether prototypes in the bare backbone's space are needed."""
        return self.hyper.beta > 0

    def _all_prototypes(self, model: Model) -> Handle:
        """The prototypes of all tasks in all spaces."""
        spaces = self._spaces_of(model)
        table = [[self._prototype(model, task, j, spaces) for j in range(len(spaces))] for task in model.tasks]
        return self.component("prototypes gathered", gather, table)

    def _prototype(self, model: Model, task: PastTask, place: int, spaces: list[str]) -> Handle | None:
        """Prototypes of `task` in the space at `place`, measured or synthesised; None where a variant has none."""
        space, similar = spaces[place], self._comparison_space(task)
        if f"{task.id}/prototypes/{space}" in model:
            return model[f"{task.id}/prototypes/{space}"]
        sources = spaces[place:] if self.hyper.synthesis == "recalc" else [space]
        return self.component(
            f"{task.id}/synthesised/{space}",
            synthesise,
            model[f"{task.id}/prototypes/{similar}"],
            [model[f"{source}/prototypes/{similar}"] for source in sources],
            [model[f"{source}/prototypes/{space}"] for source in sources],
            tau=self.hyper.tau,
        )

    def _comparison_space(self, task: PastTask) -> str:
        """The space in which a task's classes are compared with newer ones: its own."""
        return task.id
