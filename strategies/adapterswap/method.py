"""AdapterSwap: a low-rank adapter for each shard of data, retrieved by the query among those that the user may use.

Fleshman, Khan, Marone, Van Durme, "AdapterSwap: Continuous Training of LLMs with Data Removal and Access-Control
Guarantees", CAMLIS 2024, arXiv 2404.08417. The published domain is text; this is the method on images.

A shard is (task, set of access labels, bucket); its bucket follows from a hash of the person. Adapter and head of a
shard are trained on the shard alone. A part of it, chosen by hash, is held out: its embeddings e(x) feed a
Gaussian mixture with one component a shard (`retrieval`). With the t best shards that the user may use, and
posterior w,

    outputs:  p(c | x) = sum_i w_i p_i(c | f_i(x))        f_i: features under adapter i, p_i: head i
    weights:  p(c | x) = sum_i w_i p_i(c | f_w(x))        f_w: features under the adapter sum_i w_i B_i A_i

Settings that the paper's abstract does not give are ours; the paper's own values are not known to us.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from cl.adapters import lowrank
from cl.adapters.peft_lora import Grown, Kind, release
from cl.components.builder import builds
from cl.components.checkpoint import Checkpoint
from cl.components.handles import Handle, Library
from cl.data.policy import Atom, atom_name, atom_of
from cl.data.samples import Samples
from cl.data.stream import Task
from cl.errors import BadInput
from cl.home.store import Tensors
from cl.learning.hyper import Training, hyperparameters, setting
from cl.learning.strategy import Model, Strategy
from cl.learning.train import Batch, Frozen, Optimisation, fit
from cl.models.backbone import Backbone, batches, on_device, real_passes
from cl.models.heads import cosine, uniform_rows
from cl.parts.statistics import class_sums, embedding_sums, in_order, totals, touched, tree
from cl.seeds import Seeds
from strategies.adapterswap.composition import SHARPNESS, bare_scores, mixed_scores, pooled, uniform_scores
from strategies.adapterswap.figures import RANKS, at_home, hit_rates, routing_losses
from strategies.adapterswap.retrieval import Covariance, Prior, discriminant, isolated, route, spread


@hyperparameters
class AdapterSwapHyper(Training):
    """AdapterSwap's settings. Where a source says "ours", the paper's value is not known to us."""

    epochs: int = setting(10, "passes over a shard's images", "ours", ge=1, le=10_000)
    lr: float = setting(1e-3, "learning rate of the first epoch; cosine to 0, stepped per epoch; Adam", "ours", gt=0)
    weight_decay: float = setting(0.0, "L2 on everything that is trained", "ours", ge=0)
    adapter: Kind = setting("lora", "LoRA, or PEFT's rsLoRA, PiSSA, DoRA", "LoRA: section 1 of the paper")
    rank: int = setting(8, "rank r", "ours", ge=1)
    alpha: float = setting(16.0, "scale: alpha / r; rslora: alpha / sqrt(r)", "ours", gt=0)
    targets: str = setting("attn.qkv,attn.proj", "linear layers of a block, with commas", "ours")
    head: Literal["linear", "cosine", "ncm"] = setting(
        "linear", "a shard's classifier: linear | cosines | class means in the adapter's feature space", "ours"
    )
    shard_limit: int = setting(400, "images a shard: a task's declared capacity over it is the buckets", "ours", ge=1)
    heldout: float = setting(0.1, "share of a shard that only the retriever sees", "ours", gt=0, lt=1)
    scope: Literal["view", "global", "local"] = setting(
        "view",
        "what the retriever is fitted on: what the user may read | everything (it leaks) | each shard alone",
        "ours",
    )
    prior: Prior = setting("uniform", "of the mixture's components", "ours")
    covariance: Covariance = setting(
        "tied", "of the mixture: tied | one for each component: diag | full (m^2 numbers a shard)", "ours"
    )
    components: int = setting(128, "most directions that LDA keeps", "ours", ge=1)
    rho: float = setting(0.01, "ridge of LDA and of the tied covariance", "ours", gt=0)
    top: Annotated[int, Field(ge=1)] | Literal["all"] = setting(
        3, "adapters a query: 1, 2, 3, ... or all", "top 1 to 3: paper"
    )
    mixing: Literal["outputs", "weights"] = setting("outputs", "what is mixed", "both readings of the paper")
    far: float = setting(
        0.001, "mix in the bare backbone beyond all but this share of every component", "ours", ge=0, lt=1
    )


# Shards: a pure function of the names of a sample, so that no sample moves another one.


@dataclass(frozen=True)
class Shard:
    """Images of one task under one set of labels. train: for the adapter; held: for the retriever."""

    id: str
    train: Samples
    held: Samples

    @property
    def classes(self) -> list[str]:
        """Those that the adapter is trained on."""
        return list(self.train.classes)


def unit(text: str) -> float:
    """A number in [0, 1), a pure function of `text`."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64


