"""SEMA: self-expansion of pre-trained models with mixture of adapters.

Wang, Lu, Yao, Gong, "Self-Expansion of Pre-trained Models with Mixture of Adapters for Continual Learning", CVPR 2025,
arXiv 2403.18886. h_l is the stream after attention in block l, m_l its mean over the tokens; block l holds K adapters,
mixed by the router w = softmax(W m_l + b). The first task trains an adapter in every block; later only the last blocks
may grow, each by one adapter a task at most.

Where paper, released code and this engine differ, options are named; the preset `official` follows the released code,
`exact` (the default) makes a decision depend on nothing but the task as a whole, so that few deletions change one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor
from torch.nn import functional as F

from cl.adapters import bottleneck as adapters
from cl.adapters import mixture
from cl.adapters.mixture import Mixtures, Stack
from cl.components.builder import builds
from cl.components.checkpoint import Checkpoint
from cl.components.handles import Handle, Part
from cl.data.samples import Samples
from cl.data.stream import Task
from cl.errors import BadInput, NonFinite
from cl.home.store import Tensors
from cl.learning.hyper import Training, hyperparameters, setting
from cl.learning.prefix import fits, frozen_prefix
from cl.learning.strategy import Model, Strategy
from cl.learning.train import Batch, Frozen, Optimisation, fit, fit_parts
from cl.models.backbone import Attach, Backbone, on_device
from cl.models.heads import linear
from cl.seeds import Seeds
from strategies.sema import descriptors
from strategies.sema.descriptors import Inputs
from strategies.sema.passes import frozen, mean_weights, mixture_features, pooled_inputs, pooling, ragged
from strategies.sema.shared_head import Places, head_scores, newest_rows, shrink, start_rows

# JSON has no infinity, so that the threshold that is never passed is a word.
Threshold = Annotated[
    Annotated[float, Field(ge=0)] | Literal["inf"],
    BeforeValidator(lambda value: "inf" if value in ("inf", math.inf) else value),
]


@hyperparameters
class SemaHyper(Training):
    """SEMA's settings."""

    batch_size: int = setting(32, "images a step", "released configurations", ge=1, le=65_536)
    lr: float = setting(
        0.005, "learning rate of adapters, router and head; cosine to 0, stepped per epoch", "released code", gt=0
    )
    bottleneck: int = setting(16, "hidden width r of the adapter", "released code", ge=1)
    growing: int = setting(3, "how many of the last blocks may grow", "released code (blocks 10 to 12 of 12)", ge=1)
    threshold: Threshold = setting(
        2.0, "z-score above which a block grows; 0: always, inf: never", "released CIFAR-100"
    )
    rd_share: float = setting(1 / 6, "hidden width of a descriptor over d (128 of 768)", "released code", gt=0, le=1)
    rd_epochs: int = setting(20, "passes of descriptor training", "released code", ge=1, le=10_000)
    rd_lr: float = setting(0.01, "learning rate of descriptors", "released code", gt=0)
    rd_act: Literal["none", "leaky_relu"] = setting("none", "activation inside a descriptor", "released code")
    rd: Literal["sgd", "pca"] = setting(
        "sgd", "descriptor trained by SGD | principal components", "released code, ours"
    )
    z: Literal["abs", "signed"] = setting("signed", "z-score with its absolute value | as in the paper", "code, paper")
    scan: Literal["batch128", "task_mean"] = setting(
        "task_mean", "signal: largest mean over batches of 128 | one mean over the task", "released code, ours"
    )
    order: Literal["batch", "strict"] = setting(
        "strict",
        "batches first, blocks within them, until a pass adds nothing | block by block",
        "released code, paper",
    )
    stats: Literal["ring500", "heldout"] = setting(
        "heldout",
        "statistics of the last 500 errors in training | on a fifth held out from the descriptor",
        "code, ours",
    )
    sigma_floor: Literal["none", "small"] = setting("small", "floor of sigma: 0 | 1e-6 mu + 1e-12", "code, ours")
    min_scan_batch: int = setting(32, "fewest images whose mean may make a block grow", "ours; released code 1", ge=1)
    head_rows: Literal["decay", "frozen"] = setting(
        "frozen", "rows of other tasks' classes: shrink by weight decay | stay as they are", "released code, ours"
    )
    non_finite: Literal["ignore", "raise"] = setting(
        "raise", "an error that is not finite: never above the threshold | refused by its sample id", "code, ours"
    )
    new_column: Literal["default", "closed"] = setting(
        "default", "start of a router column: random | closed, which keeps the function (for diagnosis)", "code, ours"
    )


