"""SSIAT: semantically shifted incremental adapter tuning.

Tan, Zhou, Xiang, Wang, Wu, Li, "Semantically-Shifted Incremental Adapter-Tuning is A Continual ViTransformer", CVPR
2024, arXiv 2403.19979. One adapter is tuned on session after session; t is the newest session, E1 and E2 are the
features of its images under the adapters of t-1 and t, mu_c and S_c mean and covariance of class c. A session has three
stages: the adapter goes on with a cosine head over the session's own classes; old means follow its drift,

    mu_c <- mu_c + sum_i w_ci (E2_i - E1_i),    w_ci ~ exp(-|E1_i - mu_c|^2 / (2 sigma^2)) + floor,  sum_i w_ci = 1

and all rows of the head are trained again on draws from N(factor_c mu_c, S_c). An image is of the class c with the
largest cos(f(x), w_c). Formulas follow the released code, but rows of E1 and E2 belong to the same image (`pairing`),
which the released code loses: it shuffles and crops anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from cl import (
    AdapterTraining,
    Backbone,
    Checkpoint,
    Handle,
    Model,
    Numerics,
    Optimisation,
    Part,
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
from cl.models.heads import cosface, normal_rows
from cl.parts.gaussians import Gaussians, align, class_spread, lone_class_warning
from strategies.ssiat.presets import SSIAT_PRESETS
from strategies.ssiat.shift import Shift, shift_figures, shifted_means

SSIAT_RIDGE = 1e-3  # on the diagonal of a class's covariance, as released


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
        "chain",
        "stage 3 goes on from the rows so far | from new rows, hence from Gaussians alone (not in the paper)",
        "released code",
    )
    head: Literal["aligned", "lda"] = setting(
        "aligned", "the classifier from stage 3 | in closed form from the Gaussians (not in the paper)", "ours"
    )
    adapt: Literal["each", "first", "none"] = setting(
        "each", "tune the adapter in every session | in the first only | never (controls, not in the paper)", "ours"
    )
    restart: int = setting(
        0, "sessions a chain, 0 for one chain of all (other values are not in the paper)", "ours", ge=0
    )

    @property
    def first_tuning(self) -> Tuning:
        """How the adapter is tuned in the first session."""
        return replace(self.tuning, how=replace(self.optimisation, epochs=self.first_epochs))

    @property
    def alignment(self) -> Optimisation:
        """How stage 3 trains on draws."""
        return Optimisation(self.align_epochs, self.draws, self.align_lr, self.weight_decay)


# Stage 1: the shared adapter goes on, with a cosine head over the session's own classes.


@dataclass(frozen=True)
class CosFaceHead:
    """Stage 1's head: the factor of its cosines, the margin, and whether old rows `decay` or stay `frozen`."""

    scale: float
    margin: float
    old_rows: str


@builds(adapter="adapter", head="cache")
def tune_on_session(
    samples: Samples,
    before: dict[str, Tensors | None],
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    classes: list[str],
    tuning: Tuning,
    cosface_head: CosFaceHead,
) -> dict[str, Tensors]:
    """The adapter after this session, and the head's rows `(classes so far, d)`: those there were, then new ones.

    classes: the session's. before: `adapter` and `head` so far, each None for a fresh one.
    """
    head = before["head"]
    old = torch.zeros(0, backbone.dim) if head is None else head["weight"]
    new = normal_rows(classes, backbone.dim, seeds)
    frozen = cosface_head.old_rows == "frozen"
    kept, trained_rows = (old, new) if frozen else (old[:0], torch.cat([old, new]))
    targets = samples.targets(classes).to(backbone.device)

    def loss(features: Tensor, live: Tensors, batch: Batch) -> Tensor:
        cosines = cosine(features, live["weight"][-len(classes) :])  # (batch, the session's classes)
        return cosface(cosines, targets[batch.rows], cosface_head.scale, cosface_head.margin)

    tuner = Tuner(samples, tuning, backbone, seeds)
    adapter, trained = tuner.tune(before["adapter"], {"weight": trained_rows}, loss, checkpoint)
    return {"adapter": adapter, "head": {"weight": torch.cat([kept, trained["weight"]])}}


