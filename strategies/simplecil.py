"""SimpleCIL: class means of the frozen backbone, nearest by cosine. Nothing is trained.

Zhou, Cai, Ye, Zhan, Liu, "Revisiting Class-Incremental Learning with Pre-Trained Models: Generalizability and
Adaptivity are All You Need", IJCV 2024, arXiv 2303.07338. With p_c the mean of class c's features (section 3),

    score(c | x) = cos(f(x), p_c)
"""

from __future__ import annotations

import torch

from cl import Handle, Model, Samples, Strategy, Task, Tensors, builds, class_means, cosine


@builds("cache")
def nearest_mean(features: Tensors, means: list[Tensors], *, groups: list[list[int]]) -> Tensors:
    """Cosine to every class mean. groups: the columns of each task's classes; one of several tasks scores its best."""
    columns = 1 + max(column for group in groups for column in group)
    scores = torch.full((len(features["features"]), columns), -torch.inf)
    for mean, group in zip(means, groups, strict=True):
        scores[:, group] = torch.maximum(scores[:, group], cosine(features["features"], mean["mean"]))
    return {"scores": scores}


class SimpleCIL(Strategy):
    """Class means of the frozen backbone as the classifier."""

    title = "SimpleCIL: class means of the frozen backbone, nearest by cosine"
    paper = "Zhou et al., IJCV 2024, arXiv 2303.07338"
    presets = {"quick": {}, "paper": {}, "official": {}}

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        features = self.features(task.train)
        means = self.component(
            f"{task.id}/prototypes", class_means, task.train.plain, features, classes=list(task.classes)
        )
        return {f"{task.id}/prototypes": means}

    def scores(self, model: Model, samples: Samples) -> Handle:
        means = [model[f"{task.id}/prototypes"] for task in model.tasks]
        columns = {name: column for column, name in enumerate(model.classes)}
        groups = [[columns[name] for name in task.classes] for task in model.tasks]
        return self.component("scores", nearest_mean, self.features(samples), means, groups=groups)
