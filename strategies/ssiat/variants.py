"""SSIAT's controls and less coupled variants, and the shift as the released code measures it; not in the paper."""

from __future__ import annotations

import torch
from torch import Tensor

from cl import Backbone, Handle, Model, PastTask, Samples, Seeds, Task, Tensors, builds, cosine
from cl.adapters import bottleneck
from cl.learning.train import augmented, epoch_batches
from cl.models.backbone import BATCH, on_device
from cl.parts.gaussians import covariance
from strategies.ssiat.method import PaperSsiat, TuningSession, adapter_of, means_of


@builds("prototype")
def joined_means(old: Tensors, new: Tensors) -> Tensors:
    """Means `(classes so far, d)` where no old one moves."""
    return {"mean": torch.cat([old["mean"], new["mean"]])}


@builds("cache")
@torch.no_grad()
def loaded_features(samples: Samples, adapter: Tensors, *, backbone: Backbone, seeds: Seeds, scale: float) -> Tensors:
    """Features `(n, d)` as the released code measures a shift: what its training loader hands out, shuffled and
    augmented anew in each pass."""
    attach = bottleneck.attach(on_device(adapter, backbone), scale)
    loaded = epoch_batches(samples.ids, BATCH, 0, seeds)
    return {"features": torch.cat([backbone.features(augmented(samples, one, seeds), attach).cpu() for one in loaded])}


@builds("head")
def lda_head(mean: Tensors, spreads: list[Tensors]) -> Tensors:
    """Linear discriminants with the mean covariance S: weight S^-1 mu `(classes, d)`, bias -mu S^-1 mu / 2."""
    mu = mean["mean"].double()
    pooled = torch.cat([covariance(spread, mu.shape[1]) for spread in spreads]).mean(0)
    weight = torch.linalg.solve(pooled, mu.T).T
    return {"weight": weight.float(), "bias": (-0.5 * (weight * mu).sum(1)).float()}


@builds("cache")
def chain_scores(spaces: list[Tensors], heads: list[Tensors]) -> Tensors:
    """scores `(n, classes)`: cosines to the rows (or linear discriminants) of each chain in its own space, joined."""
    pairs = [(space["features"], head) for space, head in zip(spaces, heads, strict=True)]
    return {"scores": torch.cat([_head_scores(features, head) for features, head in pairs], dim=1)}


def _head_scores(features: Tensor, head: Tensors) -> Tensor:
    if "bias" in head:
        return features @ head["weight"].T + head["bias"]
    return cosine(features, head["weight"])


class Ssiat(PaperSsiat):
    """One adapter tuned throughout; old class means follow its drift; a classifier from the class Gaussians."""

    # `restart`: a chain of so many sessions, then a new one in a feature space of its own.

    def _past(self, model: Model) -> tuple[PastTask, ...]:
        length, past = self.hyper.restart, len(model.tasks)
        return model.tasks[past - past % length :] if length else super()._past(model)

    def scores(self, model: Model, samples: Samples) -> Handle:
        if not self.hyper.restart and self.hyper.head == "aligned":
            return super().scores(model, samples)
        names = [task.id for task in model.tasks if f"{task.id}/heads" in model]
        adapters = [adapter_of(model.entries.get(f"{name}/tuned")) for name in names]
        spaces = [self.features(samples, adapter, self.hyper.scale) for adapter in adapters]
        return self.component("scores", chain_scores, spaces, [model[f"{name}/heads"] for name in names])

    def _newest_means(self, model: Model) -> Handle:
        return model[next(f"{task.id}/means" for task in reversed(model.tasks) if f"{task.id}/means" in model)]

    # `adapt`: the adapter is tuned in the first session only, or never, and nothing drifts.

    def _adapter_and_head(self, session: TuningSession) -> Handle | None:
        tunes = self.hyper.adapt == "each" or (self.hyper.adapt == "first" and not session.past)
        return super()._adapter_and_head(session) if tunes else None

    # `shift` and `pairing`: old means stay, or follow a shift between rows of other images.

    def _means(self, session: TuningSession, now: Handle | None, new: Handle) -> Handle:
        if self.hyper.shift != "none" and self.hyper.adapt == "each":
            return super()._means(session, now, new)
        old = means_of(session.model[f"{session.chain}/means"])
        return self.component(f"{session.task.id}/moved-means", joined_means, old, new)

    def _shift_features(self, task: Task, tuned: Handle | None, when: str) -> Handle:
        if self.hyper.pairing == "paired":
            return super()._shift_features(task, tuned, when)
        name, adapter = f"{task.id}/loaded-{when}", adapter_of(tuned)
        return self.component(name, loaded_features, task.train, adapter, scale=self.hyper.scale)

    # `ca_init` and `head`: a classifier from the Gaussians alone.

    def _rows(self, session: TuningSession) -> Handle | None:
        return super()._rows(session) if self.hyper.ca_init == "chain" and self.hyper.head == "aligned" else None

    def _heads(self, session: TuningSession, tuned: Handle | None, means: Handle, spreads: list[Handle]) -> Handle:
        if self.hyper.head == "lda":
            return self.component("heads", lda_head, means_of(means), spreads)
        if self.hyper.ca_init == "fresh":
            return self._unified_head(f"{session.chain}/heads", session, None, means, spreads)
        return super()._heads(session, tuned, means, spreads)
