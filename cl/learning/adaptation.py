"""What methods of test-time adaptation share.

The source model under replaced weights; the loop over batches that scores before it learns; weights with their
optimiser's memory as one component; moving averages and stochastic restoration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from cl.components.builder import builds
from cl.data.samples import Samples
from cl.home.store import Tensors
from cl.learning.train import packed, unpack
from cl.models.backbone import Backbone, batches, rows
from cl.progress import track
from cl.seeds import Seeds

Log = dict[str, float]


class SourceModel:
    """The source classifier: a backbone, the weights that source training changed in it, and a linear head.

    source: parts `head` (`weight`, `bias`) and, where the network was tuned, `network`. Tensors of the head are called
    `head.weight` and `head.bias` among the others.
    """

    def __init__(self, backbone: Backbone, source: Mapping[str, Tensors]) -> None:
        self.backbone = backbone
        changed = {**source.get("network", {}), **{f"head.{name}": value for name, value in source["head"].items()}}
        self._changed = {name: value.to(backbone.device) for name, value in changed.items()}

    @property
    def classes(self) -> int:
        return len(self._changed["head.weight"])

    def weights(self, names: Sequence[str] | None = None) -> Tensors:
        """The source's weights of these names; all of them, backbone and head, if None."""
        every = {**self.backbone.parameters(), **self._changed}
        return {name: every[name].detach() for name in (every if names is None else names)}

    def logits(self, pixels: Tensor, replaced: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits `(n, classes)` of pixels in [0, 1] with these weights in place of the source's."""
        weights = {**self._changed, **(replaced or {})}
        weight, bias = weights.pop("head.weight"), weights.pop("head.bias")
        return F.linear(self.backbone.from_pixels(weights, pixels), weight, bias)

    def batch_logits(self, pixels: Tensor, replaced: Mapping[str, Tensor] | None = None) -> Tensor:
        """`logits` of a whole batch, with its own statistics in the layers of batch norm."""
        with batch_statistics(self.backbone, len(pixels)):
            return self.logits(pixels, replaced)


def norm_names(backbone: Backbone, share: float = 1.0) -> list[str]:
    """Names of the weights and biases of normalisation layers.

    share: with less than 1 only those in that share of the blocks (or stages of a convolutional net), from the input
    on, and not the final one. Blocks are told by their number, never by a part of a name.
    """
    kinds = (nn.LayerNorm, nn.GroupNorm, _BatchNorm)
    found = [name for name, module in backbone.network.named_modules() if isinstance(module, kinds)]
    kept = [name for name in found if share >= 1 or _within(name, share, backbone)]
    known = backbone.parameters()
    return [full for name in kept for full in (f"{name}.weight", f"{name}.bias") if full in known]


def _within(name: str, share: float, backbone: Backbone) -> bool:
    top, _, rest = name.partition(".")
    if top == "blocks":
        return int(rest.partition(".")[0]) < share * backbone.blocks
    if top.startswith("layer"):
        return int(top.removeprefix("layer")) <= share * 4
    return backbone.blocks == 0  # the stem's norm of a convolutional net; a transformer's final norm stays


@contextmanager
def batch_statistics(backbone: Backbone, images: int) -> Iterator[None]:
    """Inside, batch norm uses the statistics of the batch in place of the running ones, which stay as they are. One
    image alone has none, and is normalised by the running ones. Nothing changes for a network without batch norm."""
    layers = [one for one in backbone.network.modules() if isinstance(one, _BatchNorm) and images > 1]
    kept = [(layer.running_mean, layer.running_var) for layer in layers]
    try:
        for layer in layers:
            layer.running_mean = layer.running_var = None
        yield
    finally:
        for layer, (mean, var) in zip(layers, kept, strict=True):
            layer.running_mean, layer.running_var = mean, var


def images_a_stack(backbone: Backbone, images: int, chunk: int) -> int:
    """How many images of several augmentations of a batch run together: `chunk`, but with batch norm one copy of the
    batch's `images`, whose statistics are those of no other copy."""
    normed = any(isinstance(one, _BatchNorm) for one in backbone.network.modules())
    return images if normed else chunk


@dataclass(frozen=True)
class OnlineBatch:
    """A batch as a method sees it at test time: opaque keys, and pixels float32 `(n, 3, side, side)` in [0, 1]."""

    key: str
    ids: tuple[str, ...]
    pixels: Tensor


BatchStep = Callable[[OnlineBatch], tuple[Tensor, Log]]


def go_through(arriving: Mapping[str, Samples], model: SourceModel, step: BatchStep) -> dict[str, Tensors]:
    """Hand the batches to `step` in order of arrival; the parts `prediction` and `evidence`.

    step: returns logits `(n, classes)` made before it learnt from the batch, and its log of the batch. A
    batch with an image that is not finite never reaches it, and where its logits are not finite the source model's are
    taken. An image that the source cannot score either gets zeros: all classes alike.
    """
    scores: dict[str, Tensor] = {}
    logs: list[Log] = []
    for key, samples in track(list(arriving.items()), "batches"):
        batch = OnlineBatch(key, samples.ids, model.backbone.pixels(samples.images()))
        if torch.isfinite(batch.pixels).all():
            logits, log = step(batch)
        else:
            logits, log = torch.full((len(batch.ids), model.classes), torch.nan), {"quarantined": 1.0}
        if not torch.isfinite(logits).all():
            logits, log = _of_source(model, batch), {**log, "quarantined": 1.0}
        scores |= dict(zip(samples.ids, logits.detach().cpu(), strict=True))
        logs.append(log)
    ordered = torch.stack([scores[sample] for sample in sorted(scores)])
    return {"prediction": {"scores": ordered}, "evidence": _columns(logs)}


def learn_through(
    arriving: Mapping[str, Samples], model: SourceModel, learner: Learner, step: BatchStep, reset_every: int
) -> dict[str, Tensors]:
    """`go_through`, learning: the part `state` too. The learner starts anew after `reset_every` batches, 0: never."""
    found = go_through(arriving, model, learner.resetting(step, reset_every))
    return {**found, "state": learner.tensors()}


@torch.no_grad()
def _of_source(model: SourceModel, batch: OnlineBatch) -> Tensor:
    logits = torch.zeros(len(batch.ids), model.classes, device=batch.pixels.device)
    sound = torch.isfinite(batch.pixels).flatten(1).all(1)
    if sound.any():
        logits[sound] = model.logits(batch.pixels[sound])
    return logits.nan_to_num(0.0, 0.0, 0.0)


def _columns(logs: Sequence[Log]) -> Tensors:
    """One tensor `(batches,)` a name; what a batch did not log is NaN, but for the two that have a meaning always."""
    absent = {"updated": 0.0, "quarantined": 0.0}
    names = sorted({"updated", "quarantined", *(name for log in logs for name in log)})
    return {
        name: torch.tensor([log.get(name, absent.get(name, torch.nan)) for log in logs], dtype=torch.float64)
        for name in names
    }


@dataclass(frozen=True)
class Descent:
    """The optimiser of a method. rates: learning rates by name of weight where they are not `lr`."""

    optimizer: Literal["sgd", "adam"]
    lr: float
    momentum: float = 0.9
    nesterov: bool = False

    def on(self, live: Tensors, rates: Mapping[str, float]) -> torch.optim.Optimizer:
        groups = [{"params": [value], "lr": rates.get(name, self.lr)} for name, value in live.items()]
        if self.optimizer == "adam":
            return torch.optim.Adam(groups, lr=self.lr)
        nesterov = self.nesterov and self.momentum > 0
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=nesterov)


