"""Predictions of a model on a shard: what later metrics and attacks need of every sample."""

from __future__ import annotations

import torch

from cl.components.builder import builds
from cl.data.samples import Samples
from cl.data.veil import order
from cl.home.store import Tensors


@builds("prediction")
def predictions(samples: Samples, scores: Tensors, *, classes: list[str], known: list[str]) -> Tensors:
    """Per sample, in id order: the predicted class (index into `classes`, ties to the lower) and its score, `within`:
    the one predicted among `known`, the classes of the sample's own task, the log-probability of the true class under
    the softmax of the scores, its margin over the best other class.

    A label outside `classes` has target -1, log-probability and margin at the most negative finite value.
    """
    logits = scores["scores"].double()  # (n, classes)
    targets = samples.targets(classes)
    labelled = targets >= 0
    score, predicted = logits.max(1).values, logits.argmax(1)  # argmax gives the first of equal columns
    lowest = torch.finfo(torch.float64).min
    log_p, margin = torch.full_like(score, lowest), torch.full_like(score, lowest)
    rows, columns = torch.nonzero(labelled)[:, 0], targets[labelled]
    log_p[rows] = torch.log_softmax(logits, 1)[rows, columns]
    others = logits[rows].scatter(1, columns[:, None], float("-inf"))
    if logits.shape[1] > 1:
        margin[rows] = logits[rows, columns] - others.max(1).values
    else:
        margin[rows] = 0.0
    own = torch.tensor([classes.index(name) for name in known])
    return {
        "predicted": predicted,
        "within": own[logits[:, own].argmax(1)],
        "score": score,
        "target": targets,
        "log_p": log_p,
        "margin": margin,
    }


@builds("prediction")
def online_predictions(samples: Samples, scores: Tensors, *, classes: list[str]) -> Tensors:
    """As `predictions`, of labelled samples whose scores lie in the order of their opaque keys; and the highest class
    probability and the Brier score of each, with every true class outside `classes` at probability 0."""
    logits = torch.empty_like(scores["scores"])
    logits[order(samples)] = scores["scores"]
    found = predictions(samples, {"scores": logits}, classes=classes, known=classes)
    p = torch.softmax(logits.double(), 1)
    labelled = found["target"] >= 0
    true = torch.where(labelled, p.gather(1, found["target"].clamp(min=0)[:, None])[:, 0], 0.0)
    return {**found, "confidence": p.max(1).values, "brier": p.square().sum(1) - 2 * true + 1}
