"""SSIAT: semantically shifted incremental adapter tuning.

Tan, Zhou, Xiang, Wang, Wu, Li, "Semantically-Shifted Incremental Adapter-Tuning is A Continual ViTransformer", CVPR
2024, arXiv 2403.19979. One adapter is tuned on session after session; t is the newest session, E1 and E2 are the
features of its images under the adapters of t-1 and t, mu_c the mean of class c. Formulas follow the released code,
but rows of E1 and E2 belong to the same image (`pairing`), which the released code loses: it shuffles and crops anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from cl.adapters import bottleneck
from cl.adapters.bottleneck import Shape
from cl.components.builder import builds
from cl.components.checkpoint import Checkpoint
from cl.components.handles import Handle, Part
from cl.data.samples import Samples
from cl.data.stream import Task
from cl.home.store import Tensors
from cl.learning.hyper import AdapterTraining, hyperparameters, setting
from cl.learning.strategy import Model, PastTask, Strategy
from cl.learning.train import Batch, Optimisation, augmented, epoch_batches, tune_adapter
from cl.models.backbone import BATCH, Backbone, on_device
from cl.models.heads import cosface, cosine, normal_rows
from cl.numerics import Numerics
from cl.parts.gaussians import Gaussians, align, class_spread, covariance, lone_classes
from cl.parts.prototypes import class_means
from cl.seeds import Seeds

RIDGE = 1e-3  # on the diagonal of a class's covariance, as released
NEAREST = 0.05  # share of a session's images that `sigma = auto` looks at for each class


@hyperparameters
class SsiatHyper(AdapterTraining):
    """SSIAT's settings."""

    first_epochs: int = setting(20, "passes over the first session's images", "released presets", ge=1, le=10_000)
    epochs: int = setting(10, "passes over a later session's images", "released presets", ge=1, le=10_000)
    bottleneck: int = setting(64, "hidden width r of the adapter", "released presets", ge=1)
    cosine_scale: float = setting(20.0, "factor of the cosines in every loss", "released code", gt=0)
    margin: float = setting(0.0, "CosFace margin of stage 1", "released presets", ge=0)
    shift: Literal["weighted", "mean", "none"] = setting(
        "weighted",
        "old means move by the session's shift, weighted by nearness | its plain mean (control, not in the paper) | "
        "not at all (control, not in the paper)",
        "semantic shift estimation",
    )
    sigma: Annotated[float, Field(gt=0)] | Literal["auto"] = setting(
        4.0, "width of the nearness kernel; auto fits it to the features (not in the paper)", "released code"
    )
    floor: float = setting(1e-5, "added to every weight; 0 leaves it out (not in the paper)", "released code", ge=0)
    pairing: Literal["paired", "official"] = setting(
        "paired", "rows of E1 and E2 by image | shuffled and augmented apart, as the released loader does", "ours"
    )
    spread: Literal["covariance", "pooled"] = setting(
        "covariance", "of each class | of its session's classes together (not in the paper)", "released code"
    )
    draws: int = setting(256, "draws a class and epoch in stage 3, and their batch", "released code", ge=1, le=65_536)
    align_epochs: int = setting(5, "epochs of stage 3", "released code", ge=0, le=10_000)
    align_lr: float = setting(0.01, "learning rate of stage 3", "released code", gt=0)
    decay: Literal["session", "official", "none"] = setting(
        "session",
        "old means shrink in stage 3 by the class's session | by its index over the newest session's size, as released "
        "| not (not in the paper)",
        "released code",
    )
    old_heads: Literal["decay", "frozen"] = setting(
        "decay",
        "stage 1 shrinks old rows by weight decay, as released | leaves them (not in the paper)",
        "released code",
    )
    ca_init: Literal["chain", "fresh"] = setting(
        "chain", "stage 3 goes on from the rows so far | from new rows, hence from Gaussians alone (not in the paper)",
        "released code",
    )  # fmt: skip
    head: Literal["aligned", "lda"] = setting(
        "aligned", "the classifier from stage 3 | in closed form from the Gaussians (not in the paper)", "ours"
    )
    adapt: Literal["each", "first", "none"] = setting(
        "each", "tune the adapter in every session | in the first only | never (controls, not in the paper)", "ours"
    )
    restart: int = setting(
        0, "sessions a chain, 0 for one chain of all (other values are not in the paper)", "ours", ge=0
    )


