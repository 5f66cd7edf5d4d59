"""MOS under other readings: as the released code runs, less coupled, and with one adapter.

The released code's forward passes pull all stored adapters, also while statistics are taken and while evaluating. Ours
change nothing that is stored: what such a pass leaves of an adapter is computed for the one build that needs it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cl import Handle, Model, Part, Task
from strategies.mos.merging import adapter_distances
from strategies.mos.method import PaperMos, Surgery
from strategies.mos.released import dropout_features, pulled_features

PULLS = {"step": 1, "anchor": 1, "step13": 13}  # a training step; the released code pulls once a block, and once more


class Mos(PaperMos):
    """An adapter for each task, merged into the next ones; one head, aligned on class Gaussians."""

    # `merge` and `init`: what A_t begins from and is pulled to.

    def _start(self, model: Model) -> Part | Handle | None:
        """`mbar`: at what A_{t-1} was pulled to, because the released statistics pass leaves no more of A_{t-1} than
        that; nothing pulls A_0."""
        if not model.tasks or self.hyper.init == "fresh":
            return None
        if self.hyper.init == "mbar":
            return self._mean_adapter(model, max(1, len(model.tasks) - 1))
        return self._adapter(model, 0) if self.hyper.init == "anchor" else super()._start(model)

    def _towards(self, model: Model) -> Part | Handle | None:
        if not model.tasks or self.hyper.merge == "none":
            return None
        return self._adapter(model, 0) if self.hyper.merge == "anchor" else super()._towards(model)

    def _surgery(self, model: Model) -> Surgery:
        h = self.hyper
        merge = h.merge if model.tasks else "none"
        return Surgery(h.reg, h.merge_momentum, PULLS.get(merge, 0), int(merge == "task_end"))

    # `orth` and `head`: adapters and a head that do not depend on earlier ones.

    def _earlier_means(self, model: Model) -> list[Handle]:
        return super()._earlier_means(model) if self.hyper.orth == "all" else []

    def _earlier_head(self, model: Model) -> Part | Handle | None:
        return super()._earlier_head(model) if self.hyper.head == "chain" else None

    def _with_head(
        self, task: Task, model: Model, entries: dict[str, Handle], rows: Part | Handle
    ) -> dict[str, Handle]:
        """`fresh`: from the class statistics alone, the task's private head being thrown away."""
        if self.hyper.head == "chain":
            return super()._with_head(task, model, entries, rows)
        return {**entries, "head": self._head("head", task, model, entries, None, self.hyper.alignment)}

    # `one_adapter`: the first one serves all tasks, and there is nothing to retrieve.

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        if not self.hyper.one_adapter or not model.tasks:
            return super().learn(task, model)
        self._check(task, model)
        return self._with_head(task, model, self._statistics(task, self._adapter(model, 0), model), model["head"])

    def figures(self, models: Sequence[Model], tasks: Sequence[Task]) -> dict[str, Handle]:
        if not self.hyper.one_adapter:
            return super().figures(models, tasks)
        return {"distances": self.component("distances", adapter_distances, [self._adapter(models[-1], 0)])}

    def _columns(self, model: Model) -> list[int]:
        return [0] * len(model.classes) if self.hyper.one_adapter else super()._columns(model)

    # `stats_pull`, `proto_dropout` and `eval_pull`: statistics and evaluation as the released passes leave adapters.

    def _statistics_features(self, task: Task, adapter: Part, model: Model) -> Handle:
        h = self.hyper
        if h.stats_pull == "none" or not model.tasks:
            return super()._statistics_features(task, adapter, model)
        mean = self._mean_adapter(model, len(model.tasks))
        arguments = {"scale": h.scale, "momentum": h.merge_momentum, "batch": 3 * h.batch_size}
        return self.component("features", pulled_features, task.train.plain, adapter, mean, **arguments)

    def _prototype_features(self, task: Task, adapter: Part, model: Model) -> Handle:
        h = self.hyper
        if not h.proto_dropout or not model.tasks:
            return super()._prototype_features(task, adapter, model)
        name, first = f"{task.id}/dropout-features", self._adapter(model, 0)
        return self.component(name, dropout_features, task.train.plain, first, scale=h.scale, rate=h.dropout)

    def _adapter_at_test(self, model: Model, place: int) -> Part | Handle:
        """The adapter at `place`, or what stands for it."""
        if self.hyper.eval_pull == "first":
            return self._adapter(model, 0)
        if self.hyper.eval_pull == "official" and place > 0:
            return self._mean_adapter(model, place)
        return super()._adapter_at_test(model, place)
