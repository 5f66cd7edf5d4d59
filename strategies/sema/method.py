"""SEMA: self-expansion of pre-trained models with mixture of adapters.

Wang, Lu, Yao, Gong, "Self-Expansion of Pre-trained Models with Mixture of Adapters for Continual Learning", CVPR 2025,
arXiv 2403.18886. With h the stream `(tokens, d)` after attention in block l and m its mean over the tokens, K adapters
of a block, one of them in every block from the first task on, add

    sum_k w_k A_k(h)      A_k(h) = U_k relu(D_k h + b_k) + c_k      w = softmax(W m + b)                the mixture

In the last blocks, each adapter has a descriptor, an autoencoder AE_k of m with mean mu_k and deviation sigma_k of its
errors r_k = mean (AE_k(m) - m)^2. A later task adds an adapter, a router column and a descriptor to such a block where

    min_k mean_i z_ik > tau      z_ik = (r_ik - mu_k) / sigma_k                          the expansion signal

over its images i: from shallow to deep, at most once a block. Everything older is frozen. A task that adds nothing
trains its rows of the classifier only.

Where paper, released code and this engine differ, options are named; the preset `official` follows the released code,
`exact` (the default) makes a decision depend on nothing but the task as a whole, so that few deletions change one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cl import Handle, Model, Part, Samples, Strategy, Task, hyperparameters, setting
from cl.errors import BadInput
from cl.learning.hyper import Training
from cl.learning.prefix import fits, frozen_prefix
from strategies.sema import descriptors
from strategies.sema.ablations import start_closed
from strategies.sema.descriptors import Descriptor, train_descriptor
from strategies.sema.expansion import Adapters, Expansion, Pass
from strategies.sema.passes import mean_weights, mixture_features, pooled_inputs
from strategies.sema.presets import PRESETS
from strategies.sema.released import batch_by_batch, scan_order
from strategies.sema.scanning import Scan, scan
from strategies.sema.shared_head import Places, head_scores, newest_rows, shrink, start_rows
from strategies.sema.training import Addition, Objective, settle, train_addition, train_first, train_rows

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

    @property
    def descriptor(self) -> Descriptor:
        """How descriptors are fitted by these settings."""
        how = replace(self.optimisation, epochs=self.rd_epochs, lr=self.rd_lr)
        return Descriptor(self.rd, self.rd_share, self.rd_act, self.stats, how, self.epochs)

    @property
    def rule(self) -> Scan:
        """When data are new by these settings."""
        return Scan(self.threshold, self.z, self.sigma_floor, self.min_scan_batch, self.non_finite, self.rd_act)


class Sema(Strategy[SemaHyper]):
    """Adapters added where the data look new, mixed by a router."""

    title = "SEMA: adapters added where data look new, a router that mixes them"
    paper = "Wang et al., CVPR 2025, arXiv 2403.18886"
    Hyper = SemaHyper
    presets = PRESETS

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        self._check(task, first=not model.tasks)
        if not model.tasks:
            return self._entries(task, self._first(task, model))
        adapters = self._adapters(model)
        begun = Expansion(adapters, self._start(task, model), self._prefix(task.train.plain, adapters))
        expand = self._batch_by_batch if self.hyper.order == "batch" else self._block_by_block
        return self._entries(task, expand(task, model, begun))

    def scores(self, model: Model, samples: Samples) -> Handle:
        adapters, plain = self._adapters(model), samples.plain
        reads = adapters.reads(self._prefix(plain, adapters))
        features = self.component("features", mixture_features, plain, reads)
        heads, places = self._places(model, model.classes)
        return self.component("scores", head_scores, features, heads, self._shrinks(model), places=places)

    def _first(self, task: Task, model: Model) -> Expansion:
        """The first task: an adapter in every block, a descriptor in each one that may grow."""
        name, rows = f"{task.id}/first", self._start(task, model)
        first = self.component(
            name,
            train_first,
            task.train,
            rows,
            start=self._blocks.start,
            bottleneck=self.hyper.bottleneck,
            objective=self._objective(task),
        )
        adapters = Adapters(first, {})
        prefix = self._prefix(task.train.plain, adapters)
        expansion = Expansion(adapters, first["head"], prefix, {name: first}, additions=1)
        for block in self._blocks:
            expansion = expansion.noting(f"{task.id}/block-{block}/rd", self._descriptor(task, expansion, block))
        return expansion

    def _block_by_block(self, task: Task, model: Model, expansion: Expansion) -> Expansion:
        """One decision a block, shallow to deep; deeper blocks see what the shallower ones have added."""
        scanned = self._pass(task, turn=0)
        for block in self._blocks:
            name = f"{task.id}/block-{block}/grow"
            expansion, grows, _ = self._decision(task, model, expansion, name, [block], scanned)
            if grows is not None:
                expansion = self._expand(task, expansion, block)
        return expansion

    def _batch_by_batch(self, task: Task, model: Model, expansion: Expansion) -> Expansion:
        """The released code's order, in which a shallower block may grow after a deeper one."""

        def decide(
            expansion: Expansion, number: int, blocks: list[int], scanned: Pass
        ) -> tuple[Expansion, int | None, Part]:
            return self._decision(task, model, expansion, f"{task.id}/scan-{number}", blocks, scanned)

        start_pass, expand = partial(self._pass, task), partial(self._expand, task)
        return batch_by_batch(expansion, self._blocks, start_pass, decide, expand)

    def _pass(self, task: Task, turn: int) -> Pass:
        """A pass over the task's images; their order is fixed when it begins."""
        if self.hyper.scan == "task_mean":
            return Pass(turn, None)
        return Pass(turn, self.component(f"{task.id}/scan-order-{turn}", scan_order, task.train, turn=turn))

    def _decision(
        self, task: Task, model: Model, expansion: Expansion, name: str, blocks: list[int], scanned: Pass
    ) -> tuple[Expansion, int | None, Part]:
        """The expansion with a decision more, the one of `blocks` that grows, if any, and what the pass has visited."""
        images = task.train if self.hyper.scan == "batch128" else task.train.plain
        pooled = [self._pooled(task, images, expansion, block, scanned.turn) for block in blocks]
        known = [self._known_descriptors(model, block) for block in blocks]
        reads = images, pooled, known, scanned.order, scanned.before
        found = self.component(name, scan, *reads, blocks=blocks, rule=self.hyper.rule)
        flags = self.decide(found["grow"])["grow"]
        grows = blocks[int(flags.nonzero()[0])] if flags.any() else None
        return expansion.noting(name, found), grows, found["visited"]

    def _known_descriptors(self, model: Model, block: int) -> list[list[Part]]:
        """Descriptor and statistics of every task that has them in `block`."""
        names = [f"{past.id}/block-{block}/rd" for past in model.tasks]
        return [[model[name]["descriptor"], model[name]["statistics"]] for name in names if name in model]

    def _expand(self, task: Task, expansion: Expansion, block: int) -> Expansion:
        """The expansion with an adapter, a router column and a descriptor more in `block`."""
        h, name = self.hyper, f"{task.id}/block-{block}"
        start = {"head": expansion.head, "column": self._column(task, expansion, block)}
        reads = task.train, expansion.reads(task.train), start
        added = Addition(block, h.bottleneck)
        addition = self.component(name, train_addition, *reads, addition=added, objective=self._objective(task))
        expansion = expansion.noting(name, addition).noting(f"{name}/rd", self._descriptor(task, expansion, block))
        return expansion.with_addition(block, addition)

    def _column(self, task: Task, expansion: Expansion, block: int) -> Handle | None:
        """Where a new router column starts, if not at random."""
        if self.hyper.new_column == "default":
            return None
        pooled = self._pooled(task, task.train.plain, expansion, block)
        reads = expansion.adapters.reads()
        return self.component(f"{task.id}/block-{block}/column", start_closed, reads, pooled, block=block)

    def _entries(self, task: Task, expansion: Expansion) -> dict[str, Handle]:
        """All entries of the task: its rows, and how the routers mix the adapters on its images."""
        h, name, train = self.hyper, f"{task.id}/head", task.train
        if expansion.additions:
            head = self.component(name, settle, expansion.head)
        else:
            reads = train, expansion.reads(train), expansion.head
            head = self.component(name, train_rows, *reads, objective=self._objective(task))
        pooled = [self._pooled(task, train.plain, expansion, block) for block in self._blocks]
        routing = self.component(f"{task.id}/routing", mean_weights, pooled, expansion.adapters.reads())
        entries = {**expansion.entries, name: head, f"{task.id}/routing": routing}
        if h.head_rows == "decay":
            phases = max(1, expansion.additions)
            entries[f"{task.id}/shrink"] = self.component("shrink", shrink, train, phases=phases, how=h.optimisation)
        return entries

    def _descriptor(self, task: Task, expansion: Expansion, block: int) -> Handle:
        """The descriptor of the adapter that the task adds to `block`, of what enters there: it does not see it."""
        plain = self._pooled(task, task.train.plain, expansion, block)
        reads = task.train, expansion.reads(task.train, below=block), plain
        name = f"{task.id}/block-{block}/rd"
        return self.component(name, train_descriptor, *reads, block=block, descriptor=self.hyper.descriptor)

    def _pooled(self, task: Task, images: Samples, expansion: Expansion, block: int, turn: int = 0) -> Handle:
        """m of the task's images in `block`, as pass `turn` sees them."""
        view = turn if images.augment != "none" else 0
        reads = images, expansion.reads(images, below=block)
        return self.component(f"{task.id}/pooled-{view}", pooled_inputs, *reads, block=block, view=view)

    def _prefix(self, plain: Samples, adapters: Adapters) -> Handle | None:
        """The shard's stream at the first block that may grow, where there is one below and it is small enough."""
        backbone, start = self._builder.backbone, self._blocks.start
        if start == 0 or not fits(plain, backbone.tokens, backbone.dim):
            return None
        return self.component("prefix", frozen_prefix, plain, adapters.first["adapter"], block=start)

    def _adapters(self, model: Model) -> Adapters:
        additions = {
            block: tuple(model[name] for past in model.tasks if (name := f"{past.id}/block-{block}") in model)
            for block in self._blocks
        }
        first = model[f"{model.tasks[0].id}/first"]
        return Adapters(first, {block: added for block, added in additions.items() if added})

    def _start(self, task: Task, model: Model) -> Part:
        """Where the rows of the task's classes start."""
        heads, places = self._places(model, task.classes)
        reads = task.train, heads, self._shrinks(model)
        return self.component(f"{task.id}/rows", start_rows, *reads, classes=list(task.classes), places=places).sole

    def _places(self, model: Model, classes: Sequence[str]) -> tuple[list[Handle], Places]:
        """The newest heads that hold rows of `classes`, and where in them each class lies."""
        used, places = newest_rows([past.classes for past in model.tasks], classes)
        return [model[f"{model.tasks[number].id}/head"] for number in used], places

    def _shrinks(self, model: Model) -> list[Handle]:
        return [model[f"{past.id}/shrink"] for past in model.tasks] if self.hyper.head_rows == "decay" else []

    def _objective(self, task: Task) -> Objective:
        return Objective(task.classes, self.hyper.optimisation)

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
