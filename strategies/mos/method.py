"""MOS: model surgery.

Sun, Zhou, Zhao, Gan, Zhan, Ye, "MOS: Model Surgery for Pre-Trained Model-Based Class-Incremental Learning", AAAI 2025,
arXiv 2412.09441. A_k is the adapter of task k, f_k the features under it, P_c the mean of class c's features under the
first adapter, t the newest of T tasks. While A_t is trained on task t it is pulled, step by step, to its elders' mean:

    A_t <- (1 - m) A_t + m (1/t) sum_{i<t} A_i

One linear head serves all classes; after each task it is trained again on draws from every class's Gaussian under its
own task's adapter (classifier alignment). At test time a task is guessed from the prototypes; then adapter and head
correct each other until the head's class is of the adapter's task, a = task(argmax head(f_a(x))), at most four times:

    score(. | x) = softmax(head(f_a(x))) + softmax(T cos(f_0(x), P))

Defaults follow the paper where it says how.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from cl import (
    AdapterTraining,
    Backbone,
    Checkpoint,
    Handle,
    Model,
    Numerics,
    Optimisation,
    Part,
    Samples,
    Seeds,
    Strategy,
    Task,
    Tensors,
    Tuner,
    Tuning,
    builds,
    class_means,
    hyperparameters,
    setting,
)
from cl.learning.train import Batch
from cl.models.backbone import on_device
from cl.models.heads import linear, linear_head, normal_rows
from cl.parts.gaussians import Gaussians, align, class_spread, lone_class_warning
from strategies.mos.merging import adapter_distances, mean_parameters, pull
from strategies.mos.presets import MOS_PRESETS
from strategies.mos.retrieval import first_guess, refine, retrieval_figures, two_stage_scores

MOS_RIDGE = 1e-4  # on the diagonal of a class's covariance, as released
EVALUATIONS = 4  # head evaluations an image gets at most, as released
TEMPERATURE = 0.8  # of the orthogonality loss, as released


@hyperparameters
class MosHyper(AdapterTraining):
    """MOS's settings."""

    merge: Literal["step", "step13", "task_end", "anchor", "none"] = setting(
        "step",
        "pull A_t to the mean of earlier adapters: after each step | 13 times a step, as the released code does | once "
        "after training | to the first adapter after each step (not in the paper) | never (not in the paper)",
        "section on adapter merging",
    )
    init: Literal["previous", "mbar", "anchor", "fresh"] = setting(
        "previous",
        "A_t starts from the last adapter | from the mean that one was pulled to, all that the released code leaves of "
        "it | from the first adapter (not in the paper) | anew (not in the paper)",
        "released code",
    )
    merge_momentum: float = setting(0.1, "share m of one pull", "released presets", ge=0, lt=1)
    reg: float = setting(0.1, "weight of the orthogonality loss", "released presets", ge=0)
    orth: Literal["all", "batch"] = setting(
        "all", "orthogonality also to earlier class means | within the batch only (not in the paper)", "released code"
    )
    head: Literal["chain", "fresh"] = setting(
        "chain",
        "the shared head goes on from task to task | is made from the class statistics alone (not in the paper)",
        "released code",
    )
    head_rate: float = setting(0.1, "the head's learning rate, as a share of the adapter's", "released code", gt=0)
    spread: Literal["covariance", "variance"] = setting("covariance", "of a class Gaussian", "released presets")
    align_epochs: int = setting(30, "epochs of classifier alignment", "released code", ge=0, le=10_000)
    align_lr: float = setting(0.005, "learning rate of classifier alignment", "released code", gt=0)
    align_draws: int = setting(5, "draws a class and epoch, in batches of training", "released code", ge=1, le=1_000)
    ensemble: bool = setting(True, "add the prototypes' vote to the head's", "two-stage ensemble")
    one_adapter: bool = setting(
        False, "control: the first adapter for all tasks, nothing to retrieve (not in the paper)", "ours"
    )
    eval_pull: Literal["none", "official", "first"] = setting(
        "none",
        "evaluate A_k as trained | the mean of earlier adapters, which the released evaluation leaves of it | "
        "the first adapter (a measurement, not in the paper)",
        "ours",
    )
    stats_pull: Literal["none", "official"] = setting(
        "none", "class statistics under A_t | under what the released pass makes of it, batch by batch", "ours"
    )
    proto_dropout: bool = setting(False, "dropout on for prototypes after task 0, as in the released code", "ours")

    @property
    def tuning(self) -> Tuning:
        """With the head's own learning rate."""
        return replace(super().tuning, head_rate=self.head_rate)

    @property
    def alignment(self) -> Optimisation:
        """How the head is trained on draws."""
        return Optimisation(
            epochs=self.align_epochs,
            batch_size=self.align_draws * self.batch_size,
            lr=self.align_lr,
            weight_decay=self.weight_decay,
        )