_OFFICIAL = {"pairing": "official", "decay": "official"}

PRESETS = {
    "quick": {"epochs": 2, "first_epochs": 2},
    "paper": {},
    "official": _OFFICIAL,
    "ssiat_official": _OFFICIAL,
    # The released configurations. That of CUB lacks its epochs and VTAB has none: both take the others' 20 and 10.
    "cifar100": {"margin": 0.0},
    "imagenet_r": {"margin": 0.0},
    "imagenet_a": {"margin": 0.3},
    "cub": {"margin": 0.0},
    "vtab": {"margin": 0.0},
    # Controls, and less coupled variants, which are cheaper to delete from; not in the paper.
    "not_paper_no_shift": {"shift": "none"},
    "not_paper_mean_shift": {"shift": "mean"},
    "not_paper_fitted_shift": {"sigma": "auto"},
    "not_paper_fresh_head": {"ca_init": "fresh"},
    "not_paper_lda": {"head": "lda"},
    "not_paper_first": {"adapt": "first", "ca_init": "fresh"},
    "not_paper_public": {"adapt": "none", "ca_init": "fresh"},
    "not_paper_restart": {"restart": 3},
}

_OFFICIAL_NOTE = (
    "the released code: the shift between other crops, shuffled; decay by a class's index over the session's size"
)

PRESET_NOTES = {
    "quick": "two epochs a session, to try things out",
    "paper": "the released settings with rows of the shift paired; the paper's own readings are not known to differ",
    "official": _OFFICIAL_NOTE,
    "ssiat_official": _OFFICIAL_NOTE,
    "cifar100": "released settings; 5 sessions of 20 classes",
    "imagenet_r": "released settings; 10 sessions of 20 classes",
    "imagenet_a": "released settings; 10 sessions of 20 classes, CosFace margin 0.3",
    "cub": "10 sessions of 20 classes; epochs as for the others, because the released file lacks them",
    "vtab": "5 sessions of 10 classes; nothing released, settings of the others",
    "not_paper_no_shift": "control: old means stay where they were",
    "not_paper_mean_shift": "control: old means move by the plain mean shift",
    "not_paper_fitted_shift": "control: the kernel's width fits the features' distances",
    "not_paper_fresh_head": "the classifier comes from Gaussians alone",
    "not_paper_lda": "linear discriminants instead of stage 3",
    "not_paper_first": "the adapter is tuned in the first session only: later samples taint statistics and the head",
    "not_paper_public": "no adapter: nothing is trained on images, so that deletion rebuilds statistics and the head",
    "not_paper_restart": "a new chain every three sessions: a deletion replays three at most",
}


# Stage 1: the shared adapter goes on, with a cosine head over the session's own classes.


@builds(adapter="adapter", head="cache")
def tune(
    samples: Samples,
    start: Tensors | None,
    head: Tensors | None,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    classes: list[str],
    shape: Shape,
    how: Optimisation,
    cosine_scale: float,
    margin: float,
    old_heads: str,
) -> dict[str, Tensors]:
    """The adapter after this session, and the head's rows `(classes so far, d)`: those of `head`, then new ones.

    classes: the session's. start: the adapter so far, None for a fresh one.
    """
    old = torch.zeros(0, backbone.dim) if head is None else head["weight"]
    new = normal_rows(classes, backbone.dim, seeds)
    kept, trained_rows = (old, new) if old_heads == "frozen" else (old[:0], torch.cat([old, new]))
    targets = samples.targets(classes).to(backbone.device)

    def loss(features: Tensor, live: Tensors, batch: Batch) -> Tensor:
        cosines = cosine(features, live["weight"][-len(classes) :])
        return cosface(cosines, targets[batch.rows], cosine_scale, margin)

    rows = {"weight": trained_rows}
    adapter, trained = tune_adapter(samples, start, rows, loss, shape, how, backbone, seeds, checkpoint)
    return {"adapter": adapter, "head": {"weight": torch.cat([kept, trained["weight"]])}}


# Stage 2: semantic shift estimation. Old means move as the session's images moved near them.