OFFICIAL = {
    "z": "abs", "scan": "batch128", "order": "batch", "stats": "ring500", "sigma_floor": "none", "min_scan_batch": 1,
    "head_rows": "decay", "non_finite": "ignore",
}  # fmt: skip
EXACT = {
    "z": "signed", "scan": "task_mean", "order": "strict", "stats": "heldout", "sigma_floor": "small",
    "min_scan_batch": 32, "head_rows": "frozen", "non_finite": "raise",
}  # fmt: skip

PRESETS = {
    "quick": {"epochs": 5, "rd_epochs": 10},
    "official": OFFICIAL,
    "exact": EXACT,
    # The released configurations, which differ in threshold and epochs only.
    "cifar100": {**OFFICIAL, "threshold": 2.0, "epochs": 5},
    "imagenet-r": {**OFFICIAL, "threshold": 2.0, "epochs": 20},
    "imagenet-a": {**OFFICIAL, "threshold": 1.0, "epochs": 20},
    "vtab": {**OFFICIAL, "threshold": 1.0, "epochs": 20},
}


SCAN_BATCH = 128
CLOSED = -6.0  # logit of a closed column, less the log-sum-exp of the others

Read = Mapping[str, Any]  # the adapters and router columns of all blocks, as `Grown.reads` hands them to a build


# Training: adapters, router columns and head rows, by cross-entropy among the task's own classes.


@builds(adapter="adapter", columns="router", head="checkpoint")
def train_first(
    samples: Samples,
    head: Tensors,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    start: int,
    classes: list[str],
    bottleneck: int,
    how: Optimisation,
) -> dict[str, Tensors]:
    """An adapter in every block, and the head. A softmax over one logit is 1, so columns only decay."""
    columns = [
        mixture.column(backbone.dim, seeds.generator("column", block)) for block in range(start, backbone.blocks)
    ]
    parts = {
        "adapter": adapters.init(backbone, bottleneck, seeds.generator("init")),
        "columns": {name: torch.cat([one[name] for one in columns]) for name in columns[0]},
        "head": head,
    }
    targets = samples.targets(classes).to(backbone.device)
    site = Frozen(samples, backbone, seeds, lambda x: backbone.site(0, x))

    def loss(live: dict[str, Tensors], batch: Batch) -> Tensor:
        branch = Mixtures.of({**live, "grown": {}}, start, backbone.device).branch
        h, y = site(batch)
        features = backbone.finish((h, y), branch)
        return F.cross_entropy(linear(features, live["head"]), targets[batch.rows])

    return fit_parts(_on_device(parts, backbone), loss, samples.ids, how, seeds, checkpoint)


