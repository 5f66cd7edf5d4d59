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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor
from torch.nn import functional as F

from cl import descriptors
from cl.adapters import bottleneck as adapters
from cl.adapters import mixture
from cl.adapters.mixture import Stack
from cl.backbone import BATCH, Attach, Backbone, rows
from cl.build import Checkpoint, Handle, Part, builds
from cl.errors import BadInput, NonFinite
from cl.heads import uniform_rows
from cl.hyper import Training, hyperparameters, setting
from cl.prefix import entering, fits, frozen_prefix
from cl.seeds import Seeds
from cl.store import Tensors
from cl.strategy import Model, Strategy
from cl.stream import Samples, Task
from cl.train import Batch, Frozen, Optimisation, fit

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
        2.0, "z-score from 0 up, above which a block grows; inf: never", "released CIFAR-100"
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
RING = 500
CLOSED = -6.0  # logit of a closed column, less the log-sum-exp of the others

Opened = Mapping[str, Any]  # the mixtures of all blocks, as `Mixtures.reads` hands them to a build


# Frozen passes: from the stream that enters the first block that may grow, stored or computed from the images.


def frozen(
    samples: Samples,
    stored: Tensors | None,
    mixtures: Opened,
    backbone: Backbone,
    seeds: Seeds,
    start: int,
    after: Callable[[Tensor, Attach], tuple[Tensor, ...]],
) -> Frozen:
    """`after`, a function of the stream that enters block `start` and of the adapters' branch, for training batches."""
    branch = mixture.attach(mixtures["adapter"], mixture.stacks(mixtures, start))
    stream = stored["stream"] if stored else None
    return Frozen(samples, backbone, seeds, lambda x: after(x, branch), block=start, below=branch, stored=stream)


def every_row(function: Frozen, samples: Samples, view: int = 0) -> Tensor:
    """The function's first tensor for all images, seen as in epoch `view`, on the CPU."""
    rows_of = [range(start, min(start + BATCH, len(samples))) for start in range(0, len(samples), BATCH)]
    batches = [Batch(list(place), [samples.ids[row] for row in place], view) for place in rows_of]
    return torch.cat([function(batch)[0].cpu() for batch in batches])


def pooling(backbone: Backbone, start: int, block: int) -> Callable[[Tensor, Attach], tuple[Tensor, ...]]:
    """m `(n, d)` of `block`, from the stream that enters `start`."""

    def pooled(x: Tensor, branch: Attach) -> tuple[Tensor, ...]:
        h, _ = backbone.site(block, backbone.through(x, branch, start, block))
        return (h.mean(1),)

    return pooled


@builds("cache")
def pooled_inputs(
    samples: Samples,
    stored: Tensors | None,
    mixtures: Opened,
    *,
    backbone: Backbone,
    seeds: Seeds,
    start: int,
    block: int,
    view: int,
) -> Tensors:
    """m `(n, d)` of `block`, what descriptors and router see; images as in epoch `view`."""
    m = frozen(samples, stored, _on(mixtures, backbone), backbone, seeds, start, pooling(backbone, start, block))
    return {"m": every_row(m, samples, view)}


@builds("cache")
def mixture_features(
    samples: Samples, stored: Tensors | None, mixtures: Opened, *, backbone: Backbone, start: int
) -> Tensors:
    """Features `(n, d)` under the mixtures of all blocks."""
    mixtures = _on(mixtures, backbone)
    branch = mixture.attach(mixtures["adapter"], mixture.stacks(mixtures, start))
    streams = entering(samples, backbone, start, branch, stored["stream"] if stored else None)
    return {
        "features": rows(backbone, streams, lambda x: backbone.finish(backbone.site(start, x), branch, first=start))
    }


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
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
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

    def loss(live: Tensors, batch: Batch) -> Tensor:
        now = _split(live)
        stacked = mixture.stacks({**now, "grown": {}}, start)
        h, y = site(batch)
        features = backbone.finish((h, y), mixture.attach(now["adapter"], stacked), lean=True)
        return F.cross_entropy(_logits(features, now["head"]), targets[batch.rows])

    how = Optimisation(epochs, batch_size, lr, weight_decay)
    return _split(fit(_joined(_on(parts, backbone)), loss, samples.ids, how, seeds, checkpoint))


