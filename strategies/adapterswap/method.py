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

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from cl import Handle, Library, Model, Optimisation, Part, Samples, Strategy, Task, hyperparameters, setting
from cl.adapters.peft_lora import Kind, release
from cl.components.handles import Read
from cl.errors import BadInput
from cl.learning.hyper import Training
from cl.parts.statistics import class_sums, embedding_sums, in_order, totals, touched, tree
from strategies.adapterswap.composition import Answers, bare_scores, class_totals, mixed_scores, uniform_scores
from strategies.adapterswap.figures import RANKS, at_home, hit_rates, routing_losses
from strategies.adapterswap.retrieval import Covariance, Prior, isolated_mixture, lda_mixture, own_covariances, route
from strategies.adapterswap.shards import TaskShard, labels_of, shard_id, shards, task_of
from strategies.adapterswap.training import Lora, adapted_features, classes_of, mean_head, train_shard


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

    @property
    def optimisation(self) -> Optimisation:
        """How a shard's adapter and head are trained by these settings."""
        return Optimisation(self.epochs, self.batch_size, self.lr, self.weight_decay, "adam")

    @property
    def lora(self) -> Lora:
        """A shard's adapter by these settings."""
        layers = tuple(name.strip() for name in self.targets.split(","))
        return Lora(self.adapter, self.rank, self.alpha, layers, release())


PRESETS: dict[str, dict[str, object]] = {
    "quick": {"epochs": 2},  # to try things out
    "paper": {"scope": "global"},  # the retriever fitted on everything, as published; it leaks
}


@dataclass(frozen=True)
class Shelf:
    """Shards that may be used for an answer, with what is made of them once for all queries.

    names: in the order of the retriever's components. allowed: which of these components they are; None: all. sums: of
    each class over all of the shards. columns: where the classes of each shard stand among the classes scored.
    """

    names: list[str]
    allowed: list[int] | None
    adapters: Library
    heads: Library
    sums: Handle
    columns: list[list[int]]
    answers: Answers

    @property
    def library(self) -> dict[str, Read]:
        """What a build reads that asks the shards."""
        return {"adapters": self.adapters, "heads": self.heads}