def shard_id(task: Task, sample: str, limit: int) -> str:
    """The shard of a sample: task, labels, and the bucket of its person (or its own, if it has none)."""
    atom = atom_name(task.access.get(sample, ()))
    buckets = math.ceil(task.capacity / limit) if task.capacity else 1
    key = task.subjects.get(sample, sample)
    return f"{task.id}/{atom}/{int(unit(f'bucket|{task.id}|{atom}|{key}') * buckets)}"


def labels_of(shard: str) -> Atom:
    """The access labels of a shard, which its adapter inherits."""
    return atom_of(shard.rsplit("/", 2)[1])


def task_of(shard: str) -> str:
    """The id of a shard's task."""
    return shard.rsplit("/", 2)[0]


def shards(task: Task, limit: int, heldout: float) -> list[Shard]:
    """The task's shards, by id. Of a shard that is held out as a whole, or not at all, every image does both."""
    members: dict[str, set[str]] = {}
    for sample in task.train.ids:
        members.setdefault(shard_id(task, sample, limit), set()).add(sample)
    return [_shard(task.train.keep(members[name]), name, heldout) for name in sorted(members)]


def _shard(samples: Samples, name: str, heldout: float) -> Shard:
    held = {sample for sample in samples.ids if unit(f"heldout|{sample}") < heldout}
    rest = set(samples.ids) - held
    return Shard(name, samples.keep(rest or held), samples.plain.keep(held or rest))


# Training: adapter and head on one shard, and nothing else.


@builds(adapter="adapter", head="head")
def train_shard(
    samples: Samples,
    *,
    backbone: Backbone,
    seeds: Seeds,
    checkpoint: Checkpoint,
    classes: list[str],
    adapter: Kind,
    rank: int,
    alpha: float,
    targets: list[str],
    head: str,
    epochs: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    peft: str,
) -> dict[str, Tensors]:
    """Adapter and classifier of one shard. Cosine heads train their scale too, which their rows then hold.

    peft: its release, which decides what is trained.
    """
    grown = Grown(backbone, seeds, targets, rank, alpha, adapter)
    frozen = Frozen(samples, backbone, seeds, lambda stream: (stream,))
    rows = samples.targets(classes).to(backbone.device)
    linear = head == "linear"
    own = {
        "head": uniform_rows(classes, backbone.dim, seeds),
        "bias": torch.zeros(len(classes)),
        "sigma": torch.ones(()),
    }
    own.pop("sigma" if linear else "bias")

    def loss(live: Tensors, batch: Batch) -> Tensor:
        (stream,) = frozen(batch)
        features = grown.features(live, stream)
        backbone.passes += len(features)
        if linear:
            return F.cross_entropy(features @ live["head"].T + live["bias"], rows[batch.rows])
        return F.cross_entropy(live["sigma"] * SHARPNESS * cosine(features, live["head"]), rows[batch.rows])

    start = {name: value.to(backbone.device) for name, value in (grown.start | own).items()}
    how = Optimisation(epochs, batch_size, lr, weight_decay, "adam")
    trained = fit(start, loss, samples.ids, how, seeds, checkpoint)
    weight = trained["head"] if linear else trained["sigma"] * SHARPNESS * F.normalize(trained["head"], dim=-1)
    bias = trained.get("bias", torch.zeros(len(classes)))
    return {"adapter": grown.extracted(trained), "head": {"weight": weight, "bias": bias}}


@builds("cache")
def adapted_features(samples: Samples, adapter: Tensors, *, backbone: Backbone) -> Tensors:
    """Features `(n, d)` of a shard under its own adapter."""
    change = lowrank.change(on_device(adapter, backbone))
    found = []
    for real, images in batches(samples, "features"):
        with torch.no_grad(), real_passes(backbone, real):
            found.append(backbone.changed(images, lowrank.layers(adapter), change)[:real].cpu())
    return {"features": torch.cat(found)}


@builds("head")
def mean_head(sums: Tensors) -> Tensors:
    """A classifier by cosine to class means, from exactly removable sums."""
    return {
        "weight": SHARPNESS * F.normalize(sums["sum"].double(), dim=-1).float(),
        "bias": torch.zeros(len(sums["count"])),
    }


@dataclass(frozen=True)
class Shelf:
    """Shards that may be used for an answer, with what is made of them once for all queries.

    names: in the order of the retriever's components. allowed: which of these components they are; None: all. sums: of
    each class over all of the shards. columns: where the classes of each shard stand among the `classes` scored.
    """

    names: list[str]
    allowed: list[int] | None
    adapters: Library
    heads: Library
    sums: Handle
    columns: list[list[int]]
    classes: int