@builds(adapter="adapter", column="router", head="checkpoint")
def train_addition(
    samples: Samples,
    stored: Tensors | None,
    mixtures: Opened,
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
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
) -> dict[str, Tensors]:
    """A new adapter and router column in `block`, and the head's rows; everything older is frozen.

    closing: the task's m in `block`, for a column that starts closed; None for a random one.
    """
    mixtures = _on(mixtures, backbone)
    others, (old, columns) = mixture.stacks(mixtures, start), mixture.members(mixtures, block, start)

    def to_site(x: Tensor, branch: Attach) -> tuple[Tensor, ...]:
        return backbone.site(block, backbone.through(x, branch, start, block))

    site = frozen(samples, stored, mixtures, backbone, seeds, start, to_site)
    closed = closed_column(others[block], closing["m"].to(backbone.device)) if closing else None
    parts = {
        "adapter": adapters.init(backbone, bottleneck, seeds.generator("init"), only=1),
        "column": closed or mixture.column(backbone.dim, seeds.generator("column")),
        "head": head,
    }
    targets = samples.targets(classes).to(backbone.device)

    def loss(live: Tensors, batch: Batch) -> Tensor:
        now = _split(live)
        grown = Stack.of([*old, now["adapter"]], [*columns, now["column"]])
        branch = mixture.attach(mixtures["adapter"], {**others, block: grown})
        h, y = site(batch)
        features = backbone.finish((h, y), branch, lean=True, first=block)
        return F.cross_entropy(_logits(features, now["head"]), targets[batch.rows])

    how = Optimisation(epochs, batch_size, lr, weight_decay)
    return _split(fit(_joined(_on(parts, backbone)), loss, samples.ids, how, seeds, checkpoint))


def closed_column(stack: Stack, m: Tensor) -> Tensors:
    """A column that hardly opens: W = 0, b = mean over m `(n, d)` of the others' log-sum-exp, less 6."""
    level = torch.logsumexp(F.linear(m, stack.columns, stack.column_bias), dim=1).mean()
    return {"weight": torch.zeros_like(stack.columns[:1]), "bias": (level + CLOSED)[None]}


@builds("head")
def train_rows(
    samples: Samples,
    stored: Tensors | None,
    mixtures: Opened,
    head: Tensors,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    start: int,
    classes: list[str],
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
) -> Tensors:
    """The head's rows of a task that added nothing, on frozen features."""
    targets = samples.targets(classes).to(backbone.device)

    def to_features(x: Tensor, branch: Attach) -> tuple[Tensor, ...]:
        return (backbone.finish(backbone.site(start, x), branch, first=start),)

    features = frozen(samples, stored, _on(mixtures, backbone), backbone, seeds, start, to_features)

    def loss(live: Tensors, batch: Batch) -> Tensor:
        return F.cross_entropy(_logits(features(batch)[0], live), targets[batch.rows])

    how = Optimisation(epochs, batch_size, lr, weight_decay)
    return fit(_on(head, backbone), loss, samples.ids, how, seeds, checkpoint)


# The head: a row and a bias for each class, shared by all tasks; a task trains its own rows only.

Places = list[list[int]]  # of each class: head among those given (-1 for none), row in it, first shrink since then


@builds("checkpoint")
def start_rows(
    heads: list[Tensors],
    shrinks: list[Tensors],
    *,
    backbone: Backbone,
    seeds: Seeds,
    classes: list[str],
    places: Places,
) -> Tensors:
    """Where a task's rows start, weight `(c, d)` and bias: the class's newest row, or a new one seeded by its name."""
    fresh = {"weight": uniform_rows(classes, backbone.dim, seeds), "bias": torch.zeros(len(classes))}
    sources = [[-1, row, since] if head < 0 else [head, old, since] for row, (head, old, since) in enumerate(places)]
    return gathered([*heads, fresh], shrinks, sources)