# Stage 3: all rows are trained again on draws from the Gaussians.


@dataclass(frozen=True)
class Unification:
    """How stage 3 trains: the factor of the cosines, and what each class's mean is multiplied by before it is drawn
    from. An epoch draws one batch a class."""

    how: Optimisation
    cosine_scale: float
    factors: list[float]


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
    unification: Unification,
) -> Tensors:
    """weight `(classes, d)` after stage 3, from `rows`, with new ones where there are none. 0 epochs: as they are."""
    means = mean["mean"] * torch.tensor(unification.factors)[:, None]  # (classes, d)
    gaussians = Gaussians(classes, means, spreads, numerics.device)
    weight = means[:0] if rows is None else rows["weight"]
    if len(weight) < len(classes):
        weight = torch.cat([weight, normal_rows(classes[len(weight) :], gaussians.dim, seeds)])

    def logits(live: Tensors, vectors: Tensor) -> Tensor:
        return unification.cosine_scale * cosine(vectors, live["weight"])

    return align({"weight": weight}, logits, gaussians, unification.how, seeds, checkpoint)


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


@builds("cache")
def cosine_scores(features: Tensors, head: Tensors) -> Tensors:
    """scores `(n, classes)`: cosines to the head's rows."""
    return {"scores": cosine(features["features"], head["weight"])}


@dataclass(frozen=True)
class TuningSession:
    """A task to learn, and the chain of sessions that it goes on from. The chain's entries are called after its first
    session."""

    task: Task
    past: tuple[PastTask, ...]
    model: Model

    @property
    def chain(self) -> str:
        """The id of the chain's first session."""
        return self.past[0].id if self.past else self.task.id

    def before(self, what: str) -> Handle | None:
        """`tuned`, `means` or `heads` as the last session left it."""
        return self.model.entries.get(f"{self.chain}/{what}")

    @property
    def classes(self) -> list[str]:
        """All classes of the chain, this session's included."""
        return [label for group in self._groups for label in group]

    @property
    def sizes(self) -> list[int]:
        """How many classes each session has."""
        return [len(group) for group in self._groups]

    @property
    def _groups(self) -> list[tuple[str, ...]]:
        return [*(past.classes for past in self.past), self.task.classes]