class Learner:
    """Tensors that are learnt at test time, with their optimiser's memory and counters: the state of a method.

    start: where they begin, and return to at a reset. saved: what `tensors` gave after the last segment, if any.
    `memory`: more tensors that a method carries from batch to batch; `start_memory` is what they begin with.
    """

    def __init__(
        self,
        start: Tensors,
        how: Descent,
        saved: Tensors | None,
        *,
        memory: Tensors | None = None,
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self.start, self._how, self._rates = start, how, rates or {}
        self._start_memory = memory or {}
        self.live, self.memory, self._optimizer = self._fresh()
        if saved is not None:
            unpack(self.live, self._optimizer, saved)
            device = next(iter(start.values())).device
            self.memory = {name: value.to(device).clone() for name, value in subset("memory", saved).items()}

    def _fresh(self) -> tuple[Tensors, Tensors, torch.optim.Optimizer]:
        live = {name: value.detach().clone().requires_grad_() for name, value in self.start.items()}
        memory = {name: value.clone() for name, value in self._start_memory.items()}
        return live, memory, self._how.on(live, self._rates)

    def reset(self) -> None:
        """Tensors, optimiser and memory as they were before the first batch."""
        self.live, self.memory, self._optimizer = self._fresh()

    def step(self, loss: Tensor) -> bool:
        """One step down the gradient; none, and False, where loss or gradient is not finite."""
        return torch.isfinite(loss).item() is True and self.step_by(self.gradients(loss))

    def gradients(self, loss: Tensor) -> list[Tensor]:
        """The gradient of `loss` with respect to each weight; zero where it does not depend on it."""
        found = torch.autograd.grad(loss, list(self.live.values()), allow_unused=True)
        return [
            torch.zeros_like(value) if one is None else one
            for one, value in zip(found, self.live.values(), strict=True)
        ]

    def step_by(self, gradients: Sequence[Tensor]) -> bool:
        """One step of the optimiser with these gradients, if they are finite."""
        if not all(torch.isfinite(one).all() for one in gradients):
            return False
        for value, one in zip(self.live.values(), gradients, strict=True):
            value.grad = one
        self._optimizer.step()
        for value in self.live.values():
            value.grad = None
        return True

    def resetting(self, step: BatchStep, every: int) -> BatchStep:
        """`step`, and a reset after every so many batches (0: never); the age is part of the memory."""
        if every < 1:
            return step

        def aged(batch: OnlineBatch) -> tuple[Tensor, Log]:
            found, log = step(batch)
            age = int(self.memory.get("age", torch.tensor(0))) + 1
            if age >= every:
                self.reset()
                return found, {**log, "reset": 1.0}
            self.memory["age"] = torch.tensor(age)
            return found, log

        return aged

    def tensors(self) -> Tensors:
        """All of it as one flat set of tensors, on the CPU."""
        memory = {f"memory/{name}": value for name, value in self.memory.items()}
        state = {**packed(self.live, self._optimizer), **memory}
        return {name: value.detach().cpu().clone() for name, value in state.items()}


@torch.no_grad()
def average_into(teacher: Tensors, student: Mapping[str, Tensor], keep: Callable[[str], float]) -> None:
    """teacher <- a teacher + (1 - a) student, with a = keep(name). Equal weights stay equal to the bit."""
    for name, value in teacher.items():
        value.lerp_(student[name], 1 - keep(name))


@torch.no_grad()
def restore(weights: Tensors, start: Tensors, probability: float, seeds: Seeds, batch: str) -> None:
    """Return each scalar to its start value with this probability; drawn by (batch key, name of weight)."""
    if probability <= 0:
        return
    for name, value in weights.items():
        draws = torch.rand(value.shape, generator=seeds.generator("restore", batch, name)).to(value.device)
        value.copy_(torch.where(draws < probability, start[name], value))


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax in nats, `(n,)`."""
    return cross_entropy(logits, logits)


def cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    """-(softmax target) . (log softmax logits), `(n,)`."""
    return -(target.softmax(1) * logits.log_softmax(1)).sum(1)


@builds("cache")
@torch.no_grad()
def scores_under(
    samples: Samples, source: dict[str, Tensors], state: Tensors, *, backbone: Backbone, weights: str
) -> Tensors:
    """Logits `(n, classes)` of the source model with what the state holds under `weights/` in place of its own."""
    model = SourceModel(backbone, source)
    replaced = {name: value.to(backbone.device) for name, value in subset(weights, state).items()}
    found = rows(backbone, batches(samples, "features"), lambda raw: model.logits(backbone.pixels(raw), replaced))
    return {"scores": found}


def subset(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """The tensors called `prefix/name`, by name."""
    return {name.removeprefix(f"{prefix}/"): v for name, v in tensors.items() if name.startswith(f"{prefix}/")}