@builds("cache")
def linear_scores(features: Tensors, heads: list[Tensors], shrinks: list[Tensors], *, places: Places) -> Tensors:
    """Logits `(n, classes)` of the shared head."""
    # Head by head: a product of another shape rounds otherwise, and a new task must not move the old logits.
    every = [_logits(features["features"], head) for head in heads]
    return {"scores": torch.stack([every[head][:, row] * factor(shrinks, since) for head, row, since in places], dim=1)}


def gathered(heads: list[Tensors], shrinks: list[Tensors], places: Places) -> Tensors:
    """The rows at `places`, each times all shrinks since it was trained."""
    return {
        name: torch.stack([heads[head][name][row] * factor(shrinks, since) for head, row, since in places])
        for name in ("weight", "bias")
    }


def factor(shrinks: list[Tensors], since: int) -> float:
    """The product of all shrinks from number `since` on."""
    return math.prod(one["factor"].item() for one in shrinks[since:])


@builds("head")
def settle(head: Tensors) -> Tensors:
    """The task's rows, as its last addition left them."""
    return dict(head)


@builds("statistics")
def shrink(samples: Samples, *, phases: int, epochs: int, batch_size: int, lr: float, weight_decay: float) -> Tensors:
    """The factor that a task's weight decay puts on every row it does not train.

    The released code keeps all rows in the optimiser: the number of steps of one task shows in the rows of all others.
    """
    steps, value = math.ceil(len(samples) / batch_size), 1.0
    for _ in range(phases):
        velocity = 0.0
        for epoch in range(epochs):
            rate = lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
            for _ in range(steps):
                velocity = Optimisation.momentum * velocity + weight_decay * value
                value -= rate * velocity
    return {"factor": torch.tensor(value, dtype=torch.float64)}


# Representation descriptors: autoencoders of m, and the statistics of their errors.


@builds(descriptor="descriptor", statistics="statistics")
def train_descriptor(
    samples: Samples,
    stored: Tensors | None,
    mixtures: Opened,
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
    rd_epochs: int,
    batch_size: int,
    rd_lr: float,
    weight_decay: float,
) -> dict[str, Tensors]:
    """The descriptor of m in `block`, with mean, deviation and number of the errors that z-scores refer to."""
    pooled = frozen(samples, stored, _on(mixtures, backbone), backbone, seeds, start, pooling(backbone, start, block))
    m = every_row(pooled, samples)
    held = [row for row, sample in enumerate(samples.ids) if stats == "heldout" and descriptors.held_out(sample)]
    kept = sorted(set(range(len(samples))) - set(held)) or held
    untrained = descriptors.new(backbone.dim, max(1, round(rd_share * backbone.dim)), seeds)
    if rd == "pca":
        hidden = len(untrained["encode.bias"])
        trained, met = descriptors.principal(m[kept], hidden), m.new_zeros(0)
    else:
        how = Optimisation(rd_epochs, batch_size, rd_lr, weight_decay)
        trained, met = reconstruct(samples, pooled, kept, _on(untrained, backbone), how, seeds, rd_act, checkpoint)
    if stats == "heldout":
        seen = descriptors.errors(trained, m[held].double(), rd_act)
    else:  # the released code's ring also takes the errors of the adapters' epochs, before the descriptor is trained
        seen = torch.cat([*[descriptors.errors(untrained, m, rd_act)] * epochs, met])[-RING:]
    return {"descriptor": trained, "statistics": descriptors.statistics(seen)}


def reconstruct(
    samples: Samples,
    pooled: Frozen,
    kept: list[int],
    start: Tensors,
    how: Optimisation,
    seeds: Seeds,
    act: str,
    checkpoint: Checkpoint,
) -> tuple[Tensors, Tensor]:
    """The descriptor trained on the rows `kept`, and the last errors that it met on the way."""
    ring = torch.full((RING,), torch.nan)

    def loss(live: Tensors, batch: Batch) -> Tensor:
        m = pooled(replace(batch, rows=[kept[row] for row in batch.rows]))[0]
        errors = descriptors.errors(live, m, act)
        ring.copy_(torch.cat([ring, errors.detach().cpu()])[-RING:])
        return errors.mean()

    trained = fit(start, loss, [samples.ids[row] for row in kept], how, seeds, checkpoint, kept={"ring": ring})
    return trained, ring[~ring.isnan()]