class PaperSsiat(Strategy[SsiatHyper]):
    """The method itself; what controls and less coupled variants change, `strategies.ssiat.variants` overrides."""

    title = "SSIAT: one adapter tuned throughout, class means that follow its drift, a unified classifier"
    paper = "Tan et al., CVPR 2024, arXiv 2403.19979"
    Hyper = SsiatHyper
    presets = {name: values for name, (values, _) in SSIAT_PRESETS.items()}
    preset_notes = {name: note for name, (_, note) in SSIAT_PRESETS.items()}

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        self._check(task, model)
        session = TuningSession(task, self._past(model), model)
        tuned = self._adapter_and_head(session)
        now = tuned or session.before("tuned")
        spread, new = self._statistics(task, now)
        means = self._means(session, now, new) if session.past else new
        spreads = [*(model[f"{past.id}/spread"] for past in session.past), spread]
        heads = self._heads(session, tuned, means, spreads)
        entries = {f"{session.chain}/tuned": now} if now is not None else {}
        return {
            **entries,
            f"{session.chain}/means": means,
            f"{task.id}/spread": spread,
            f"{session.chain}/heads": heads,
        }

    def scores(self, model: Model, samples: Samples) -> Handle:
        chain = model.tasks[0].id
        features = self.features(samples, adapter_of(model.entries.get(f"{chain}/tuned")), self.hyper.scale)
        return self.component("scores", cosine_scores, features, model[f"{chain}/heads"])

    def figures(self, models: Sequence[Model], tasks: Sequence[Task]) -> dict[str, Handle]:
        newest = [self._newest_means(model) for model in models]
        places = [place for place, means in enumerate(newest) if "figures" in means.parts]
        if not places:
            return {}
        sessions = [newest[place]["figures"] for place in places]
        return {"shift": self.component("shift", shift_figures, sessions, places=places, total=len(models))}

    def _past(self, model: Model) -> tuple[PastTask, ...]:
        """The sessions that the next one goes on from."""
        return model.tasks

    def _adapter_and_head(self, session: TuningSession) -> Handle | None:
        """Stage 1: the adapter and the head after it; None where the session tunes nothing."""
        h, task, before = self.hyper, session.task, session.before("tuned")
        return self.component(
            f"{task.id}/tuned",
            tune_on_session,
            task.train,
            {"adapter": adapter_of(before), "head": self._rows(session)},
            classes=list(task.classes),
            tuning=h.tuning if before is not None else h.first_tuning,
            cosface_head=CosFaceHead(h.cosine_scale, h.margin, h.old_heads),
        )

    def _rows(self, session: TuningSession) -> Handle | None:
        """The head's rows that stage 1 goes on from."""
        return session.before("heads")

    def _statistics(self, task: Task, tuned: Handle | None) -> tuple[Handle, Handle]:
        """Spread and means of the session's own classes."""
        images, classes = task.train.plain, list(task.classes)
        features, kind = self.features(images, adapter_of(tuned), self.hyper.scale), self.hyper.spread
        name = f"{task.id}/spread"
        spread = self.component(name, class_spread, images, features, classes=classes, ridge=SSIAT_RIDGE, kind=kind)
        return spread, self.component(f"{task.id}/means", class_means, images, features, classes=classes)

    def _means(self, session: TuningSession, now: Handle | None, new: Handle) -> Handle:
        """Stage 2: means of every class so far in the space of `now`; the old ones are estimated."""
        h, task = self.hyper, session.task
        e1 = self._shift_features(task, session.before("tuned"), "before")
        e2 = self._shift_features(task, now, "after")
        old, shift = means_of(session.model[f"{session.chain}/means"]), Shift(h.shift, h.sigma, h.floor)
        return self.component(f"{task.id}/moved-means", shifted_means, old, new, e1, e2, shift=shift)

    def _shift_features(self, task: Task, tuned: Handle | None, when: str) -> Handle:
        """E1 or E2: the session's features under an adapter, as the shift is measured."""
        return self.features(task.train.plain, adapter_of(tuned), self.hyper.scale)

    def _heads(self, session: TuningSession, tuned: Handle | None, means: Handle, spreads: list[Handle]) -> Handle:
        """Stage 3: the classifier over the chain's classes."""
        rows = tuned["head"] if tuned is not None else session.before("heads")
        return self._unified_head(f"{session.task.id}/heads", session, rows, means, spreads)

    def _unified_head(
        self, name: str, session: TuningSession, rows: Part | Handle | None, means: Handle, spreads: list[Handle]
    ) -> Handle:
        """The classifier from `rows` on. The first one stays as trained where it goes on from stage 1."""
        h = self.hyper
        how = replace(h.alignment, epochs=0) if rows is not None and not session.past else h.alignment
        unification = Unification(how, h.cosine_scale, session_factors(session.sizes, h.decay))
        reads = rows, means_of(means), spreads
        return self.component(name, unified_head, *reads, classes=session.classes, unification=unification)

    def _newest_means(self, model: Model) -> Handle:
        return model[f"{model.tasks[0].id}/means"]

    def _check(self, task: Task, model: Model) -> None:
        self.require_new_classes(task, model)
        warning = lone_class_warning(task.id, task.train, SSIAT_RIDGE)
        if warning is not None and self.hyper.spread == "covariance":
            self.warn(warning)


def adapter_of(tuned: Handle | None) -> Part | None:
    """The adapter of what stage 1 gave; None for the bare backbone."""
    return tuned["adapter"] if tuned is not None else None


def means_of(means: Handle) -> Part:
    """The means themselves, with or without the figures of a shift beside them."""
    return means["mean"] if "mean" in means.parts else means.sole