@builds(adapter="adapter", column="router", head="checkpoint")
def train_addition(
    samples: Samples,
    stored: Tensors | None,
    read: Read,
    head: Tensors,
    closing: Tensors | None,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    start: int,
    block: int,
    classes: list[str],
    bottleneck: int,
    how: Optimisation,
) -> dict[str, Tensors]:
    """A new adapter and router column in `block`, and the head's rows; everything older is frozen.

    closing: the task's m in `block`, for a column that starts closed; None for a random one.
    """
    mixtures = Mixtures.of(read, start, backbone.device)

    def to_site(x: Tensor, branch: Attach) -> tuple[Tensor, ...]:
        return backbone.site(block, backbone.through(x, branch, start, block))

    site = frozen(samples, stored, mixtures, backbone, seeds, start, to_site)
    closed = closed_column(mixtures.stacks[block], closing["m"].to(backbone.device)) if closing else None
    parts = {
        "adapter": adapters.init(backbone, bottleneck, seeds.generator("init"), only=1),
        "column": closed or mixture.column(backbone.dim, seeds.generator("column")),
        "head": head,
    }
    targets = samples.targets(classes).to(backbone.device)

    def loss(live: dict[str, Tensors], batch: Batch) -> Tensor:
        branch = mixtures.with_addition(block, live["adapter"], live["column"])
        h, y = site(batch)
        features = backbone.finish((h, y), branch, first=block)
        return F.cross_entropy(linear(features, live["head"]), targets[batch.rows])

    return fit_parts(_on_device(parts, backbone), loss, samples.ids, how, seeds, checkpoint)


def closed_column(stack: Stack, m: Tensor) -> Tensors:
    """A column that hardly opens: W = 0, b = mean over m `(n, d)` of the others' log-sum-exp, less 6."""
    level = torch.logsumexp(F.linear(m, stack.columns, stack.column_bias), dim=1).mean()
    return {"weight": torch.zeros_like(stack.columns[:1]), "bias": (level + CLOSED)[None]}


@builds("head")
def train_rows(
    samples: Samples,
    stored: Tensors | None,
    read: Read,
    head: Tensors,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    start: int,
    classes: list[str],
    how: Optimisation,
) -> Tensors:
    """The head's rows of a task that added nothing, on frozen features."""
    targets = samples.targets(classes).to(backbone.device)

    def to_features(x: Tensor, branch: Attach) -> tuple[Tensor, ...]:
        return (backbone.finish(backbone.site(start, x), branch, first=start),)

    mixtures = Mixtures.of(read, start, backbone.device)
    features = frozen(samples, stored, mixtures, backbone, seeds, start, to_features)

    def loss(live: Tensors, batch: Batch) -> Tensor:
        return F.cross_entropy(linear(features(batch)[0], live), targets[batch.rows])

    return fit(on_device(head, backbone), loss, samples.ids, how, seeds, checkpoint)


@builds("head")
def settle(head: Tensors) -> Tensors:
    """The task's rows, as its last addition left them."""
    return dict(head)


# Representation descriptors: autoencoders of m, and the statistics of their errors.


@builds(descriptor="descriptor", statistics="statistics")
def train_descriptor(
    samples: Samples,
    stored: Tensors | None,
    plain: Tensors,
    read: Read,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    start: int,
    block: int,
    rd: str,
    rd_act: str,
    rd_share: float,
    stats: str,
    epochs: int,
    how: Optimisation,
) -> dict[str, Tensors]:
    """The descriptor of m in `block`, with mean, deviation and number of the errors that z-scores refer to.

    plain: m of the images without augmentation. epochs: those of the adapters' training, whose errors a ring takes too.
    """
    m, ids = plain["m"], samples.ids
    held = [row for row, sample in enumerate(ids) if stats == "heldout" and descriptors.held_out(sample)]
    kept = sorted(set(range(len(ids))) - set(held)) or held
    hidden = max(1, round(rd_share * backbone.dim))
    if rd == "pca":
        trained = descriptors.principal(m[kept], hidden)
    else:
        untrained = on_device(descriptors.new(backbone.dim, hidden, seeds), backbone)
        inputs = _inputs(samples, stored, m, read, backbone, seeds, start, block)
        # Errors of the adapters' epochs matter only where the descriptor's own do not push them out of the ring.
        few = stats == "ring500" and how.epochs * len(kept) < 2 * descriptors.RING + how.batch_size
        before = replace(how, epochs=epochs if few else 0)
        ring = descriptors.ring_before(untrained, inputs, ids, before, seeds, rd_act)
        trained, ring = descriptors.reconstructing(untrained, inputs, ids, kept, ring, how, seeds, rd_act, checkpoint)
    seen = descriptors.errors(trained, m[held].double(), rd_act) if stats == "heldout" else ring
    return {"descriptor": trained, "statistics": descriptors.statistics(seen)}


