"""Fine-tuning: one network trained on each task's images in turn, with nothing against forgetting. The lower bound."""

from __future__ import annotations

from cl import Handle, Model, Task
from strategies.tuning import OneNetwork


class FineTune(OneNetwork):
    """Sequential training of one network; the loss runs over all classes seen."""

    title = "fine-tuning: one network trained on each task in turn, the lower bound"
    paper = "baseline; French, Catastrophic forgetting in connectionist networks, 1999"

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        before = model["network"] if model.tasks else None
        classes = list(dict.fromkeys([*model.classes, *task.classes]))
        return {"network": self.network(f"{task.id}/network", [task.train], before, classes)}
