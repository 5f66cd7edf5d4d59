"""MOS: model surgery.

Sun, Zhou, Zhao, Gan, Zhan, Ye, "MOS: Model Surgery for Pre-Trained Model-Based Class-Incremental Learning", AAAI 2025,
arXiv 2412.09441. A_k is the adapter of task k, f_k the features under it, P_c the mean of class c's features under the
first adapter, t the newest of T tasks. Defaults follow the paper where it says how; `official` options follow the
released code, whose test-time forward passes write to the stored adapters. Ours never do: a build that needs such an
altered adapter computes it for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cl.adapters.bottleneck import Shape
from cl.components.builder import builds
from cl.components.checkpoint import Checkpoint
from cl.components.handles import Handle, Part
from cl.data.samples import Samples
from cl.data.stream import Task
from cl.home.store import Tensors
from cl.learning.hyper import AdapterTraining, hyperparameters, setting
from cl.learning.strategy import Model, Strategy
from cl.learning.train import Batch, Optimisation, tune_adapter
from cl.models.backbone import Backbone, on_device
from cl.models.heads import cosine, linear, linear_head, normal_rows
from cl.numerics import Numerics
from cl.parts.gaussians import Gaussians, align, class_spread, lone_classes
from cl.parts.merging import adapter_distances, mean_parameters, pull
from cl.parts.prototypes import class_means
from cl.seeds import Seeds
from strategies.mos_released import dropout_features, pulled_features

RIDGE = 1e-4  # on the diagonal of a class's covariance, as released
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


def _released(lr: float, epochs: int, batch_size: int, weight_decay: float, **more: object) -> dict[str, object]:
    values = {"lr": lr, "epochs": epochs, "batch_size": batch_size, "weight_decay": weight_decay}
    return {**values, "bottleneck": 16, **more}


# Why the released code behaves as it does: its forward pass pulls every layer once a block, also while evaluating.
_OFFICIAL = {
    "merge": "step13",
    "init": "mbar",
    "eval_pull": "official",
    "stats_pull": "official",
    "proto_dropout": True,
}
_PAPER = {"lr": 0.01, "epochs": 20, "batch_size": 48, "bottleneck": 16, "merge": "step", "merge_momentum": 0.1}
_FRESH_HEAD = {"orth": "batch", "head": "fresh"}

PRESETS = {
    "quick": {"epochs": 2},
    "paper": _PAPER,
    "official": _OFFICIAL,
    "mos_paper": _PAPER,
    "mos_official": _OFFICIAL,
    # The released configurations (exps/*.json), equal for both pretrained backbones.
    "cifar100": _released(0.03, 20, 48, 5e-4),
    "cub": _released(0.01, 10, 32, 5e-4),
    "imagenet_r": _released(0.05, 10, 16, 5e-3),
    "imagenet_a": _released(0.05, 10, 32, 5e-3, spread="variance"),
    "objectnet": _released(0.05, 10, 48, 5e-3),
    "omni": _released(0.01, 10, 16, 5e-4),
    "vtab": _released(0.03, 20, 32, 5e-3),
    # Less coupled than the method, hence cheaper to delete from; not in the paper.
    "not_paper_anchor": {"merge": "anchor", "init": "anchor"},
    "not_paper_free": {"merge": "none", "init": "fresh"},
    "not_paper_batch_orth": {"orth": "batch"},
    "not_paper_fresh_head": {"head": "fresh"},
    "not_paper_anchor_decoupled": {"merge": "anchor", "init": "anchor", **_FRESH_HEAD},
    "not_paper_free_decoupled": {"merge": "none", "init": "fresh", **_FRESH_HEAD},
    "not_paper_one_adapter": {"one_adapter": True, **_FRESH_HEAD},
}

_PAPER_NOTE = "the paper's values, the same for every data set, and one pull a step"
_OFFICIAL_NOTE = (
    "what the released code's forward passes do to stored adapters, on private copies: 13 pulls a step, statistics and "
    "evaluation under pulled adapters, prototypes with dropout; for explaining gaps"
)

PRESET_NOTES = {
    "quick": "two epochs a task, to try things out",
    "paper": _PAPER_NOTE,
    "official": _OFFICIAL_NOTE,
    "mos_paper": _PAPER_NOTE,
    "mos_official": _OFFICIAL_NOTE,
    "cifar100": "released settings; 20 tasks of 5 classes",
    "cub": "released settings; 20 tasks of 10 classes",
    "imagenet_r": "released settings; 10 tasks of 20 classes",
    "imagenet_a": "released settings; 10 tasks of 20 classes, only the variances of a class",
    "objectnet": "released settings; 10 tasks of 20 classes (the paper's table has 20 of 10)",
    "omni": "released settings; 15 tasks of 20 classes (the paper's table has 10 of 30)",
    "vtab": "released settings; 5 tasks of 10 classes, in the data set's order",
    "not_paper_anchor": "adapters start from the first one and are pulled to it alone",
    "not_paper_free": "every adapter starts anew and is never merged",
    "not_paper_batch_orth": "adapters do not read earlier class means",
    "not_paper_fresh_head": "the head comes from class statistics alone, in seconds",
    "not_paper_anchor_decoupled": "not_paper_anchor, batch_orth and fresh_head together",
    "not_paper_free_decoupled": "not_paper_free, batch_orth and fresh_head together",
    "not_paper_one_adapter": "the first adapter for all tasks: the control for every claim about merging and retrieval",
}


# Progressive adapter merging: A_t and the head's new rows are trained, and each step A_t is pulled to its elders.


@builds(adapter="adapter", head="cache")
def tune(
    samples: Samples,
    start: Tensors | None,
    towards: Tensors | None,
    head: Tensors | None,
    means: list[Tensors],
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    classes: list[str],
    shape: Shape,
    how: Optimisation,
    head_rate: float,
    reg: float,
    momentum: float,
    pulls: int,
    final_pulls: int,
) -> dict[str, Tensors]:
    """A_t and the head `(classes, d)` with bias after training on the task's images.

    start: where A_t begins, None for a fresh adapter. towards: what it is pulled to. head: earlier rows, which get no
    gradient but weight decay. means: of the classes of earlier tasks, for the orthogonality loss.
    """
    rows = linear_head(head, classes, backbone.dim, seeds, normal_rows)
    old = 0 if head is None else len(head["weight"])
    targets = samples.targets(classes[old:]).to(backbone.device)
    earlier = [mean["mean"].to(backbone.device) for mean in means]
    elders = on_device(towards or {}, backbone)

    def loss(features: Tensor, live: Tensors, batch: Batch) -> Tensor:
        logits = F.linear(features, live["weight"][old:], live["bias"][old:])
        penalty = reg * orthogonality(features, earlier) if reg > 0 else 0.0
        return F.cross_entropy(logits, targets[batch.rows]) + penalty

    adapter, trained_rows = tune_adapter(
        samples, start, rows, loss, shape, how, backbone, seeds, checkpoint, head_rate=head_rate,
        after_step=lambda live: pull(live, elders, momentum, pulls),
    )  # fmt: skip
    pull(adapter, towards or {}, momentum, final_pulls)
    return {"adapter": adapter, "head": trained_rows}


def orthogonality(features: Tensor, means: Sequence[Tensor]) -> Tensor:
    """Cross-entropy of M M^T / 0.8 against the identity, M the earlier class means and the batch, `(rows, d)`."""
    rows = torch.cat([*means, features])
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
    centres = torch.cat([mean["mean"] for mean in means])
    gaussians = Gaussians(classes, centres, spreads, numerics.device)
    start = linear_head(head, classes, gaussians.dim, seeds, normal_rows)
    return align(start, lambda live, vectors: linear(vectors, live), gaussians, how, seeds, checkpoint)


# Training-free self-refined retrieval: the prototypes guess a task; then adapter and head correct each other.


@builds("cache")
def first_guess(features: Tensors, prototypes: list[Tensors], *, tasks: list[int]) -> Tensors:
    """cosines `(n, classes)` to the prototypes under A_0, and where a walk from them begins: `next` `(n,)`.

    tasks: the task of each class column. visited: the adapters that each image has met, `(n, T)`.
    """
    cosines = cosine(features["features"], torch.cat([mean["mean"] for mean in prototypes]))
    start = torch.tensor(tasks)[cosines.argmax(1)]
    visited = torch.zeros(len(cosines), max(tasks) + 1, dtype=torch.bool)
    visited[:, 0] = True
    return {
        "cosines": cosines,
        "first": start,
        "next": start,
        "task": start,
        "settled": torch.zeros(len(cosines), dtype=torch.bool),
        "logits": torch.zeros_like(cosines),
        "evaluations": torch.zeros(len(cosines), dtype=torch.int64),
        "visited": visited,
    }


@builds("cache")
def refine(state: Tensors, spaces: dict[str, Tensors], head: Tensors, *, tasks: list[int]) -> Tensors:
    """One round: each image not settled yet goes through the head under its next adapter, and settles if the class
    that the head names is of that adapter's task.

    spaces: features of the shard under each adapter that an image needs next, by the adapter's place.
    """
    live, here = ~state["settled"], state["next"]
    logits = state["logits"].clone()
    for place, space in spaces.items():
        rows = live & (here == int(place))
        logits[rows] = linear(space["features"], head)[rows]
    found = torch.tensor(tasks)[logits.argmax(1)]
    visited = state["visited"].clone()
    visited[torch.nonzero(live)[:, 0], here[live]] = True
    return {
        **state,
        "next": torch.where(live, found, here),
        "task": torch.where(live, here, state["task"]),
        "settled": ~live | (found == here),
        "logits": logits,
        "evaluations": state["evaluations"] + live,
        "visited": visited,
    }


@builds("cache")
def two_stage_scores(state: Tensors, *, sharpness: int, ensemble: bool) -> Tensors:
    """scores `(n, classes)`: softmax of the head plus softmax of `sharpness` x cosines; the head's logits alone
    without `ensemble`."""
    logits = state["logits"]
    if not ensemble:
        return {"scores": logits}
    return {"scores": torch.softmax(logits, 1) + torch.softmax(sharpness * state["cosines"], 1)}


@builds("evidence")
def retrieval(walks: list[list[Tensors]]) -> Tensors:
    """How retrieval went; walks[t][i] is that of test task i after task t, i <= t. Matrices `(T, T)`, NaN elsewhere.

    before, after: share of images whose first and last adapter is their own task's. rounds: head evaluations an image.
    extra_passes: adapters beyond the first that an image met. needed: distinct (image, adapter) pairs over the whole
    run; made: passes that the (adapter, shard) blocks with such a pair take, each block once.
    """
    size = len(walks)
    names = ("before", "after", "rounds", "extra_passes")
    found = {name: torch.full((size, size), torch.nan, dtype=torch.float64) for name in names}
    for t, row in enumerate(walks):
        for i, walk in enumerate(row):
            found["before"][t, i] = (walk["first"] == i).double().mean()
            found["after"][t, i] = (walk["task"] == i).double().mean()
            found["rounds"][t, i] = walk["evaluations"].double().mean()
            found["extra_passes"][t, i] = walk["visited"].sum(1).double().mean() - 1
    met = [_ever([row[i]["visited"] for row in walks[i:]]) for i in range(size)]
    needed = torch.tensor(sum(int(pairs.sum()) for pairs in met))
    made = torch.tensor(sum(len(pairs) * int(pairs.any(0).sum()) for pairs in met))
    return {**found, "needed": needed, "made": made}


def _ever(visited: Sequence[Tensor]) -> Tensor:
    """Pairs that any of these evaluations met, `(n, adapters at the end)`."""
    pairs = torch.zeros_like(visited[-1])
    for one in visited:
        pairs[:, : one.shape[1]] |= one
    return pairs


class Mos(Strategy):
    """An adapter for each task, merged into the next ones; one head, aligned on class Gaussians."""

    title = "MOS: merged adapters, a head aligned on class Gaussians, self-refined retrieval"
    paper = "Sun et al., AAAI 2025, arXiv 2412.09441"
    Hyper = MosHyper
    presets = PRESETS
    preset_notes = PRESET_NOTES

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        self._check(task, model)
        tuned = None if self.hyper.one_adapter and model.tasks else self._tuned(task, model)
        adapter = tuned["adapter"] if tuned is not None else self._first(model)
        first = self._first(model) if model.tasks else adapter
        entries = {f"{task.id}/tuned": tuned} if tuned is not None else {}
        entries |= self._statistics(task, adapter, first, model)
        return {**entries, "head": self._head(task, tuned, model, entries)}

    def scores(self, model: Model, samples: Samples) -> Handle:
        walk = self._walk(model, samples)
        return self.component(
            "scores", two_stage_scores, walk, sharpness=len(model.tasks), ensemble=self.hyper.ensemble
        )

    def figures(self, models: Sequence[Model], tasks: Sequence[Task]) -> dict[str, Handle]:
        adapters = [self._trained(models[-1], place) for place in range(self._adapted(models[-1]))]
        blocks = {"distances": self.component("distances", adapter_distances, adapters)}
        tests = {task.id: task.test for task in tasks if len(task.test)}
        if self.hyper.one_adapter or not all(task.id in tests for task in models[-1].tasks):
            return blocks
        walks = [[self._walk(model, tests[task.id]) for task in model.tasks] for model in models]
        return {**blocks, "retrieval": self.component("retrieval", retrieval, walks)}

    def _statistics(self, task: Task, adapter: Part, first: Part, model: Model) -> dict[str, Handle]:
        """A Gaussian of each new class under its task's adapter, and its prototype under the first."""
        images, classes = task.train.plain, list(task.classes)
        features, under_first = self._measured(task, adapter, model), self._under_first(task, first, model)
        name, kind = f"{task.id}/spread", self.hyper.spread
        spread = self.component(name, class_spread, images, features, classes=classes, ridge=RIDGE, kind=kind)
        means = self.component(f"{task.id}/means", class_means, images, features, classes=classes)
        prototypes = self.component(f"{task.id}/prototypes", class_means, images, under_first, classes=classes)
        return {name: spread, f"{task.id}/means": means, f"{task.id}/prototypes": prototypes}

    def _tuned(self, task: Task, model: Model) -> Handle:
        """A_t, and the head after it: a shared one, or a private one that is thrown away."""
        h = self.hyper
        merge = h.merge if model.tasks else "none"
        chained = h.head == "chain"
        earlier = [past.id for past in model.tasks]
        return self.component(
            f"{task.id}/tuned",
            tune,
            task.train,
            self._start(model),
            self._towards(model),
            model["head"] if chained and model.tasks else None,
            [model[f"{past}/means"] for past in earlier] if h.orth == "all" and h.reg > 0 else [],
            classes=[*(model.classes if chained else ()), *task.classes],
            shape=h.shape,
            how=h.optimisation,
            head_rate=h.head_rate,
            reg=h.reg,
            momentum=h.merge_momentum,
            pulls={"step": 1, "anchor": 1, "step13": 13}.get(merge, 0),
            final_pulls=int(merge == "task_end"),
        )

    def _start(self, model: Model) -> Part | Handle | None:
        """Where A_t begins, None for a fresh adapter. `mbar`: at what A_{t-1} was pulled to, because the released
        statistics pass leaves no more of A_{t-1} than that; nothing pulls A_0."""
        if not model.tasks or self.hyper.init == "fresh":
            return None
        if self.hyper.init == "mbar":
            return self._mean_adapter(model, max(1, len(model.tasks) - 1))
        return self._trained(model, 0 if self.hyper.init == "anchor" else -1)

    def _towards(self, model: Model) -> Part | Handle | None:
        """What A_t is pulled to."""
        if not model.tasks or self.hyper.merge == "none":
            return None
        return self._first(model) if self.hyper.merge == "anchor" else self._mean_adapter(model, len(model.tasks))

    def _mean_adapter(self, model: Model, count: int) -> Handle:
        """Mbar: the mean of the first `count` adapters as trained."""
        return self.component(
            f"{model.tasks[count - 1].id}/mean-adapter",
            mean_parameters,
            [self._trained(model, place) for place in range(count)],
        )

    def _trained(self, model: Model, place: int) -> Part:
        return model[f"{model.tasks[place].id}/tuned"]["adapter"]

    def _first(self, model: Model) -> Part:
        return self._trained(model, 0)

    def _adapted(self, model: Model) -> int:
        """How many of the tasks, from the first on, have an adapter."""
        return 1 if self.hyper.one_adapter else len(model.tasks)

    def _measured(self, task: Task, adapter: Part, model: Model) -> Handle:
        """The task's features for its class statistics."""
        h = self.hyper
        if h.stats_pull == "none" or not model.tasks:
            return self.features(task.train.plain, adapter, h.scale)
        return self.component(
            "features",
            pulled_features,
            task.train.plain,
            adapter,
            self._mean_adapter(model, len(model.tasks)),
            scale=h.scale,
            momentum=h.merge_momentum,
            batch=3 * h.batch_size,
        )

    def _under_first(self, task: Task, first: Part, model: Model) -> Handle:
        """The task's features under A_0, for its prototypes."""
        h = self.hyper
        if not h.proto_dropout or not model.tasks:
            return self.features(task.train.plain, first, h.scale)
        name = f"{task.id}/dropout-features"
        return self.component(name, dropout_features, task.train.plain, first, scale=h.scale, rate=h.dropout)

    def _head(self, task: Task, tuned: Handle | None, model: Model, entries: Mapping[str, Handle]) -> Handle:
        """The shared head after alignment on all classes. The first one stays as trained where heads are chained."""
        h = self.hyper
        chained = h.head == "chain"
        before = None
        if chained:
            before = tuned["head"] if tuned is not None else model["head"]
        tasks = [*(past.id for past in model.tasks), task.id]
        both = {**model.entries, **entries}
        return self.component(
            f"{task.id}/head" if chained else "head",
            aligned_head,
            before,
            [both[f"{name}/means"] for name in tasks],
            [both[f"{name}/spread"] for name in tasks],
            classes=[*model.classes, *task.classes],
            how=Optimisation(
                epochs=0 if chained and not model.tasks else h.align_epochs,
                batch_size=h.align_draws * h.batch_size,
                lr=h.align_lr,
                weight_decay=h.weight_decay,
            ),
        )

    def _walk(self, model: Model, samples: Samples) -> Handle:
        """The shard's images after retrieval. Only blocks (adapter, shard) that some image needs are computed."""
        tasks = [place for place, task in enumerate(model.tasks) for _ in task.classes]
        if self.hyper.one_adapter:
            tasks = [0] * len(tasks)
        prototypes = [model[f"{task.id}/prototypes"] for task in model.tasks]
        features = self.features(samples, self._first(model), self.hyper.scale)
        name = f"{model.tasks[-1].id}/{self._tag(model, samples)}"
        state = self.component(f"{name}/guess", first_guess, features, prototypes, tasks=tasks)
        for number in range(EVALUATIONS):
            now = state.open()
            wanted = set(now["next"][~now["settled"]].tolist())
            places = [place for place in range(len(model.tasks)) if place in wanted]
            adapters = [self._evaluated(model, place) for place in places]
            blocks = self.features_under(samples, adapters, self.hyper.scale)
            spaces = {str(place): block for place, block in zip(places, blocks, strict=True)}
            state = self.component(f"{name}/round-{number}", refine, state, spaces, model["head"], tasks=tasks)
        return state

    def _evaluated(self, model: Model, place: int) -> Part | Handle:
        """The adapter at `place`, or what stands for it."""
        if self.hyper.eval_pull == "first":
            return self._first(model)
        if self.hyper.eval_pull == "official" and place > 0:
            return self._mean_adapter(model, place)
        return self._trained(model, place)

    def _tag(self, model: Model, samples: Samples) -> str:
        """The tasks that a shard's classes belong to: a name that does not change when a sample goes."""
        owner = {name: task.id for task in model.tasks for name in task.classes}
        return "+".join(sorted({owner.get(name, "others") for name in samples.classes}))

    def _check(self, task: Task, model: Model) -> None:
        self.require_new_classes(task, model)
        alone = lone_classes(task.train)
        if alone:
            self.warn(f"class '{alone[0]}' of task '{task.id}' has one image; its Gaussian is {RIDGE} x identity")