# Expansion: a block grows where the data look new to every descriptor that it has.


@builds(grow="decision", place="checkpoint", zscores="evidence")
def scan(
    samples: Samples,
    pooled: list[Tensors],
    known: list[list[list[Tensors]]],
    place: Tensors | None,
    *,
    seeds: Seeds,
    blocks: list[int],
    threshold: float | str,
    z: str,
    scan: str,
    rd_act: str,
    sigma_floor: str,
    min_scan_batch: int,
    non_finite: str,
) -> dict[str, Tensors]:
    """Which of `blocks` grows next, if any: the first, batch by batch, with min over RDs k of mean_i z_ik > tau.

    pooled, known: of each block m of the task, and pairs of descriptor and statistics. place: where the last scan
    stopped. grow: one flag a block, at most one set. zscores: of each block, the batch with the highest minimum.
    """
    scores = []
    for one, described in zip(pooled, known, strict=True):
        found = [descriptors.errors(descriptor, one["m"].double(), rd_act) for descriptor, _ in described]
        if non_finite == "raise":
            refuse_non_finite(samples.ids, found)
        pairs = zip(found, described, strict=True)
        floor, signed = sigma_floor == "small", z == "signed"
        scores.append(torch.stack([descriptors.z_scores(r, stats, signed, floor) for r, (_, stats) in pairs], 1))
    grow, best = torch.zeros(len(blocks), dtype=torch.bool), [torch.full((one.shape[1],), -torch.inf) for one in scores]
    stop = torch.zeros(2, dtype=torch.int64)
    for batch, behind in visits(samples.ids, seeds, SCAN_BATCH if scan == "batch128" else len(samples), place):
        first = strongest(scores, batch, best, float(threshold)) if len(batch) >= min_scan_batch else None
        if first is not None:
            grow[first], stop = True, behind
            break
    return {"grow": {"grow": grow}, "place": {"place": stop}, "zscores": _evidence(blocks, best, float(threshold))}


def visits(ids: Sequence[str], seeds: Seeds, size: int, place: Tensors | None) -> Iterator[tuple[list[int], Tensor]]:
    """Batches still to be scanned, with the place (pass, next batch) behind each: the rest of the pass that was broken
    off by an addition and, because it added something, one pass more; or a first pass."""
    turn, start = place["place"].tolist() if place else (0, 0)
    for number in range(turn, turn + (2 if place else 1)):
        order = seeds.order(ids, "scan", number)
        chunks = [order[at : at + size] for at in range(0, len(order), size)]
        for count, chunk in enumerate(chunks):
            if number > turn or count >= start:
                yield chunk, torch.tensor([number, count + 1])


def strongest(scores: list[Tensor], batch: list[int], best: list[Tensor], threshold: float) -> int | None:
    """The first block whose z-scores `(n, K)`, mean over the batch, are all above the threshold; `best` is updated."""
    for place, one in enumerate(scores):
        means = one[batch].mean(0)
        if not means.min() <= best[place].min():
            best[place] = means
        if means.min() > threshold:
            return place
    return None


def refuse_non_finite(ids: Sequence[str], found: list[Tensor]) -> None:
    """Raises NonFinite, naming a sample, if an error is not finite."""
    for errors in found:
        bad = torch.nonzero(~torch.isfinite(errors))
        if len(bad):
            raise NonFinite(f"the image '{ids[int(bad[0])]}' gives features that are not finite; remove it")


def _evidence(blocks: list[int], best: list[Tensor], threshold: float) -> Tensors:
    """zbar `(blocks, K)`, NaN where a block has fewer descriptors, the signal min over k of it, and the threshold."""
    zbar = _ragged(best)
    signal = torch.stack([one.min() for one in best])
    return {"blocks": torch.tensor(blocks), "zbar": zbar, "signal": signal, "threshold": torch.tensor(threshold)}