class AdapterSwap(Strategy[AdapterSwapHyper]):
    """A LoRA and a head for each shard; which of them answer is retrieved for each query."""

    title = "AdapterSwap: an adapter for each shard of data, retrieved among those that the user may use"
    paper = "Fleshman et al., CAMLIS 2024, arXiv 2404.08417"
    Hyper = AdapterSwapHyper
    presets = PRESETS

    @classmethod
    def isolates(cls, hyper: AdapterSwapHyper) -> bool:
        return hyper.scope != "global"

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        self._check()
        entries: dict[str, Handle] = {}
        for shard in shards(task, self.hyper.shard_limit, self.hyper.heldout):
            entries |= self._shard_entries(shard)
        every = {**model.entries, **entries}
        return {**entries, **self.retriever(every, _shard_names(entries))}

    def scores(self, model: Model, samples: Samples) -> Handle:
        shelf = self._shelf(model)
        if not shelf.names:
            return self._bare(model, samples)
        bare = self._bare(model, samples) if self.hyper.far > 0 else None
        return self._answer(samples, self._routing(model, samples, self.hyper.top, self.hyper.far), bare, shelf)

    def retriever(self, entries: Mapping[str, Handle], changed: Collection[str]) -> dict[str, Handle]:
        """The retriever over the shards in `entries`, and those nodes of the tree of totals that are not there as they
        should be, since the shards `changed` were added or taken away."""
        h, names = self.hyper, _shard_names(entries)
        nodes = self._totals(entries, names, touched(changed))
        every = nodes.get("totals/") or entries["totals/"]
        if h.scope == "local":
            return {**nodes, "retriever": self.component("retriever", isolated_mixture, every, prior=h.prior)}
        tied = self.component("retriever", lda_mixture, every, components=h.components, rho=h.rho, prior=h.prior)
        if h.covariance == "tied":
            return {**nodes, "retriever": tied}
        own = Library({name: entries[f"{name}/statistics"].sole for name in names})
        spreads = self.component("covariances", own_covariances, tied, own, covariance=h.covariance)
        return {**nodes, "projection": tied, "retriever": spreads}

    def _totals(self, entries: Mapping[str, Handle], names: list[str], above: Collection[str]) -> dict[str, Handle]:
        """The nodes of the tree over these shards that are missing, or whose prefix is in `above`."""
        nodes: dict[str, Handle] = {}
        for node in tree(names):
            name = f"totals/{node.prefix}"
            if node.prefix in above or name not in entries:
                below = [f"totals/{prefix}" for prefix in node.below]
                parts = [entries[f"{shard}/statistics"] for shard in node.shards]
                parts += [nodes.get(one) or entries[one] for one in below]
                nodes[name] = self.component(name, totals, parts)
        return nodes

    def _shard_entries(self, shard: TaskShard) -> dict[str, Handle]:
        """Everything that a shard leaves in the model."""
        h, name, images = self.hyper, shard.id, shard.train.plain
        trained = self.component(
            f"{name}/lora",
            train_shard,
            shard.train,
            classes=shard.classes,
            lora=h.lora,
            head="cosine" if h.head == "ncm" else h.head,
            how=h.optimisation,
        )
        bare = self.component(f"{name}/prototypes", class_sums, images, self.features(images), classes=shard.classes)
        statistics = self.component(f"{name}/statistics", embedding_sums, self.features(shard.heldout))
        entries = {f"{name}/lora": trained, f"{name}/prototypes": bare, f"{name}/statistics": statistics}
        if h.head != "ncm":
            return entries
        own = self.component(f"{name}/features", adapted_features, images, trained["adapter"])
        sums = self.component(f"{name}/means", class_sums, images, own, classes=shard.classes)
        return {**entries, f"{name}/means": sums, f"{name}/head": self.component(f"{name}/head", mean_head, sums)}

    def _routing(self, model: Model, samples: Samples, top: int | Literal["all"], far: float) -> Handle:
        """Which shards of the shelf answer for each row."""
        allowed, count = self._shelf(model).allowed, 0 if top == "all" else top
        features = self.features(samples)
        return self.component("routing", route, features, model["retriever"], allowed=allowed, top=count, far=far)

    def _answer(self, samples: Samples, routing: Handle, bare: Handle | None, shelf: Shelf) -> Handle:
        """Scores by the adapters that `routing` picks."""
        reads, how = (samples, routing, shelf.library, bare), self.hyper.mixing
        return self.component("scores", mixed_scores, *reads, columns=shelf.columns, answers=shelf.answers, mixing=how)

    def _bare(self, model: Model, samples: Samples) -> Handle:
        """The backbone alone."""
        return self.component("bare", bare_scores, self.features(samples), self._shelf(model).sums)

    def _shelf(self, model: Model) -> Shelf:
        """What whoever asks may use of the model. With 10,000 shards a query must not make it anew."""
        return model.once(self._readable_shelf)

    def _readable_shelf(self, model: Model) -> Shelf:
        every = _shard_names(model.entries)
        usable = [number for number, name in enumerate(every) if self.readable(labels_of(name))]
        allowed = None if len(usable) == len(every) else usable
        return self._shelf_of(model, [every[number] for number in usable], allowed, model.classes)

    def _shelf_of(self, model: Model, names: list[str], allowed: list[int] | None, classes: Sequence[str]) -> Shelf:
        """These shards, scored over these classes."""
        sums = Library({name: model[f"{name}/prototypes"].sole for name in names})
        columns = _columns([classes_of(model[f"{name}/lora"]) for name in names], classes)
        return Shelf(
            names,
            allowed,
            Library({name: model[f"{name}/lora"]["adapter"] for name in names}),
            Library({name: self._head(model, name) for name in names}),
            self.component("sums", class_totals, sums, columns=columns, classes=len(classes)),
            columns,
            Answers(len(classes), normalise=self.hyper.head != "linear"),
        )

    def _head(self, model: Model, name: str) -> Part:
        return model[f"{name}/head"].sole if self.hyper.head == "ncm" else model[f"{name}/lora"]["head"]

    def figures(self, models: Sequence[Model], tasks: Sequence[Task]) -> dict[str, Handle]:
        known = {task_of(name) for name in self._shelf(models[-1]).names}
        tested = [task for task in tasks if len(task.test) and task.id in known]
        rows = [[task for task in tested if task.id in {past.id for past in model.tasks}] for model in models]
        rows = [row for row in rows if row]
        if not rows:
            return {}
        models = models[len(models) - len(rows) :]
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
            {
                "retrieved": each(self.scores),
                "uniform": each(self._uniform) if summable else [],
                "backbone": each(self._bare),
            },
            each(lambda model, test: self._routing(model, test, top, far)),
            home=home,
            classes=[list(model.classes) for model in models],
            own=[list(task.classes) for task in rows[-1]],
        )
        retrieval = self.component("retrieval", hit_rates, ranks, home=home, parts=parts)
        return {"retrieval": retrieval, "routing": losses}

    def _uniform(self, model: Model, samples: Samples) -> Handle:
        """All usable adapters in equal shares."""
        shelf = self._shelf(model)
        reads = samples, shelf.library
        return self.component("uniform", uniform_scores, *reads, columns=shelf.columns, answers=shelf.answers)

    def _at_home(self, model: Model, task: Task) -> Handle:
        """Each test image of the task by its home alone; no later task can change that."""
        names = [name for name in self._shelf(model).names if task_of(name) == task.id]
        routing = self.component("at home", at_home, task.test, home=self._home(task, names))
        return self._answer(task.test, routing, None, self._shelf_of(model, names, None, task.classes))

    def _home(self, task: Task, names: Sequence[str]) -> list[int]:
        """The number of each test image's own shard among `names`, -1 where it is not there."""
        place = {name: number for number, name in enumerate(names)}
        return [place.get(shard_id(task, sample, self.hyper.shard_limit), -1) for sample in task.test.ids]

    def _check(self) -> None:
        if self.hyper.scope == "local" and self.hyper.covariance != "tied":
            raise BadInput("scope=local has a variance for each component already; leave covariance as it is")
        if self.hyper.adapter == "dora" and self.hyper.mixing == "weights":
            raise BadInput("DoRA adapters cannot be mixed by weights, as they rescale W; use --set mixing=outputs")


def _shard_names(entries: Mapping[str, Handle]) -> list[str]:
    """The shards, in the order of the retriever's components."""
    return in_order(name.removesuffix("/lora") for name in entries if name.endswith("/lora"))


def _columns(shards: Sequence[Sequence[str]], classes: Sequence[str]) -> list[list[int]]:
    """Where the classes of each shard stand among `classes`, filled up to one width."""
    place = {name: column for column, name in enumerate(classes)}
    columns = [[place[name] for name in own] for own in shards]
    width = max(map(len, columns), default=0)
    return [own + [len(classes)] * (width - len(own)) for own in columns]
