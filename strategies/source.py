"""The source model of test-time adaptation: a backbone and a linear head, trained on the labelled source split.

Every method of test-time adaptation starts from it, by one recipe: the head alone on frozen features (`tune =
linear`), or all weights (`full`), or a checkpoint. As a strategy of its own, `source` scores what arrives and learns
nothing: the reference that adaptation has to beat. The source split is all that a stream's tasks hold, so training
waits for the last one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import TypeVar

from cl import (
    Adaptation,
    Backbone,
    Handle,
    Model,
    Part,
    Samples,
    Seeds,
    Strategy,
    Task,
    Tensors,
    Veiled,
    builds,
    hyperparameters,
    setting,
)
from cl.components.checkpoint import Checkpoint
from cl.data.samples import concat
from cl.digests import digest_bytes
from cl.errors import BadInput, shown
from cl.learning.adaptation import Log, OnlineBatch, SourceModel, go_through, scores_under
from cl.learning.train import Batch, Optimisation, fit
from cl.models.heads import linear, linear_head, uniform_rows
from strategies.tuning import linear_scores, network_features, tuned_network


@hyperparameters
class SourceHyper:
    """How the source model is made."""

    tune: Literal["linear", "full"] = setting("full", "train the head on frozen features, or every weight", "ours")
    source_epochs: int = setting(5, "passes over the source split", "ours", ge=1, le=10_000)
    source_batch_size: int = setting(48, "images a step of source training", "ours", ge=1, le=65_536)
    source_lr: float = setting(0.01, "learning rate of source training; cosine to 0", "ours", gt=0)
    source_weight_decay: float = setting(5e-4, "L2 in source training", "ours", ge=0)
    checkpoint: str = setting(
        "", "a safetensors file with head.weight, head.bias and weights of the backbone, in place of training", "ours"
    )

    @property
    def source_optimisation(self) -> Optimisation:
        """How the source is trained by these settings."""
        return Optimisation(self.source_epochs, self.source_batch_size, self.source_lr, self.source_weight_decay)


@hyperparameters
class OnlineHyper(SourceHyper):
    """What every method that learns at test time takes; each names the resets that it knows."""

    keep_every: int = setting(0, "batches after which a state is stored, to replay from; 0: a segment", "ours", ge=0)
    reset: str = setting("never", "when to go back to the source", "ours")
    reset_every: int = setting(1000, "batches between resets, where reset = every", "RDumb", ge=1)

    @property
    def batches_between_resets(self) -> int:
        """After how many batches a method starts anew; 0: never."""
        return self.reset_every if self.reset == "every" else 0


@hyperparameters
class TestTimeHyper(OnlineHyper):
    """The same, with the resets of most methods."""

    __test__ = False  # no test class, whatever pytest makes of the name

    reset: Literal["never", "segment", "every"] = setting(
        "never", "go back to the source: never, at each segment (not continual), or every `reset_every` batches", "ours"
    )


@builds("head")
def probe(
    shards: list[Samples],
    features: list[Tensors],
    *,
    seeds: Seeds,
    checkpoint: Checkpoint,
    classes: list[str],
    how: Optimisation,
) -> Tensors:
    """A head `(classes, d)` with bias, by cross-entropy on frozen features."""
    samples = concat(shards)
    rows = {sample: row for shard, one in zip(shards, features, strict=True) for sample, row in _rows(shard, one)}
    x = torch.stack([rows[sample] for sample in samples.ids])  # (n, d)
    targets = samples.targets(classes)
    start = linear_head(None, classes, x.shape[1], seeds, uniform_rows)

    def loss(live: Tensors, batch: Batch) -> Tensor:
        return F.cross_entropy(linear(x[batch.rows], live), targets[batch.rows])

    return fit(start, loss, samples.ids, how, seeds, checkpoint)


def _rows(shard: Samples, features: Tensors) -> Iterator[tuple[str, Tensor]]:
    return zip(shard.ids, features["features"], strict=True)


@builds(network="state", head="head")
def checkpoint_weights(*, backbone: Backbone, path: str, content: str, classes: int) -> dict[str, Tensors]:
    """The weights in a checkpoint whose bytes have the digest `content`. Raises BadInput unless they fit."""
    data = _read(path)
    if digest_bytes(data) != content:
        raise BadInput(f"checkpoint {shown(path)} changed while it was read; run again")
    try:
        tensors = load_safetensors(data)
    except SafetensorError as error:
        raise BadInput(f"checkpoint {shown(path)} is no safetensors file ({error}); convert it") from error
    head = {name: tensors.pop(f"head.{name}").float() for name in ("weight", "bias") if f"head.{name}" in tensors}
    shapes = {name: tuple(value.shape) for name, value in head.items()}
    if shapes != {"weight": (classes, backbone.dim), "bias": (classes,)}:
        wanted = f"head.weight ({classes}, {backbone.dim}) and head.bias ({classes})"
        raise BadInput(f"checkpoint {shown(path)} has a head of {shapes or 'nothing'}; it must have {wanted}")
    known = {name: value.shape for name, value in backbone.parameters().items()}
    for name, value in tensors.items():
        if known.get(name) != value.shape:
            raise BadInput(
                f"'{name}' of checkpoint {shown(path)} does not fit backbone '{backbone.name}'; give its own"
            )
    return {"network": {name: value.float() for name, value in tensors.items()}, "head": head}


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"checkpoint {shown(path)} cannot be read ({error.strerror}); check the path") from error


@builds(prediction="prediction", evidence="evidence")
@torch.no_grad()
def source_scores(batches: dict[str, Samples], source: dict[str, Tensors], *, backbone: Backbone) -> dict[str, Tensors]:
    """The source model on batches as they arrive, in the shapes in which the other methods meet them."""
    model = SourceModel(backbone, source)

    def step(batch: OnlineBatch) -> tuple[Tensor, Log]:
        return model.logits(batch.pixels), {"passes": 1.0}

    return go_through(batches, model, step)


S = TypeVar("S", bound=SourceHyper, default=SourceHyper)


class Source(Strategy[S]):
    """The source model, not adapted."""

    title = "source: backbone and head trained on the source split, not adapted at test time"
    paper = "baseline of test-time adaptation"
    Hyper = SourceHyper
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"source_epochs": 2}}
    rehearsal = True

    def learns(self, task: Task, remaining: int) -> bool:
        return remaining == 0

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        classes = list(dict.fromkeys([*model.classes, *task.classes]))
        return {"source": self.train_source(source_split(task, model), classes)}

    def train_source(self, shards: list[Samples], classes: list[str]) -> Handle:
        """The source model of these shards: its head, and its network where that was tuned or given."""
        h = self.hyper
        if h.checkpoint:
            content = digest_bytes(_read(h.checkpoint))
            return self.component(
                "source", checkpoint_weights, path=h.checkpoint, content=content, classes=len(classes)
            )
        how = h.source_optimisation
        if h.tune == "full":
            return self.component("source", tuned_network, shards, None, classes=classes, how=how)
        features = [self.features(shard) for shard in shards]
        plain = [shard.plain for shard in shards]
        return self.component("source", probe, plain, features, classes=classes, how=how)

    def adapt(self, model: Model, segment: Veiled) -> Adaptation:
        online = self.component("online", source_scores, segment.batches, source_of(model))
        return Adaptation(online["prediction"], {}, online["evidence"])

    def scores(self, model: Model, samples: Samples) -> Handle:
        source = source_of(model)
        if "network" in source:
            features = self.component("features", network_features, samples.plain, source["network"])
        else:
            features = self.features(samples)
        return self.component("scores", linear_scores, features, source["head"])


def source_split(task: Task, model: Model) -> list[Samples]:
    """The labelled images of all tasks so far, `task` among them."""
    return [*(past.train for past in model.tasks), task.train]


def source_of(entries: Model | Mapping[str, Handle]) -> dict[str, Part]:
    """The parts of the source model: `head`, and `network` where the network was tuned."""
    return {name or "head": part for name, part in entries["source"].parts.items()}


T = TypeVar("T", bound=OnlineHyper, default=TestTimeHyper)


class TestTime(Source[T]):
    """A method that learns at test time, segment after segment.

    weights: where its state holds the weights to score with.
    """

    __test__ = False

    Hyper: ClassVar[type[OnlineHyper]] = TestTimeHyper
    weights: ClassVar[str] = "parameter"

    @abstractmethod
    def online(self, model: Model, batches: Mapping[str, Samples], before: Part | None) -> Handle:
        """The component `online`, of parts `state`, `prediction` and `evidence`: a segment's batches, each scored and
        then learnt from. before: the state after the segment before, if any."""

    def adapt(self, model: Model, segment: Veiled) -> Adaptation:
        before = model["online"]["state"] if "online" in model else None
        online = self.online(model, segment.batches, before)
        return Adaptation(online["prediction"], {"online": online}, online["evidence"])

    def scores(self, model: Model, samples: Samples) -> Handle:
        if "online" not in model:
            return super().scores(model, samples)
        state = model["online"]["state"]
        return self.component("scores", scores_under, samples.plain, source_of(model), state, weights=self.weights)

    @property
    def batches_kept(self) -> int | None:
        return self.hyper.keep_every or None

    @property
    def forgets_segments(self) -> bool:
        return self.hyper.reset == "segment"