@builds(routing="evidence")
def route(pooled: list[Tensors], mixtures: Opened, *, start: int) -> dict[str, Tensors]:
    """The router's mean weight of each adapter on the task's images: weights `(blocks, K)`, NaN where there is none."""
    stacked = mixture.stacks(mixtures, start)
    means = [stack.weights(m["m"]).mean(0) for stack, m in zip(stacked.values(), pooled, strict=True)]
    return {"routing": {"blocks": torch.tensor(list(stacked)), "weights": _ragged(means)}}


@dataclass(frozen=True)
class Mixtures:
    """The first task's adapter (of every block) and router columns, and the additions of each block, oldest first."""

    first: Handle
    grown: Mapping[int, tuple[Handle, ...]]

    def reads(self, below: int | None = None) -> dict[str, Any]:
        """What a build reads, with the additions of all blocks, or of those below `below`."""
        kept = [block for block in sorted(self.grown) if below is None or block < below]
        return {
            "adapter": self.first["adapter"],
            "columns": self.first["columns"],
            "grown": {str(block): [[one["adapter"], one["column"]] for one in self.grown[block]] for block in kept},
        }

    def with_addition(self, block: int, addition: Handle) -> Mixtures:
        """These, and one adapter more in `block`."""
        return replace(self, grown={**self.grown, block: (*self.grown.get(block, ()), addition)})


