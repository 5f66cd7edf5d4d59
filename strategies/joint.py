"""Joint training: one network trained afresh on all images so far. The upper bound; it keeps every image."""

from __future__ import annotations

from typing import Literal

from cl import Handle, Model, Task, hyperparameters, setting
from strategies.tuning import OneNetwork, TuningHyper


@hyperparameters
class JointHyper(TuningHyper):
    """Joint training's settings."""

    when: Literal["each", "last"] = setting("each", "train after each task, or after the last one only", "ours")


class Joint(OneNetwork[JointHyper]):
    """Training from scratch on the union of all tasks so far."""

    title = "joint training: all images so far at once, the upper bound (keeps every image)"
    paper = "baseline; the usual upper bound of continual learning"
    Hyper = JointHyper
    rehearsal = True

    def learns(self, task: Task, remaining: int) -> bool:
        return self.hyper.when == "each" or remaining == 0

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        shards = [*(past.train for past in model.tasks), task.train]
        classes = list(dict.fromkeys([*model.classes, *task.classes]))
        return {"network": self.network("network", shards, None, classes)}