def _inputs(
    samples: Samples,
    stored: Tensors | None,
    plain: Tensor,
    read: Read,
    backbone: Backbone,
    seeds: Seeds,
    start: int,
    block: int,
) -> Inputs:
    """m of training batches in `block`: read back where no augmentation stands in front, else computed each time."""
    if samples.augment == "none":
        known = plain.to(backbone.device)
        return lambda batch: known[batch.rows]
    mixtures = Mixtures.of(read, start, backbone.device)
    pooled = frozen(samples, stored, mixtures, backbone, seeds, start, pooling(backbone, start, block))
    return lambda batch: pooled(batch)[0]


# Expansion: a block grows where the data look new to every descriptor that it has.


@builds("cache")
def scan_order(samples: Samples, *, seeds: Seeds, turn: int) -> Tensors:
    """The rows of a shard in the order in which pass `turn` of a scan visits them."""
    return {"rows": torch.tensor(seeds.order(samples.ids, "scan", turn))}


@builds(grow="decision", visited="checkpoint", zscores="evidence")
def scan(
    samples: Samples,
    pooled: list[Tensors],
    known: list[list[list[Tensors]]],
    order: Tensors | None,
    before: Tensors | None,
    *,
    blocks: list[int],
    threshold: float | str,
    z: str,
    rd_act: str,
    sigma_floor: str,
    min_scan_batch: int,
    non_finite: str,
) -> dict[str, Tensors]:
    """Which of `blocks` grows next, if any: the first, batch by batch, with min over RDs k of mean_i z_ik > tau.

    pooled, known: of each block m of the task, and pairs of descriptor and statistics. order: rows in batches of 128;
    None for all in one. before: what this pass had visited when an addition broke it off. grow: one flag a block, at
    most one set. zscores: of each block, the batch with the highest minimum.
    """
    tau = float(threshold)
    scores = [
        _z_scores(samples.ids, m["m"].double(), described, z == "signed", rd_act, sigma_floor == "small", non_finite)
        for m, described in zip(pooled, known, strict=True)
    ]
    batches = order["rows"].split(SCAN_BATCH) if order is not None else [torch.arange(len(samples))]
    visited = int(before["visited"]) if before is not None else 0
    grow = torch.zeros(len(blocks), dtype=torch.bool)
    best = [torch.full((one.shape[1],), -torch.inf) for one in scores]
    while visited < len(batches) and not grow.any():
        batch, visited = batches[visited], visited + 1
        first = strongest(scores, batch, best, tau) if len(batch) >= min_scan_batch else None
        if first is not None:
            grow[first] = True
    signal = torch.stack([one.min() for one in best])
    evidence = {"blocks": torch.tensor(blocks), "zbar": ragged(best), "signal": signal, "threshold": torch.tensor(tau)}
    return {"grow": {"grow": grow}, "visited": {"visited": torch.tensor(visited)}, "zscores": evidence}


def _z_scores(
    ids: Sequence[str],
    m: Tensor,
    described: list[list[Tensors]],
    signed: bool,
    activation: str,
    floor: bool,
    non_finite: str,
) -> Tensor:
    """z `(n, K)` of each image to each of a block's K descriptors."""
    columns = []
    for descriptor, statistics in described:
        errors = descriptors.errors(descriptor, m, activation)
        bad = torch.nonzero(~torch.isfinite(errors))
        if non_finite == "raise" and len(bad):
            raise NonFinite(f"the image '{ids[int(bad[0])]}' gives features that are not finite; remove it")
        columns.append(descriptors.z_scores(errors, statistics, signed, floor))
    return torch.stack(columns, 1)