# Progressive adapter merging: A_t and the head's new rows are trained, and each step A_t is pulled to its elders.


@dataclass(frozen=True)
class Surgery:
    """What is done to an adapter beside the cross-entropy: orthogonality, of weight `reg`, and so many pulls of share
    `momentum`, after each step and once at the end."""

    reg: float
    momentum: float
    pulls: int
    final_pulls: int = 0


class EarlierTasks(TypedDict):
    """What training on a task reads of earlier ones. start: where A_t begins, None for a fresh adapter. towards: what
    it is pulled to. head: its earlier rows, which get no gradient but weight decay. means: of their classes, for the
    orthogonality loss."""

    start: Tensors | None
    towards: Tensors | None
    head: Tensors | None
    means: list[Tensors]


@builds(adapter="adapter", head="cache")
def tune_and_merge(
    samples: Samples,
    earlier: EarlierTasks,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    classes: list[str],
    tuning: Tuning,
    surgery: Surgery,
) -> dict[str, Tensors]:
    """A_t and the head `(classes, d)` with bias after training on the task's images."""
    head = earlier["head"]
    rows = linear_head(head, classes, backbone.dim, seeds, normal_rows)
    old = 0 if head is None else len(head["weight"])
    targets = samples.targets(classes[old:]).to(backbone.device)
    constant = [mean["mean"].to(backbone.device) for mean in earlier["means"]]
    towards = earlier["towards"] or {}
    elders = on_device(towards, backbone)

    def loss(features: Tensor, live: Tensors, batch: Batch) -> Tensor:
        logits = F.linear(features, live["weight"][old:], live["bias"][old:])  # (batch, new classes)
        penalty = surgery.reg * orthogonality(features, constant) if surgery.reg > 0 else 0.0
        return F.cross_entropy(logits, targets[batch.rows]) + penalty

    def merge(live: Tensors) -> None:
        pull(live, elders, surgery.momentum, surgery.pulls)

    tuner = Tuner(samples, tuning, backbone, seeds)
    adapter, trained_rows = tuner.tune(earlier["start"], rows, loss, checkpoint, merge)
    pull(adapter, towards, surgery.momentum, surgery.final_pulls)
    return {"adapter": adapter, "head": trained_rows}


def orthogonality(features: Tensor, means: Sequence[Tensor]) -> Tensor:
    """Cross-entropy of M M^T / 0.8 against the identity, M the earlier class means and the batch."""
    rows = torch.cat([*means, features])  # (earlier classes + batch, d)
    return F.cross_entropy(rows @ rows.T / TEMPERATURE, torch.arange(len(rows), device=rows.device))


# Classifier alignment: the head is trained again on draws from every class's Gaussian.


@builds("head")
def aligned_head(
    head: Tensors | None,
    means: list[Tensors],
    spreads: list[Tensors],
    *,
    seeds: Seeds,
    checkpoint: Checkpoint,
    numerics: Numerics,
    classes: list[str],
    how: Optimisation,
) -> Tensors:
    """weight `(classes, d)` and bias after alignment, one batch of draws a class and epoch.

    head: where it begins; new rows are added where it lacks some. 0 epochs leave it as it is.
    """
    centres = torch.cat([mean["mean"] for mean in means])  # (classes, d)
    gaussians = Gaussians(classes, centres, spreads, numerics.device)
    start = linear_head(head, classes, gaussians.dim, seeds, normal_rows)
    return align(start, lambda live, vectors: linear(vectors, live), gaussians, how, seeds, checkpoint)