@builds(mean="prototype", figures="evidence")
def shifted_means(
    old: Tensors,
    new: Tensors,
    before: Tensors,
    after: Tensors,
    *,
    shift: Literal["weighted", "mean"],
    sigma: float | Literal["auto"],
    floor: float,
) -> dict[str, Tensors]:
    """Means `(classes so far, d)`: old ones moved, then new ones. before, after: E1 and E2, row by row the same image.

    figures, one value an old class: kernel_share (of the weights' sum, what is not the floor), effective_samples
    1/sum w^2, median_distance (squared, of E1 to the mean), gap (its norm).
    """
    e1, e2, mu = before["features"].double(), after["features"].double(), old["mean"].double()
    distances = squared_distances(e1, mu)
    kernel = log_kernel(distances, sigma)
    weights = nearness(kernel, floor) if shift == "weighted" else torch.full_like(kernel, 1 / len(e1))
    gap = weights.T @ (e2 - e1)  # (old classes, d)
    total = kernel.exp().sum(0)
    figures = {
        "kernel_share": total / (total + floor * len(e1)) if floor > 0 else torch.ones_like(total),
        "effective_samples": 1 / weights.square().sum(0),
        "median_distance": distances.median(0).values,
        "gap": gap.norm(dim=1),
    }
    return {"mean": {"mean": torch.cat([(mu + gap).float(), new["mean"]])}, "figures": figures}


def squared_distances(rows: Tensor, means: Tensor) -> Tensor:
    """|row - mean|^2, `(rows, means)`, by one matrix product; never negative."""
    squares = rows.square().sum(1)[:, None] + means.square().sum(1) - 2 * rows @ means.T
    return squares.clamp_min(0)


def log_kernel(distances: Tensor, sigma: float | str) -> Tensor:
    """-d^2 / (2 sigma^2). auto: sigma^2 is the median d^2 of each class's nearest 5 % of images, over all classes."""
    if sigma == "auto":
        nearest = distances.sort(dim=0).values[: max(1, math.ceil(NEAREST * len(distances)))]
        return -distances / (2 * nearest.median().clamp_min(torch.finfo(distances.dtype).tiny))
    return -distances / (2 * float(sigma) ** 2)


def nearness(kernel: Tensor, floor: float) -> Tensor:
    """Weights of the images for each old class, columns of sum 1, from logarithms of the kernel `(n, classes)`.

    Without a floor they are a softmax, so that a class far from every image has no 0/0.
    """
    if floor == 0:
        return kernel.softmax(0)
    weights = kernel.exp() + floor
    return weights / weights.sum(0)


@builds("prototype")
def joined_means(old: Tensors, new: Tensors) -> Tensors:
    """Means `(classes so far, d)` where no old one moves."""
    return {"mean": torch.cat([old["mean"], new["mean"]])}


@builds("cache")
@torch.no_grad()
def loaded_features(samples: Samples, adapter: Tensors, *, backbone: Backbone, seeds: Seeds, scale: float) -> Tensors:
    """Features `(n, d)` as the released code measures a shift: what its training loader hands out, shuffled and
    augmented anew in each pass."""
    attach = bottleneck.attach(on_device(adapter, backbone), scale)
    loaded = epoch_batches(samples.ids, BATCH, 0, seeds)
    return {"features": torch.cat([backbone.features(augmented(samples, one, seeds), attach).cpu() for one in loaded])}


@builds("evidence")
def shift_figures(sessions: list[Tensors], *, places: list[int], total: int) -> Tensors:
    """Means over old classes of each session's figures, `(sessions,)`, NaN where nothing was shifted."""
    found = {name: torch.full((total,), torch.nan, dtype=torch.float64) for name in sessions[0]}
    for place, session in zip(places, sessions, strict=True):
        for name, values in session.items():
            found[name][place] = values.mean()
    return found


# Stage 3: all rows are trained again on draws from the Gaussians.