def strongest(scores: list[Tensor], batch: Tensor, best: list[Tensor], tau: float) -> int | None:
    """The first block whose z-scores `(n, K)`, mean over the batch, are all above tau (0: always); updates `best`."""
    for place, one in enumerate(scores):
        means = one[batch].mean(0)
        if not means.min() <= best[place].min():
            best[place] = means
        if means.min() > tau or tau == 0:
            return place
    return None


@dataclass(frozen=True)
class Grown:
    """The first task's adapter (of every block) and router columns, and the additions of each block, oldest first."""

    first: Handle
    additions: Mapping[int, tuple[Handle, ...]]

    def reads(self, below: int | None = None) -> dict[str, Any]:
        """What a build reads, with the additions of all blocks, or of those below `below`."""
        kept = [block for block in sorted(self.additions) if below is None or block < below]
        return {
            "adapter": self.first["adapter"],
            "columns": self.first["columns"],
            "grown": {str(block): [[one["adapter"], one["column"]] for one in self.additions[block]] for block in kept},
        }

    def with_addition(self, block: int, addition: Handle) -> Grown:
        """These, and one adapter more in `block`."""
        return replace(self, additions={**self.additions, block: (*self.additions.get(block, ()), addition)})


@dataclass(frozen=True)
class Growing:
    """A task halfway: the adapters and head rows as its additions so far left them, and the entries that it made.

    prefix: the stream of its images at the first block that may grow. It is there before any decision and reads none.
    """

    grown: Grown
    head: Part
    prefix: Handle | None
    entries: Mapping[str, Handle] = field(default_factory=dict)
    additions: int = 0

    def noting(self, name: str, handle: Handle) -> Growing:
        """The same, and one entry more."""
        return replace(self, entries={**self.entries, name: handle})