class PaperMos(Strategy[MosHyper]):
    """The method itself; what other readings and controls change, `strategies.mos.variants` overrides."""

    title = "MOS: merged adapters, a head aligned on class Gaussians, self-refined retrieval"
    paper = "Sun et al., AAAI 2025, arXiv 2412.09441"
    Hyper = MosHyper
    presets = {name: values for name, (values, _) in MOS_PRESETS.items()}
    preset_notes = {name: note for name, (_, note) in MOS_PRESETS.items()}

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        self._check(task, model)
        tuned = self._adapter_and_head(task, model)
        measured = self._statistics(task, tuned["adapter"], model)
        return self._with_head(task, model, {f"{task.id}/tuned": tuned, **measured}, tuned["head"])

    def scores(self, model: Model, samples: Samples) -> Handle:
        walk, h = self._walk(model, samples), self.hyper
        return self.component("scores", two_stage_scores, walk, sharpness=len(model.tasks), ensemble=h.ensemble)

    def figures(self, models: Sequence[Model], tasks: Sequence[Task]) -> dict[str, Handle]:
        adapters = [self._adapter(models[-1], place) for place in range(len(models[-1].tasks))]
        blocks = {"distances": self.component("distances", adapter_distances, adapters)}
        tests = {task.id: task.test for task in tasks if len(task.test)}
        if not all(task.id in tests for task in models[-1].tasks):
            return blocks
        walks = [[self._walk(model, tests[task.id]) for task in model.tasks] for model in models]
        return {**blocks, "retrieval": self.component("retrieval", retrieval_figures, walks)}

    # Merging: A_t begins where the last adapter ended, and is pulled to the mean of all earlier ones.

    def _adapter_and_head(self, task: Task, model: Model) -> Handle:
        """A_t, and the head after it."""
        head = self._earlier_head(model)
        return self.component(
            f"{task.id}/tuned",
            tune_and_merge,
            task.train,
            {
                "start": self._start(model),
                "towards": self._towards(model),
                "head": head,
                "means": self._earlier_means(model),
            },
            classes=[*(model.classes if head is not None else ()), *task.classes],
            tuning=self.hyper.tuning,
            surgery=self._surgery(model),
        )

    def _start(self, model: Model) -> Part | Handle | None:
        """Where A_t begins, None for a fresh adapter."""
        return self._adapter(model, -1) if model.tasks else None

    def _towards(self, model: Model) -> Part | Handle | None:
        """What A_t is pulled to."""
        return self._mean_adapter(model, len(model.tasks)) if model.tasks else None

    def _earlier_head(self, model: Model) -> Part | Handle | None:
        """The head that the task's rows are added to."""
        return model["head"] if model.tasks else None

    def _earlier_means(self, model: Model) -> list[Handle]:
        """Class means that the task's features are kept orthogonal to."""
        return [model[f"{past.id}/means"] for past in model.tasks] if self.hyper.reg > 0 else []

    def _surgery(self, model: Model) -> Surgery:
        return Surgery(self.hyper.reg, self.hyper.merge_momentum, pulls=1 if model.tasks else 0)

    def _mean_adapter(self, model: Model, count: int) -> Handle:
        """The mean of the first `count` adapters as trained."""
        adapters = [self._adapter(model, place) for place in range(count)]
        return self.component(f"{model.tasks[count - 1].id}/mean-adapter", mean_parameters, adapters)

    def _adapter(self, model: Model, place: int) -> Part:
        return model[f"{model.tasks[place].id}/tuned"]["adapter"]

    # Statistics, and the head that is aligned on them.

    def _statistics(self, task: Task, adapter: Part, model: Model) -> dict[str, Handle]:
        """A Gaussian of each new class under its task's adapter, and its prototype under the first."""
        images, classes = task.train.plain, list(task.classes)
        features = self._statistics_features(task, adapter, model)
        under_first = self._prototype_features(task, adapter, model)
        name, kind = f"{task.id}/spread", self.hyper.spread
        spread = self.component(name, class_spread, images, features, classes=classes, ridge=MOS_RIDGE, kind=kind)
        means = self.component(f"{task.id}/means", class_means, images, features, classes=classes)
        prototypes = self.component(f"{task.id}/prototypes", class_means, images, under_first, classes=classes)
        return {name: spread, f"{task.id}/means": means, f"{task.id}/prototypes": prototypes}

    def _statistics_features(self, task: Task, adapter: Part, model: Model) -> Handle:
        """The task's features for its class statistics."""
        return self.features(task.train.plain, adapter, self.hyper.scale)

    def _prototype_features(self, task: Task, adapter: Part, model: Model) -> Handle:
        """The task's features under A_0, for its prototypes."""
        first = self._adapter(model, 0) if model.tasks else adapter
        return self.features(task.train.plain, first, self.hyper.scale)

    def _with_head(
        self, task: Task, model: Model, entries: dict[str, Handle], rows: Part | Handle
    ) -> dict[str, Handle]:
        """The task's entries and the shared head after alignment, from `rows`. The first one stays as trained."""
        how = self.hyper.alignment if model.tasks else replace(self.hyper.alignment, epochs=0)
        return {**entries, "head": self._head(f"{task.id}/head", task, model, entries, rows, how)}

    def _head(
        self,
        name: str,
        task: Task,
        model: Model,
        entries: Mapping[str, Handle],
        rows: Part | Handle | None,
        how: Optimisation,
    ) -> Handle:
        """The head on draws of all classes so far."""
        known, tasks = {**model.entries, **entries}, [*(past.id for past in model.tasks), task.id]
        means, spreads = ([known[f"{one}/{what}"] for one in tasks] for what in ("means", "spread"))
        classes = [*model.classes, *task.classes]
        return self.component(name, aligned_head, rows, means, spreads, classes=classes, how=how)

    # Retrieval: every image goes through the head under one adapter after another.

    def _walk(self, model: Model, samples: Samples) -> Handle:
        """The shard's images after retrieval. Only blocks (adapter, shard) that some image needs are computed."""
        tasks = self._columns(model)
        prototypes = [model[f"{task.id}/prototypes"] for task in model.tasks]
        features = self.features(samples, self._adapter(model, 0), self.hyper.scale)
        name = f"{model.tasks[-1].id}/{_tag(model, samples)}"
        state = self.component(f"{name}/guess", first_guess, features, prototypes, tasks=tasks)
        for number in range(EVALUATIONS):
            now = state.open()
            wanted = set(now["next"][~now["settled"]].tolist())
            places = [place for place in range(len(model.tasks)) if place in wanted]
            adapters = [self._adapter_at_test(model, place) for place in places]
            blocks = self.features_under(samples, adapters, self.hyper.scale)
            spaces = {str(place): block for place, block in zip(places, blocks, strict=True)}
            state = self.component(f"{name}/round-{number}", refine, state, spaces, model["head"], tasks=tasks)
        return state

    def _columns(self, model: Model) -> list[int]:
        """Of each class column, the place of the adapter that its task has."""
        return [place for place, task in enumerate(model.tasks) for _ in task.classes]

    def _adapter_at_test(self, model: Model, place: int) -> Part | Handle:
        """The adapter at `place`."""
        return self._adapter(model, place)

    def _check(self, task: Task, model: Model) -> None:
        self.require_new_classes(task, model)
        warning = lone_class_warning(task.id, task.train, MOS_RIDGE)
        if warning is not None:
            self.warn(warning)


def _tag(model: Model, samples: Samples) -> str:
    """The tasks that a shard's classes belong to: a name that does not change when a sample goes."""
    owner = {name: task.id for task in model.tasks for name in task.classes}
    return "+".join(sorted({owner.get(name, "others") for name in samples.classes}))