@dataclass(frozen=True)
class Growing:
    """A task halfway: the mixtures and head rows as its additions so far left them, and the entries that it made."""

    mixtures: Mixtures
    head: Part
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
        self._check(task)
        if not model.tasks:
            return self._finished(task, self._first(task, model))
        now = Growing(self._mixtures(model), self._start(task, model))
        grow = self._by_batch if self.hyper.order == "batch" else self._block_by_block
        return self._finished(task, grow(task, model, now))

    def scores(self, model: Model, samples: Samples) -> Handle:
        mixtures, plain = self._mixtures(model), samples.plain
        stored = self._stored(plain, mixtures)
        features = self.component(
            "features", mixture_features, plain, stored, mixtures.reads(), start=self._start_block
        )
        heads, places = self._places(model, model.classes)
        return self.component("scores", linear_scores, features, heads, self._shrinks(model), places=places)

    def _first(self, task: Task, model: Model) -> Growing:
        """The first task: an adapter in every block, a descriptor in each one that may grow."""
        h, head = self.hyper, self._start(task, model)
        first = self.component(
            f"{task.id}/first", train_first, task.train, head, start=self._start_block, classes=list(task.classes),
            bottleneck=h.bottleneck, **self._training,
        )  # fmt: skip
        now = Growing(Mixtures(first, {}), first["head"], {f"{task.id}/first": first}, additions=1)
        for block in self._blocks:
            now = now.noting(f"{task.id}/block-{block}/rd", self._descriptor(task, now.mixtures, block))
        return now

    def _block_by_block(self, task: Task, model: Model, now: Growing) -> Growing:
        """One decision a block, shallow to deep; deeper blocks see what the shallower ones have added."""
        for block in self._blocks:
            name = f"{task.id}/block-{block}/grow"
            found = self._scan(name, task, model, now, [block], None)
            now = now.noting(name, found)
            if self.decide(found["grow"])["grow"].any():
                now = self._expanded(task, now, block)
        return now

    def _by_batch(self, task: Task, model: Model, now: Growing) -> Growing:
        """Scan in batches until a pass adds nothing; a block grows once."""
        waiting, place = list(self._blocks), None
        while waiting:
            name = f"{task.id}/scan-{now.additions}"
            found = self._scan(name, task, model, now, waiting, place)
            now, place = now.noting(name, found), found["place"]
            flags = self.decide(found["grow"])["grow"]
            if not flags.any():
                break
            block = waiting[int(flags.nonzero()[0])]
            waiting = [other for other in waiting if other != block]
            now = self._expanded(task, now, block)
        return now

    def _scan(self, name: str, task: Task, model: Model, now: Growing, blocks: list[int], place: Part | None) -> Handle:
        h = self.hyper
        images = task.train if h.scan == "batch128" else task.train.plain
        view = now.additions if images.augment != "none" else 0
        pooled = [self._pooled(task, images, now.mixtures, block, view) for block in blocks]
        known = [
            [[rd["descriptor"], rd["statistics"]] for past in model.tasks
             if (rd := model.entries.get(f"{past.id}/block-{block}/rd"))]
            for block in blocks
        ]  # fmt: skip
        return self.component(
            name, scan, images, pooled, known, place, blocks=blocks, threshold=h.threshold, z=h.z, scan=h.scan,
            rd_act=h.rd_act, sigma_floor=h.sigma_floor, min_scan_batch=h.min_scan_batch, non_finite=h.non_finite,
        )  # fmt: skip

    def _expanded(self, task: Task, now: Growing, block: int) -> Growing:
        """`now` with an adapter, a router column and a descriptor more in `block`."""
        h, name = self.hyper, f"{task.id}/block-{block}"
        stored = self._stored(task.train, now.mixtures)
        closed = h.new_column == "closed"
        closing = self._pooled(task, task.train.plain, now.mixtures, block, 0) if closed else None
        addition = self.component(
            name, train_addition, task.train, stored, now.mixtures.reads(), now.head, closing, start=self._start_block,
            block=block, classes=list(task.classes), bottleneck=h.bottleneck, **self._training,
        )  # fmt: skip
        entries = {**now.entries, name: addition, f"{name}/rd": self._descriptor(task, now.mixtures, block)}
        return Growing(now.mixtures.with_addition(block, addition), addition["head"], entries, now.additions + 1)

    def _finished(self, task: Task, now: Growing) -> dict[str, Handle]:
        """All entries of the task: its rows, and how the router mixes the adapters on its images."""
        name, training = f"{task.id}/head", self._training
        if now.additions:
            head = self.component(name, settle, now.head)
        else:
            stored, reads = self._stored(task.train, now.mixtures), now.mixtures.reads()
            head = self.component(
                name, train_rows, task.train, stored, reads, now.head, start=self._start_block,
                classes=list(task.classes), **training,
            )  # fmt: skip
        pooled = [self._pooled(task, task.train.plain, now.mixtures, block, 0) for block in self._blocks]
        routing = self.component(f"{task.id}/routing", route, pooled, now.mixtures.reads(), start=self._start_block)
        entries = {**now.entries, name: head, f"{task.id}/routing": routing}
        if self.hyper.head_rows == "decay":
            phases = max(1, now.additions)
            entries[f"{task.id}/shrink"] = self.component("shrink", shrink, task.train, phases=phases, **training)
        return entries

    def _descriptor(self, task: Task, mixtures: Mixtures, block: int) -> Handle:
        h = self.hyper
        return self.component(
            f"{task.id}/block-{block}/rd", train_descriptor, task.train, self._stored(task.train, mixtures),
            mixtures.reads(below=block), start=self._start_block, block=block, rd=h.rd, rd_act=h.rd_act,
            rd_share=h.rd_share, stats=h.stats, rd_epochs=h.rd_epochs, rd_lr=h.rd_lr, epochs=h.epochs,
            batch_size=h.batch_size, weight_decay=h.weight_decay,
        )  # fmt: skip

    def _pooled(self, task: Task, images: Samples, mixtures: Mixtures, block: int, view: int) -> Handle:
        stored, start = self._stored(images, mixtures), self._start_block
        reads = mixtures.reads(below=block)
        return self.component(
            f"{task.id}/pooled", pooled_inputs, images, stored, reads, start=start, block=block, view=view
        )

    def _stored(self, samples: Samples, mixtures: Mixtures) -> Handle | None:
        """The shard's stream at the first block that may grow, where it never changes and is worth keeping."""
        backbone, start = self._builder.backbone, self._start_block
        if start == 0 or samples.augment != "none" or not fits(samples, backbone.tokens, backbone.dim):
            return None
        return self.component("prefix", frozen_prefix, samples, mixtures.first["adapter"], block=start)

    def _mixtures(self, model: Model) -> Mixtures:
        grown = {
            block: tuple(model[name] for past in model.tasks if (name := f"{past.id}/block-{block}") in model)
            for block in self._blocks
        }
        return Mixtures(model[f"{model.tasks[0].id}/first"], {block: added for block, added in grown.items() if added})

    def _start(self, task: Task, model: Model) -> Part:
        """Where the rows of the task's classes start."""
        heads, places = self._places(model, task.classes)
        classes, shrinks = list(task.classes), self._shrinks(model)
        return self.component(f"{task.id}/rows", start_rows, heads, shrinks, classes=classes, places=places).sole

    def _places(self, model: Model, classes: Sequence[str]) -> tuple[list[Handle], Places]:
        """The newest heads that hold rows of `classes`, and where in them each class lies."""
        newest = {name: number for number, past in enumerate(model.tasks) for name in past.classes}
        used = sorted({newest[name] for name in classes if name in newest})
        places = []
        for name in classes:
            number = newest.get(name, -1)
            row = model.tasks[number].classes.index(name) if name in newest else 0
            places.append([used.index(number) if name in newest else -1, row, number + 1])
        return [model[f"{model.tasks[number].id}/head"] for number in used], places

    def _shrinks(self, model: Model) -> list[Handle]:
        return [model[f"{past.id}/shrink"] for past in model.tasks] if self.hyper.head_rows == "decay" else []

    @property
    def _training(self) -> dict[str, Any]:
        h = self.hyper
        return {"epochs": h.epochs, "batch_size": h.batch_size, "lr": h.lr, "weight_decay": h.weight_decay}

    @property
    def _blocks(self) -> range:
        """The blocks that may grow."""
        blocks, _ = self._builder.backbone.require_sites("SEMA's adapters")
        return range(max(0, blocks - self.hyper.growing), blocks)

    @property
    def _start_block(self) -> int:
        return self._blocks.start

    def _check(self, task: Task) -> None:
        if self.hyper.rd == "pca" and self.hyper.stats != "heldout":
            raise BadInput("rd = pca fits the images it saw too well for statistics on them; add --set stats=heldout")
        held = sum(map(descriptors.held_out, task.train.ids))
        if self.hyper.stats == "heldout" and held < descriptors.FEWEST:
            self.warn(
                f"task '{task.id}' has {held} images to take statistics on, fewer than {descriptors.FEWEST}: "
                "a descriptor made from it never calls data new"
            )