class Sema(Strategy):
    """Adapters added where the data look new, mixed by a router."""

    title = "SEMA: adapters added where data look new, a router that mixes them"
    paper = "Wang et al., CVPR 2025, arXiv 2403.18886"
    Hyper = SemaHyper
    presets = PRESETS

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        self._check(task, first=not model.tasks)
        if not model.tasks:
            return self._finished(task, self._first(task, model))
        grown = self._grown(model)
        now = Growing(grown, self._start(task, model), self._prefix(task.train.plain, grown))
        grow = self._by_batch if self.hyper.order == "batch" else self._block_by_block
        return self._finished(task, grow(task, model, now))

    def scores(self, model: Model, samples: Samples) -> Handle:
        grown, plain = self._grown(model), samples.plain
        stored = self._prefix(plain, grown)
        features = self.component("features", mixture_features, plain, stored, grown.reads(), start=self._blocks.start)
        heads, places = self._places(model, model.classes)
        return self.component("scores", head_scores, features, heads, self._shrinks(model), places=places)

    def _first(self, task: Task, model: Model) -> Growing:
        """The first task: an adapter in every block, a descriptor in each one that may grow."""
        first = self.component(
            f"{task.id}/first", train_first, task.train, self._start(task, model), **self._training(task)
        )
        grown = Grown(first, {})
        prefix = self._prefix(task.train.plain, grown)
        now = Growing(grown, first["head"], prefix, {f"{task.id}/first": first}, additions=1)
        for block in self._blocks:
            now = now.noting(f"{task.id}/block-{block}/rd", self._descriptor(task, now, block))
        return now

    def _block_by_block(self, task: Task, model: Model, now: Growing) -> Growing:
        """One decision a block, shallow to deep; deeper blocks see what the shallower ones have added."""
        order = self._order(task, turn=0)
        for block in self._blocks:
            found = self._scan(f"{task.id}/block-{block}/grow", task, model, now, [block], order)
            now = now.noting(f"{task.id}/block-{block}/grow", found)
            if self.decide(found["grow"])["grow"].any():
                now = self._expanded(task, now, block)
        return now

    def _by_batch(self, task: Task, model: Model, now: Growing) -> Growing:
        """Scan in batches; an addition breaks the pass off, and it goes on behind; until a pass adds nothing."""
        waiting, turn, scans = list(self._blocks), 0, 0
        order = self._order(task, turn)
        before: Part | None = None  # what broke this pass off
        while waiting:
            name = f"{task.id}/scan-{scans}"
            found = self._scan(name, task, model, now, waiting, order, turn, before)
            now, scans = now.noting(name, found), scans + 1
            flags = self.decide(found["grow"])["grow"]
            if flags.any():
                block = waiting.pop(int(flags.nonzero()[0]))
                now, before = self._expanded(task, now, block), found["visited"]
            elif before is not None:
                turn, before = turn + 1, None
                order = self._order(task, turn)
            else:
                break
        return now

    def _scan(
        self,
        name: str,
        task: Task,
        model: Model,
        now: Growing,
        blocks: list[int],
        order: Handle | None,
        turn: int = 0,
        before: Part | None = None,
    ) -> Handle:
        """Pass `turn` over the task's images, from where `before` broke it off."""
        h = self.hyper
        images = task.train if h.scan == "batch128" else task.train.plain
        known = [
            [[rd["descriptor"], rd["statistics"]] for past in model.tasks
             if (rd := model.entries.get(f"{past.id}/block-{block}/rd"))]
            for block in blocks
        ]  # fmt: skip
        return self.component(
            name, scan, images, [self._pooled(task, images, now, block, turn) for block in blocks], known, order,
            before, blocks=blocks, threshold=h.threshold, z=h.z, rd_act=h.rd_act, sigma_floor=h.sigma_floor,
            min_scan_batch=h.min_scan_batch, non_finite=h.non_finite,
        )  # fmt: skip

    def _order(self, task: Task, turn: int) -> Handle | None:
        """The order of pass `turn`, fixed when the pass begins; None where the scan is one mean over the task."""
        if self.hyper.scan == "task_mean":
            return None
        return self.component(f"{task.id}/scan-order-{turn}", scan_order, task.train, turn=turn)

    def _expanded(self, task: Task, now: Growing, block: int) -> Growing:
        """`now` with an adapter, a router column and a descriptor more in `block`."""
        name, plain = f"{task.id}/block-{block}", task.train.plain
        closing = self._pooled(task, plain, now, block) if self.hyper.new_column == "closed" else None
        addition = self.component(
            name, train_addition, task.train, _stored(task.train, now), now.grown.reads(), now.head, closing,
            block=block, **self._training(task),
        )  # fmt: skip
        now = now.noting(name, addition).noting(f"{name}/rd", self._descriptor(task, now, block))
        grown = now.grown.with_addition(block, addition)
        return replace(now, grown=grown, head=addition["head"], additions=now.additions + 1)

    def _finished(self, task: Task, now: Growing) -> dict[str, Handle]:
        """All entries of the task: its rows, and how the routers mix the adapters on its images."""
        h, name, start = self.hyper, f"{task.id}/head", self._blocks.start
        if now.additions:
            head = self.component(name, settle, now.head)
        else:
            stored, classes = _stored(task.train, now), list(task.classes)
            head = self.component(
                name, train_rows, task.train, stored, now.grown.reads(), now.head, start=start, classes=classes,
                how=h.optimisation,
            )  # fmt: skip
        pooled = [self._pooled(task, task.train.plain, now, block) for block in self._blocks]
        routing = self.component(f"{task.id}/routing", mean_weights, pooled, now.grown.reads(), start=start)
        now = now.noting(name, head).noting(f"{task.id}/routing", routing)
        if h.head_rows == "decay":
            phases = max(1, now.additions)
            now = now.noting(
                f"{task.id}/shrink", self.component("shrink", shrink, task.train, phases=phases, how=h.optimisation)
            )
        return dict(now.entries)

    def _descriptor(self, task: Task, now: Growing, block: int) -> Handle:
        h, train = self.hyper, task.train
        how = replace(h.optimisation, epochs=h.rd_epochs, lr=h.rd_lr)
        return self.component(
            f"{task.id}/block-{block}/rd", train_descriptor, train, _stored(train, now),
            self._pooled(task, train.plain, now, block), now.grown.reads(below=block), start=self._blocks.start,
            block=block, rd=h.rd, rd_act=h.rd_act, rd_share=h.rd_share, stats=h.stats, epochs=h.epochs, how=how,
        )  # fmt: skip

    def _pooled(self, task: Task, images: Samples, now: Growing, block: int, turn: int = 0) -> Handle:
        """m of the task's images in `block`, as pass `turn` sees them."""
        view = turn if images.augment != "none" else 0
        return self.component(
            f"{task.id}/pooled-{view}", pooled_inputs, images, _stored(images, now), now.grown.reads(below=block),
            start=self._blocks.start, block=block, view=view,
        )  # fmt: skip

    def _prefix(self, plain: Samples, grown: Grown) -> Handle | None:
        """The shard's stream at the first block that may grow, where there is one below and it is small enough."""
        backbone, start = self._builder.backbone, self._blocks.start
        if start == 0 or not fits(plain, backbone.tokens, backbone.dim):
            return None
        return self.component("prefix", frozen_prefix, plain, grown.first["adapter"], block=start)

    def _grown(self, model: Model) -> Grown:
        additions = {
            block: tuple(model[name] for past in model.tasks if (name := f"{past.id}/block-{block}") in model)
            for block in self._blocks
        }
        return Grown(model[f"{model.tasks[0].id}/first"], {block: added for block, added in additions.items() if added})

    def _start(self, task: Task, model: Model) -> Part:
        """Where the rows of the task's classes start."""
        heads, places = self._places(model, task.classes)
        return self.component(
            f"{task.id}/rows", start_rows, task.train, heads, self._shrinks(model), classes=list(task.classes),
            places=places,
        ).sole  # fmt: skip

    def _places(self, model: Model, classes: Sequence[str]) -> tuple[list[Handle], Places]:
        """The newest heads that hold rows of `classes`, and where in them each class lies."""
        used, places = newest_rows([past.classes for past in model.tasks], classes)
        return [model[f"{model.tasks[number].id}/head"] for number in used], places

    def _shrinks(self, model: Model) -> list[Handle]:
        return [model[f"{past.id}/shrink"] for past in model.tasks] if self.hyper.head_rows == "decay" else []

    def _training(self, task: Task) -> dict[str, Any]:
        """How adapters are trained on this task."""
        h = self.hyper
        return {
            "start": self._blocks.start, "classes": list(task.classes), "bottleneck": h.bottleneck,
            "how": h.optimisation,
        }  # fmt: skip

    @property
    def _blocks(self) -> range:
        """The blocks that may grow."""
        blocks, _ = self._builder.backbone.require_sites("SEMA's adapters")
        return range(max(0, blocks - self.hyper.growing), blocks)

    def _check(self, task: Task, first: bool) -> None:
        h, count, fewest = self.hyper, len(task.train), descriptors.FEWEST
        if h.rd == "pca" and h.stats != "heldout":
            raise BadInput("rd = pca fits the images it saw too well for statistics on them; add --set stats=heldout")
        held = sum(map(descriptors.held_out, task.train.ids))
        if h.stats == "heldout" and held < fewest:
            self.warn(
                f"task '{task.id}' has {held} images to take statistics on, fewer than {fewest}: a descriptor made "
                "from it never calls data new"
            )
        if not first and count < h.min_scan_batch:
            self.warn(
                f"task '{task.id}' has {count} images, fewer than min_scan_batch = {h.min_scan_batch}: it adds nothing"
            )


def _stored(images: Samples, now: Growing) -> Handle | None:
    """The prefix of the task's images, where no augmentation stands in front."""
    return now.prefix if images.augment == "none" else None


def _on_device(parts: Mapping[str, Tensors], backbone: Backbone) -> dict[str, Tensors]:
    return {part: on_device(tensors, backbone) for part, tensors in parts.items()}
