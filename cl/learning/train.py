"""The one training loop all strategies share: optimiser, schedule, order, checkpoints, progress, determinism."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor

from cl.adapters import bottleneck
from cl.components.checkpoint import Checkpoint
from cl.data.augment import crops
from cl.data.samples import Samples
from cl.errors import NonFinite
from cl.home.store import Tensors
from cl.learning.prefix import PREFIX_BYTES, enter, entering
from cl.models.backbone import Attach, Backbone, on_device, real_passes
from cl.progress import tell
from cl.seeds import Seeds

AnyBatch = TypeVar("AnyBatch")  # whatever one step of `descend` takes


@dataclass(frozen=True)
class Batch:
    """One step's images: their rows in the shard, their ids, and the epoch."""

    rows: list[int]
    ids: list[str]
    epoch: int


@dataclass(frozen=True)
class Optimisation:
    """SGD with momentum, or Adam with L2; cosine annealing to 0, stepped per epoch, no warm-up."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.9


@dataclass(frozen=True)
class Tuning:
    """How an adapter is trained together with a head above it, whose learning rate is `head_rate` of the adapter's."""

    shape: bottleneck.Shape
    how: Optimisation
    head_rate: float = 1.0


def fit(
    parameters: Tensors,
    loss: Callable[[Tensors, Batch], Tensor],
    ids: Sequence[str],
    how: Optimisation,
    seeds: Seeds,
    checkpoint: Checkpoint,
    *,
    kept: Mapping[str, Tensor] | None = None,
) -> Tensors:
    """Minimise `loss` over batches of `ids`, as `descend` does.

    Batches follow hash(epoch, sample id); the last one may be short.
    """
    return descend(
        parameters, loss, lambda epoch: epoch_batches(ids, how.batch_size, epoch, seeds), how, checkpoint, kept=kept
    )


def fit_parts(
    parts: Mapping[str, Tensors],
    loss: Callable[[dict[str, Tensors], Batch], Tensor],
    ids: Sequence[str],
    how: Optimisation,
    seeds: Seeds,
    checkpoint: Checkpoint,
) -> dict[str, Tensors]:
    """`fit` for the parameters of several parts (an adapter, its head, ...), by part and name."""
    joined = {f"{part}/{name}": value for part, tensors in parts.items() for name, value in tensors.items()}
    return _split(fit(joined, lambda live, batch: loss(_split(live), batch), ids, how, seeds, checkpoint))


def _split(joined: Tensors) -> dict[str, Tensors]:
    parts: dict[str, Tensors] = {}
    for place, value in joined.items():
        part, _, name = place.partition("/")
        parts.setdefault(part, {})[name] = value
    return parts


def epoch_batches(ids: Sequence[str], size: int, epoch: int, seeds: Seeds) -> list[Batch]:
    """The batches of one epoch: ids in the order of hash(epoch, id); the last one may be short."""
    order = seeds.order(ids, "order", epoch)
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    return [Batch(rows, [ids[row] for row in rows], epoch) for rows in chunks]


def descend(
    parameters: Tensors,
    loss: Callable[[Tensors, AnyBatch], Tensor],
    batches: Callable[[int], Iterable[AnyBatch]],
    how: Optimisation,
    checkpoint: Checkpoint,
    *,
    rates: Mapping[str, float] | None = None,
    after_step: Callable[[Tensors], None] | None = None,
    kept: Mapping[str, Tensor] | None = None,
) -> Tensors:
    """Minimise `loss` over `batches(epoch)` and return the trained parameters, detached, on the CPU.

    rates: factors of the learning rate by parameter name, 1 where absent. after_step: changes the live parameters in
    place after each step, without gradient. kept: what the loss itself changes in place, so that a pause must save it
    too. Raises NonFinite if a loss is NaN or infinite.
    """
    live = {name: value.detach().clone().requires_grad_() for name, value in parameters.items()}
    optimizer = _optimizer(live, how, rates or {})
    every = {**live, **(kept or {})}
    for epoch in range(_resume(every, optimizer, checkpoint), how.epochs):
        tell("epochs", epoch, how.epochs)
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * how.lr * 0.5 * (1 + math.cos(math.pi * epoch / how.epochs))
        for batch in batches(epoch):
            _step(loss(live, batch), optimizer, epoch)
            if after_step is not None:
                with torch.no_grad():
                    after_step(live)
        checkpoint.save(_state(every, optimizer, epoch + 1))
    tell("epochs", how.epochs, how.epochs)
    return {name: value.detach().cpu() for name, value in live.items()}


class Frozen:
    """What a frozen function gives for batches of training images, as tensors with one row an image.

    Without augmentation it is computed once an image and read back in every epoch.

    after: from the stream that enters block `block` to what is wanted. below: the adapters' branch in the blocks below
    it. stored: that stream for the whole shard (see `cl.learning.prefix`), used where no augmentation stands in front.
    """

    def __init__(
        self,
        samples: Samples,
        backbone: Backbone,
        seeds: Seeds,
        after: Callable[[Tensor], tuple[Tensor, ...]],
        *,
        block: int = 0,
        below: Attach | None = None,
        stored: Tensor | None = None,
    ) -> None:
        self._samples, self._backbone, self._seeds, self._after = samples, backbone, seeds, after
        self._block, self._below = block, below
        self._kept = self._remember(stored) if samples.augment == "none" else None

    @torch.no_grad()
    def __call__(self, batch: Batch) -> tuple[Tensor, ...]:
        """The rows of this batch."""
        if self._kept is not None:
            return tuple(kept[batch.rows] for kept in self._kept)
        return self._after(self._enter(augmented(self._samples, batch, self._seeds)))

    def _enter(self, images: Tensor) -> Tensor:
        return enter(self._backbone, images, self._block, self._below)

    @torch.no_grad()
    def _remember(self, stored: Tensor | None) -> tuple[Tensor, ...] | None:
        streams = entering(self._samples, self._backbone, self._block, self._below, stored)
        parts: list[tuple[Tensor, ...]] = []
        for real, x in streams:
            with real_passes(self._backbone, real):
                parts.append(tuple(value[:real] for value in self._after(x)))
            bytes_each = sum(value[0].numel() * value.element_size() for value in parts[0])
            if bytes_each * len(self._samples) > PREFIX_BYTES:
                return None
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))