@builds("head")
def unified_head(
    rows: Tensors | None,
    mean: Tensors,
    spreads: list[Tensors],
    *,
    seeds: Seeds,
    checkpoint: Checkpoint,
    numerics: Numerics,
    classes: list[str],
    factors: list[float],
    cosine_scale: float,
    how: Optimisation,
) -> Tensors:
    """weight `(classes, d)` after stage 3, from `rows`, with new ones where there are none. 0 epochs: as they are.

    factors: what each class's mean is multiplied by. An epoch draws one batch a class.
    """
    means = mean["mean"] * torch.tensor(factors)[:, None]
    gaussians = Gaussians(classes, means, spreads, numerics.device)
    have = means[:0] if rows is None else rows["weight"]
    if len(have) < len(classes):
        have = torch.cat([have, normal_rows(classes[len(have) :], gaussians.dim, seeds)])

    def logits(live: Tensors, vectors: Tensor) -> Tensor:
        return cosine_scale * cosine(vectors, live["weight"])

    return align({"weight": have}, logits, gaussians, how, seeds, checkpoint)


def session_factors(sizes: Sequence[int], decay: str) -> list[float]:
    """What each class's mean is multiplied by in stage 3: 0.9 + 0.1 (p+1)/(t+1).

    sizes: classes of each session. p is the class's session, or, as released, its index over the newest session's size.
    """
    if decay == "none":
        return [1.0] * sum(sizes)
    places = [place for place, size in enumerate(sizes) for _ in range(size)]
    if decay == "official":
        places = [row // sizes[-1] for row in range(sum(sizes))]
    return [0.9 + 0.1 * (place + 1) / len(sizes) for place in places]


@builds("head")
def lda_head(mean: Tensors, spreads: list[Tensors]) -> Tensors:
    """Linear discriminants with the mean covariance S: weight S^-1 mu `(classes, d)`, bias -mu S^-1 mu / 2."""
    mu = mean["mean"].double()
    pooled = torch.cat([covariance(spread, mu.shape[1]) for spread in spreads]).mean(0)
    weight = torch.linalg.solve(pooled, mu.T).T
    return {"weight": weight.float(), "bias": (-0.5 * (weight * mu).sum(1)).float()}


@builds("cache")
def chain_scores(spaces: list[Tensors], heads: list[Tensors]) -> Tensors:
    """scores `(n, classes)`: cosines to the rows (or linear discriminants) of each chain in its own space, joined."""
    pairs = [(space["features"], head) for space, head in zip(spaces, heads, strict=True)]
    return {"scores": torch.cat([_scores(features, head) for features, head in pairs], dim=1)}


def _scores(features: Tensor, head: Tensors) -> Tensor:
    if "bias" in head:
        return features @ head["weight"].T + head["bias"]
    return cosine(features, head["weight"])


class Ssiat(Strategy):
    """One adapter tuned throughout; old class means follow its drift; a classifier from the class Gaussians."""

    title = "SSIAT: one adapter tuned throughout, class means that follow its drift, a unified classifier"
    paper = "Tan et al., CVPR 2024, arXiv 2403.19979"
    Hyper = SsiatHyper
    presets = PRESETS
    preset_notes = PRESET_NOTES

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        self._check(task, model)
        chain = self._chain(model)
        name = chain[0].id if chain else task.id
        before = model.entries.get(f"{name}/tuned")
        tuned = self._tuned(task, name, before, model) if self._tunes(chain) else None
        now = tuned or before
        classes, images = list(task.classes), task.train.plain
        features = self.features(images, _adapter(now), self.hyper.scale)
        spread = self.component(
            f"{task.id}/spread", class_spread, images, features, classes=classes, ridge=RIDGE, kind=self.hyper.spread
        )
        new = self.component(f"{task.id}/means", class_means, images, features, classes=classes)
        means = self._means(task, name, before, now, new, model) if chain else new
        entries = {f"{name}/tuned": now} if now is not None else {}
        spreads = [*(model[f"{past.id}/spread"] for past in chain), spread]
        heads = self._heads(task, name, tuned, means, spreads, model)
        return {**entries, f"{name}/means": means, f"{task.id}/spread": spread, f"{name}/heads": heads}

    def scores(self, model: Model, samples: Samples) -> Handle:
        names = [task.id for task in model.tasks if f"{task.id}/heads" in model]
        adapted = [_adapter(model.entries.get(f"{name}/tuned")) for name in names]
        spaces = [self.features(samples, adapter, self.hyper.scale) for adapter in adapted]
        return self.component("scores", chain_scores, spaces, [model[f"{name}/heads"] for name in names])

    def figures(self, models: Sequence[Model], tasks: Sequence[Task]) -> dict[str, Handle]:
        newest = [self._newest_means(model) for model in models]
        places = [place for place, means in enumerate(newest) if "figures" in means.parts]
        if not places:
            return {}
        sessions = [newest[place]["figures"] for place in places]
        return {"shift": self.component("shift", shift_figures, sessions, places=places, total=len(models))}

    def _chain(self, model: Model) -> tuple[PastTask, ...]:
        """The sessions that the next one goes on from."""
        length, past = self.hyper.restart, len(model.tasks)
        return model.tasks[past - past % length :] if length else model.tasks

    def _tunes(self, chain: tuple[PastTask, ...]) -> bool:
        return bool(self.hyper.adapt == "each" or (self.hyper.adapt == "first" and not chain))

    def _tuned(self, task: Task, name: str, before: Handle | None, model: Model) -> Handle:
        h = self.hyper
        goes_on = before is not None and h.ca_init == "chain" and h.head == "aligned"
        return self.component(
            f"{task.id}/tuned",
            tune,
            task.train,
            _adapter(before),
            model[f"{name}/heads"] if goes_on else None,
            classes=list(task.classes),
            shape=h.shape,
            how=h.optimisation if before is not None else replace(h.optimisation, epochs=h.first_epochs),
            cosine_scale=h.cosine_scale,
            margin=h.margin,
            old_heads=h.old_heads,
        )

    def _means(
        self, task: Task, name: str, before: Handle | None, now: Handle | None, new: Handle, model: Model
    ) -> Handle:
        """Means of every class so far in the space of now; the old ones are estimated."""
        h = self.hyper
        old = _mean(model[f"{name}/means"])
        if h.shift == "none" or h.adapt != "each":
            return self.component(f"{task.id}/moved-means", joined_means, old, new)
        e1, e2 = self._seen(task, before, "before"), self._seen(task, now, "after")
        return self.component(
            f"{task.id}/moved-means", shifted_means, old, new, e1, e2, shift=h.shift, sigma=h.sigma, floor=h.floor
        )

    def _seen(self, task: Task, tuned: Handle | None, when: str) -> Handle:
        """E1 or E2: the session's features under an adapter, as the shift is measured."""
        scale = self.hyper.scale
        if self.hyper.pairing == "official":
            return self.component(f"{task.id}/loaded-{when}", loaded_features, task.train, _adapter(tuned), scale=scale)
        return self.features(task.train.plain, _adapter(tuned), scale)

    def _heads(
        self, task: Task, name: str, tuned: Handle | None, means: Handle, spreads: list[Handle], model: Model
    ) -> Handle:
        """The classifier over the chain's classes. The first one stays as trained where it goes on from stage 1."""
        h = self.hyper
        if h.head == "lda":
            return self.component("heads", lda_head, _mean(means), spreads)
        chain = self._chain(model)
        sizes = [len(past.classes) for past in (*chain, task)]
        rows = None
        if h.ca_init == "chain":
            rows = tuned["head"] if tuned is not None else (model[f"{name}/heads"] if chain else None)
        return self.component(
            f"{task.id}/heads" if h.ca_init == "chain" else f"{name}/heads",
            unified_head,
            rows,
            _mean(means),
            spreads,
            classes=[label for past in (*chain, task) for label in past.classes],
            factors=session_factors(sizes, h.decay),
            cosine_scale=h.cosine_scale,
            how=Optimisation(
                0 if rows is not None and not chain else h.align_epochs, h.draws, h.align_lr, h.weight_decay
            ),
        )

    def _newest_means(self, model: Model) -> Handle:
        return model[next(f"{task.id}/means" for task in reversed(model.tasks) if f"{task.id}/means" in model)]

    def _check(self, task: Task, model: Model) -> None:
        self.require_new_classes(task, model)
        alone = lone_classes(task.train)
        if alone and self.hyper.spread == "covariance":
            self.warn(f"class '{alone[0]}' of task '{task.id}' has one image; its Gaussian is {RIDGE} x identity")


def _adapter(tuned: Handle | None) -> Part | None:
    return tuned["adapter"] if tuned is not None else None


def _mean(means: Handle) -> Part:
    """The means themselves, with or without the figures of a shift beside them."""
    return means["mean"] if "mean" in means.parts else means.sole