def _logits(features: Tensor, head: Mapping[str, Tensor]) -> Tensor:
    return F.linear(features, head["weight"], head["bias"])


def _joined(parts: Mapping[str, Tensors]) -> Tensors:
    """Named tensors of several parts as one mapping, names like `part/name`."""
    return {f"{part}/{name}": value for part, tensors in parts.items() for name, value in tensors.items()}


def _split(joined: Tensors) -> dict[str, Tensors]:
    """The parts that `_joined` put together."""
    parts: dict[str, Tensors] = {}
    for place, value in joined.items():
        part, _, name = place.partition("/")
        parts.setdefault(part, {})[name] = value
    return parts


def _on(tensors: Any, backbone: Backbone) -> Any:
    """Tensors in nested mappings and lists, on the backbone's device."""
    if isinstance(tensors, Tensor):
        return tensors.to(backbone.device)
    if isinstance(tensors, Mapping):
        return {name: _on(value, backbone) for name, value in tensors.items()}
    return [_on(value, backbone) for value in tensors]


def _ragged(uneven: Sequence[Tensor]) -> Tensor:
    """Rows of unequal length as `(rows, longest)`, filled up with NaN."""
    return torch.nn.utils.rnn.pad_sequence(list(uneven), batch_first=True, padding_value=torch.nan)