class AdapterSwap(Strategy):
    """A LoRA and a head for each shard; which of them answer is retrieved for each query."""

    title = "AdapterSwap: an adapter for each shard of data, retrieved among those that the user may use"
    paper = "Fleshman et al., CAMLIS 2024, arXiv 2404.08417"
    Hyper = AdapterSwapHyper
    presets = {"quick": {"epochs": 2}, "paper": {"scope": "global"}}
    _last: tuple[Model, Shelf] | None = None  # follows from the model: with 10,000 shards a query must not make it anew

    @classmethod
    def isolates(cls, hyper: AdapterSwapHyper) -> bool:
        return hyper.scope != "global"

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        self._check()
        entries: dict[str, Handle] = {}
        for shard in shards(task, self.hyper.shard_limit, self.hyper.heldout):
            entries |= self._learnt(shard)
        every = {**model.entries, **entries}
        return {**entries, **self.retriever(every, self._library(entries))}

    def retriever(self, entries: Mapping[str, Handle], changed: Collection[str]) -> dict[str, Handle]:
        """The retriever over the shards in `entries`, and those nodes of the tree of totals that are not there as they
        should be, since the shards `changed` were added or taken away."""
        h, above = self.hyper, touched(changed)
        found = dict[str, Handle]()
        for node in tree(self._library(entries)):
            name = f"totals/{node.prefix}"
            if node.prefix in above or name not in entries:
                below = [f"totals/{prefix}" for prefix in node.below]
                parts = [entries[f"{shard}/statistics"] for shard in node.shards]
                parts += [found.get(one) or entries[one] for one in below]
                found[name] = self.component(name, totals, parts)
        every = found.get("totals/") or entries["totals/"]
        if h.scope == "local":
            return {**found, "retriever": self.component("retriever", isolated, every, prior=h.prior)}
        how: dict[str, Any] = {"components": h.components, "rho": h.rho, "prior": h.prior}
        tied = self.component("retriever", discriminant, every, **how)
        if h.covariance == "tied":
            return {**found, "retriever": tied}
        own = Library({name: entries[f"{name}/statistics"].sole for name in self._library(entries)})
        spreads = self.component("covariances", spread, tied, own, covariance=h.covariance)
        return {**found, "projection": tied, "retriever": spreads}

    def scores(self, model: Model, samples: Samples) -> Handle:
        shelf = self._shelf(model)
        if not shelf.names:
            return self._bare(model, samples)
        bare = self._bare(model, samples) if self.hyper.far > 0 else None
        return self._mixed(samples, self._routing(model, samples, self.hyper.top, self.hyper.far), bare, shelf)

    def figures(self, models: Sequence[Model], tasks: Sequence[Task]) -> dict[str, Handle]:
        known = {task_of(name) for name in self._shelf(models[-1]).names}
        tested = [task for task in tasks if len(task.test) and task.id in known]
        rows = [[task for task in tested if task.id in {past.id for past in model.tasks}] for model in models]
        rows = [row for row in rows if row]
        models = models[len(models) - len(rows) :]
        if not rows:
            return {}
        parts = [self._shelf(model).names for model in models]
        home = [[self._home(task, names) for task in row] for row, names in zip(rows, parts, strict=True)]

        def each(way: Callable[[Model, Samples], Handle]) -> list[list[Handle]]:
            return [[way(model, task.test) for task in row] for model, row in zip(models, rows, strict=True)]

        top, far, summable = self.hyper.top, self.hyper.far, self.hyper.adapter != "dora"
        ranks = each(lambda model, test: self._routing(model, test, RANKS, 0.0))
        losses = self.component(
            "routing figures",
            routing_losses,
            [task.test for task in rows[-1]],
            [self._at_home(models[-1], task) for task in rows[-1]],
            each(self.scores),
            each(self._uniform) if summable else [],
            each(self._bare),
            each(lambda model, test: self._routing(model, test, top, far)),
            home=home,
            classes=[list(model.classes) for model in models],
            own=[list(task.classes) for task in rows[-1]],
        )
        retrieval = self.component("retrieval", hit_rates, ranks, home=home, parts=parts)
        return {"retrieval": retrieval, "routing": losses}

    def _learnt(self, shard: Shard) -> dict[str, Handle]:
        """Everything that a shard leaves in the model."""
        h, name = self.hyper, shard.id
        trained = self.component(
            f"{name}/lora",
            train_shard,
            shard.train,
            classes=shard.classes,
            adapter=h.adapter,
            rank=h.rank,
            alpha=h.alpha,
            targets=self._targets,
            head="cosine" if h.head == "ncm" else h.head,
            epochs=h.epochs,
            batch_size=h.batch_size,
            lr=h.lr,
            weight_decay=h.weight_decay,
            peft=release(),
        )
        images = shard.train.plain
        bare = self.component(f"{name}/prototypes", class_sums, images, self.features(images), classes=shard.classes)
        statistics = self.component(f"{name}/statistics", embedding_sums, self.features(shard.held))
        found = {f"{name}/lora": trained, f"{name}/prototypes": bare, f"{name}/statistics": statistics}
        if h.head != "ncm":
            return found
        own = self.component(f"{name}/features", adapted_features, images, trained["adapter"])
        sums = self.component(f"{name}/means", class_sums, images, own, classes=shard.classes)
        return {**found, f"{name}/means": sums, f"{name}/head": self.component(f"{name}/head", mean_head, sums)}

    def _routing(self, model: Model, samples: Samples, top: int | str, far: float) -> Handle:
        """Which shards of the shelf answer for each row."""
        allowed, count = self._shelf(model).allowed, 0 if top == "all" else top
        features = self.features(samples)
        return self.component("routing", route, features, model["retriever"], allowed=allowed, top=count, far=far)

    def _mixed(self, samples: Samples, routing: Handle, bare: Handle | None, shelf: Shelf) -> Handle:
        """Scores by the adapters that `routing` picks."""
        reads = samples, routing, shelf.adapters, shelf.heads, bare
        return self.component("scores", mixed_scores, *reads, mixing=self.hyper.mixing, **self._about(shelf))

    def _bare(self, model: Model, samples: Samples) -> Handle:
        """The backbone alone."""
        return self.component("bare", bare_scores, self.features(samples), self._shelf(model).sums)

    def _uniform(self, model: Model, samples: Samples) -> Handle:
        """All usable adapters in equal shares."""
        shelf = self._shelf(model)
        return self.component("uniform", uniform_scores, samples, shelf.adapters, shelf.heads, **self._about(shelf))

    def _at_home(self, model: Model, task: Task) -> Handle:
        """Each test image of the task by its home alone; no later task can change that."""
        names = [name for name in self._shelf(model).names if task_of(name) == task.id]
        routing = self.component("at home", at_home, task.test, home=self._home(task, names))
        return self._mixed(task.test, routing, None, self._shelved(model, names, None, task.classes))

    def _home(self, task: Task, names: Sequence[str]) -> list[int]:
        place = {name: number for number, name in enumerate(names)}
        return [place.get(shard_id(task, sample, self.hyper.shard_limit), -1) for sample in task.test.ids]

    def _library(self, entries: Mapping[str, Handle]) -> list[str]:
        """The shards, in the order of the retriever's components."""
        return in_order(name.removesuffix("/lora") for name in entries if name.endswith("/lora"))

    def _shelf(self, model: Model) -> Shelf:
        """What whoever asks may use of the model, made once for all queries to it."""
        if self._last is None or self._last[0] is not model:
            every = self._library(model.entries)
            usable = [number for number, name in enumerate(every) if self.readable(labels_of(name))]
            allowed = None if len(usable) == len(every) else usable
            self._last = model, self._shelved(model, [every[number] for number in usable], allowed, model.classes)
        return self._last[1]

    def _shelved(self, model: Model, names: list[str], allowed: list[int] | None, classes: Sequence[str]) -> Shelf:
        """These shards, scored over these classes."""
        ncm = self.hyper.head == "ncm"
        sums = Library({name: model[f"{name}/prototypes"].sole for name in names})
        columns, total = self._columns(model, names, classes), len(classes)
        return Shelf(
            names,
            allowed,
            Library({name: model[f"{name}/lora"]["adapter"] for name in names}),
            Library({name: model[f"{name}/head"].sole if ncm else model[f"{name}/lora"]["head"] for name in names}),
            self.component("sums", pooled, sums, columns=columns, classes=total),
            columns,
            total,
        )

    def _about(self, shelf: Shelf) -> dict[str, Any]:
        return {"columns": shelf.columns, "classes": shelf.classes, "normalise": self.hyper.head != "linear"}

    def _columns(self, model: Model, names: Sequence[str], classes: Sequence[str]) -> list[list[int]]:
        """Where the classes of each shard stand among `classes`, filled up to one width."""
        place = {name: column for column, name in enumerate(classes)}
        found = [[place[one] for one in model[f"{name}/lora"].record.arguments["classes"]] for name in names]
        width = max(map(len, found), default=0)
        return [own + [len(classes)] * (width - len(own)) for own in found]

    @property
    def _targets(self) -> list[str]:
        return [name.strip() for name in self.hyper.targets.split(",")]

    def _check(self) -> None:
        if self.hyper.scope == "local" and self.hyper.covariance != "tied":
            raise BadInput("scope=local has a variance for each component already; leave covariance as it is")
        if self.hyper.adapter == "dora" and self.hyper.mixing == "weights":
            raise BadInput("DoRA adapters cannot be mixed by weights, as they rescale W; use --set mixing=outputs")
