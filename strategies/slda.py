"""SLDA: linear discriminant analysis on the frozen backbone, from sums that a deletion takes away exactly.

Hayes, Kanan, "Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis", CVPR Workshops 2020, arXiv
1909.01520. With class means m_k and the covariance S shared by all classes, an image of features x scores

    w_k . x - w_k . m_k / 2,    w_k = [(1 - e) S + e I]^-1 m_k    (Section 3.2)

The paper updates S image by image around means that are still moving, so what it gets depends on their order. Here S
is what those updates approach, the covariance within classes, out of each task's counts, sums and second moments:
no order, and a task's images are in that task's sums alone.
"""

from __future__ import annotations

import torch

from cl import Handle, Model, Samples, Strategy, Task, Tensors, builds, hyperparameters, setting
from cl.parts.statistics import square


@hyperparameters
class SldaHyper:
    """SLDA's settings."""

    shrinkage: float = setting(1e-4, "weight e of the identity in the covariance", "section 4", gt=0, le=1)


@builds("statistics")
def moments(samples: Samples, features: Tensors, *, classes: list[str]) -> Tensors:
    """Count `(classes,)`, sum `(classes, d)`, and the upper triangle of sum x x^T `(d (d+1) / 2,)`, float64."""
    rows, targets = features["features"].double(), samples.targets(classes)  # (n, d), (n,)
    sums = torch.zeros(len(classes), rows.shape[1], dtype=torch.float64).index_add_(0, targets, rows)
    row, column = torch.triu_indices(rows.shape[1], rows.shape[1])
    count = torch.bincount(targets, minlength=len(classes))
    return {"count": count, "sum": sums, "second": (rows.T @ rows)[row, column]}


@builds("head")
def shrunk_discriminant(tasks: list[Tensors], *, columns: list[list[int]], shrinkage: float) -> Tensors:
    """weight `(classes, d)` and bias `(classes,)` from the moments of all tasks. columns: of each task's classes."""
    count = torch.zeros(1 + max(column for group in columns for column in group), dtype=torch.float64)
    sums = torch.zeros(len(count), tasks[0]["sum"].shape[1], dtype=torch.float64)
    for task, group in zip(tasks, columns, strict=True):
        count[group] += task["count"]
        sums[group] += task["sum"]
    means = sums / count[:, None]  # (classes, d)
    second = square(torch.stack([task["second"] for task in tasks]).sum(0), means.shape[1])
    within = (second - sums.T @ means) / count.sum()  # (d, d)
    shrunk = (1 - shrinkage) * within + shrinkage * torch.eye(len(within), dtype=torch.float64)
    weight = torch.linalg.solve(shrunk, means.T).T  # (classes, d)
    return {"weight": weight.float(), "bias": (-(weight * means).sum(1) / 2).float()}


@builds("cache")
def discriminant_scores(features: Tensors, head: Tensors) -> Tensors:
    """Scores `(n, classes)`."""
    return {"scores": features["features"] @ head["weight"].T + head["bias"]}


class Slda(Strategy[SldaHyper]):
    """Linear discriminant analysis from each task's sums."""

    title = "SLDA: linear discriminant analysis of the frozen features, from sums deleted exactly"
    paper = "Hayes and Kanan, CVPR Workshops 2020, arXiv 1909.01520"
    Hyper = SldaHyper
    presets = {"quick": {}}

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        name = f"{task.id}/moments"
        mine = self.component(name, moments, task.train.plain, self.features(task.train), classes=list(task.classes))
        names = list(dict.fromkeys([*model.classes, *task.classes]))
        groups = [*(past.classes for past in model.tasks), task.classes]
        columns = [[names.index(one) for one in group] for group in groups]
        every = [*(model[f"{past.id}/moments"] for past in model.tasks), mine]
        head = self.component(
            "discriminant", shrunk_discriminant, every, columns=columns, shrinkage=self.hyper.shrinkage
        )
        return {name: mine, "discriminant": head}

    def scores(self, model: Model, samples: Samples) -> Handle:
        return self.component("scores", discriminant_scores, self.features(samples), model["discriminant"])
