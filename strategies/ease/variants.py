"""What EASE's options add to the method: other ways to complete prototypes, one adapter for all tasks, and shards.

The released code has `complete = diagonal`, `oracle` and `adapt = first`; the rest is ours, and not in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from cl import BadInput, Handle, Model, PastTask, Samples, Seeds, Task, Tensors, builds
from strategies.ease.method import PaperEase

SHARDING = Seeds("ease")  # of no run: a sample stays in its shard whatever the run's seed


@builds("cache")
def join(features: list[Tensors]) -> Tensors:
    """One space `(n, d * shards)` of those under several adapters."""
    return {"features": torch.cat([each["features"] for each in features], dim=1)}


class Ease(PaperEase):
    """An adapter for each task; prototypes in every space, old ones synthesised in new spaces."""

    @property
    def rehearsal(self) -> bool:
        return self.hyper.exemplars

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        if self.hyper.complete == "oracle" and not self.hyper.exemplars:
            raise BadInput("complete = oracle reads old tasks' images; allow it with --set exemplars=true")
        entries = super().learn(task, model)
        return {**entries, **self._old_prototypes(task, model, entries)}

    def _old_prototypes(self, task: Task, model: Model, entries: Mapping[str, Handle]) -> dict[str, Handle]:
        """With `complete = oracle`, prototypes of the old classes in the space that the task adds, if it adds one."""
        if self.hyper.complete != "oracle" or not self._in_space(entries, task.id):
            return {}
        return {
            f"{past.id}/measured/{task.id}": self._true_prototypes(
                past, self._features(past.train.plain, entries, [task.id])[0]
            )
            for past in model.tasks
        }

    # One adapter for all tasks (`adapt`), or several for each (`shards`).

    def _adapters(self, task: Task, model: Model) -> dict[str, Handle]:
        if self.hyper.adapt == "first" and model.tasks:
            return {}
        if self.hyper.shards == 1:
            return super()._adapters(task, model)
        shards: dict[int, list[str]] = {}
        for sample in task.train.ids:
            shards.setdefault(SHARDING.integer("shard", sample) % self.hyper.shards, []).append(sample)
        names = {f"{task.id}/adapter/{shard}": ids for shard, ids in sorted(shards.items())}
        return {name: self._adapter(name, task, task.train.keep(ids)) for name, ids in names.items()}

    def _in_space(self, entries: Mapping[str, Handle], space: str) -> list[Handle]:
        """The adapters of a space: that of its task, or those of the task's shards."""
        names = [f"{space}/adapter", *(f"{space}/adapter/{shard}" for shard in range(self.hyper.shards))]
        return [entries[name] for name in names if name in entries]

    def _spaces(self, entries: Mapping[str, Handle], tasks: Sequence[str]) -> list[str]:
        return [task for task in tasks if self._in_space(entries, task)]

    def _features(self, images: Samples, entries: Mapping[str, Handle], spaces: list[str]) -> list[Handle]:
        """Features in each of the spaces, those of a task's shards joined."""
        adapters = [self._in_space(entries, space) for space in spaces]
        every = [one for several in adapters for one in several]
        features = iter(self.features_under(images, every, self.hyper.scale))
        each = [[next(features) for _ in several] for several in adapters]
        return [own[0] if len(own) == 1 else self.component("features", join, own) for own in each]

    def _own(self, model: Model, task: PastTask, spaces: list[str]) -> int:
        """The newest space in which the task's prototypes are measured: its own, or the only one."""
        return max(place for place, space in enumerate(spaces) if f"{task.id}/prototypes/{space}" in model)

    # Prototypes that are not synthesised from cosines in the class's own space (`complete`).

    @property
    def _bare(self) -> bool:
        return super()._bare or self.hyper.complete == "ptm"

    def _comparison_space(self, task: PastTask) -> str:
        return "bare" if self.hyper.complete == "ptm" else super()._comparison_space(task)

    def _prototype(self, model: Model, task: PastTask, place: int, spaces: list[str]) -> Handle | None:
        h, space = self.hyper, spaces[place]
        measured = f"{task.id}/prototypes/{space}" in model
        if h.complete == "diagonal" and (not measured or (h.adapt == "each" and space != task.id)):
            return None
        if h.complete == "oracle" and not measured:
            return model[f"{task.id}/measured/{space}"]
        return super()._prototype(model, task, place, spaces)