class Tuner:
    """Trains a bottleneck adapter in every block, and a head above it, on one shard.

    Without augmentation the frozen prefix of each image is computed once and read back in every epoch. Raises BadInput
    for a backbone that has no sites for such adapters.
    """

    def __init__(self, samples: Samples, tuning: Tuning, backbone: Backbone, seeds: Seeds) -> None:
        backbone.require_sites(bottleneck.KIND)
        self._samples, self._tuning = samples, tuning
        self._backbone, self._seeds = backbone, seeds
        self._prefix = Frozen(samples, backbone, seeds, lambda x: backbone.site(0, x))

    def features(self, adapter: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Features `(batch, d)` under an adapter, differentiable in its parameters."""
        shape = self._tuning.shape
        h, y = self._prefix(batch)  # (batch, tokens, d) each
        width = (len(adapter["down.weight"]), self._backbone.tokens, shape.bottleneck)
        keep = bottleneck.dropout(shape.dropout, width, lambda size: self._draws(batch, size))
        return self._backbone.finish((h, y), bottleneck.attach(adapter, shape.scale, keep))

    def tune(
        self,
        start: Tensors | None,
        head: Tensors,
        loss: Callable[[Tensor, Tensors, Batch], Tensor],
        checkpoint: Checkpoint,
        after_step: Callable[[Tensors], None] | None = None,
    ) -> tuple[Tensors, Tensors]:
        """Adapter and head after training both.

        start: where the adapter begins, None for a fresh one. head: any parameters with names of their own. loss: of
        features `(batch, d)`, the live parameters and the batch. after_step: as of `descend`.
        """
        how, ids, seeds = self._tuning.how, self._samples.ids, self._seeds
        adapter = start if start is not None else self._fresh()
        trained = descend(
            on_device({**adapter, **head}, self._backbone),
            lambda live, batch: loss(self.features(live, batch), live, batch),
            lambda epoch: epoch_batches(ids, how.batch_size, epoch, seeds),
            how,
            checkpoint,
            rates=dict.fromkeys(head, self._tuning.head_rate),
            after_step=after_step,
        )
        return {name: trained[name] for name in adapter}, {name: trained[name] for name in head}

    def _fresh(self) -> Tensors:
        return bottleneck.init(self._backbone, self._tuning.shape.bottleneck, self._seeds.generator("init"))

    def _draws(self, batch: Batch, size: tuple[int, ...]) -> Tensor:
        return self._seeds.uniform(batch.ids, size, "dropout", batch.epoch).to(self._backbone.device)


def augmented(samples: Samples, batch: Batch, seeds: Seeds) -> Tensor:
    """The batch's raw images under the stream's augmentation, uint8; seeded by (sample id, epoch)."""
    return samples.images(batch.rows, crops(samples.augment, batch.ids, batch.epoch, seeds))


def _optimizer(live: Tensors, how: Optimisation, rates: Mapping[str, float]) -> torch.optim.Optimizer:
    groups = [{"params": [value], "rate": rates.get(name, 1.0)} for name, value in live.items()]
    if how.optimizer == "adam":
        return torch.optim.Adam(groups, lr=how.lr, weight_decay=how.weight_decay)
    return torch.optim.SGD(groups, lr=how.lr, momentum=how.momentum, weight_decay=how.weight_decay)


def _step(loss: Tensor, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    if not torch.isfinite(loss):
        raise NonFinite(f"the loss became {loss.item()} in epoch {epoch + 1}; lower the learning rate (--set lr=...)")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _state(live: Tensors, optimizer: torch.optim.Optimizer, epoch: int) -> Tensors:
    return {**packed(live, optimizer), "epoch": torch.tensor(epoch)}


def packed(live: Tensors, optimizer: torch.optim.Optimizer) -> Tensors:
    """Parameters and what their optimiser remembers, as one flat set of tensors; `live` in the optimiser's order."""
    state = {f"parameter/{name}": value for name, value in live.items()}
    names = list(live)
    for row, values in optimizer.state_dict()["state"].items():
        state |= {f"optimizer/{slot}/{names[row]}": v for slot, v in values.items() if isinstance(v, Tensor)}
    return state


def unpack(live: Tensors, optimizer: torch.optim.Optimizer, saved: Mapping[str, Tensor]) -> None:
    """Put parameters and optimiser back to where `packed` found them."""
    with torch.no_grad():
        for name, value in live.items():
            value.copy_(saved[f"parameter/{name}"])
    rows = {name: row for row, name in enumerate(live)}
    state: dict[int, Tensors] = {}
    for place, value in saved.items():
        if place.startswith("optimizer/"):
            _, slot, parameter = place.split("/", 2)
            state.setdefault(rows[parameter], {})[slot] = value.clone()  # it is changed in place
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _resume(live: Tensors, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> int:
    """Put parameters and optimiser where an interrupted attempt left them; the epoch to go on with."""
    saved = checkpoint.load()
    if saved is None:
        return 0
    unpack(live, optimizer, saved)
    return int(saved["epoch"])
