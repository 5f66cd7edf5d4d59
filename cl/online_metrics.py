"""Figures of merit of a run at test time, as pure functions of judged predictions and of errors in order of arrival.

Judged predictions are tensors with one row an image: `predicted` and `target` (class numbers; -1: a class that the
model does not know), `confidence` (the highest probability), `log_p` (log-probability of the true class), `brier`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

BINS = 15

Judged = Mapping[str, Tensor]


def error(judged: Judged) -> float | None:
    """Online error: wrong over scored, with the scores as they were returned before the model learnt from the batch."""
    wrong = judged["predicted"] != judged["target"] if judged else torch.zeros(0)
    return wrong.double().mean().item() if len(wrong) else None


def mean(values: Iterable[float | None]) -> float | None:
    """Unweighted mean of what was measured: the mean error counts each segment alike, whatever its size."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def by_domain(errors: Sequence[float | None], domains: Sequence[str]) -> dict[str, float | None]:
    """Mean error of each domain over its segments."""
    return {name: mean(errors_of) for name, errors_of in _visits(errors, domains).items()}


def recurrence(errors: Sequence[float | None], domains: Sequence[str]) -> list[float]:
    """For k = 2, 3, ...: error at the k-th visit to a domain minus that at the first, mean over the domains that came
    so often. Below 0: what was learnt at the first visit still helps. Empty where no domain comes back.

    Source: ours; the recurring streams of Wang et al., Continual Test-Time Domain Adaptation, CVPR 2022.
    """
    visits = [found for found in _visits(errors, domains).values() if found]
    gains = []
    for visit in range(1, max(map(len, visits), default=0)):
        gains.append(sum(v[visit] - v[0] for v in visits if len(v) > visit) / sum(len(v) > visit for v in visits))
    return gains


def calibration(judged: Judged) -> dict[str, float | None]:
    """Error, Brier score, negative log-likelihood and expected calibration error of these predictions."""
    return {
        "error": error(judged),
        "brier": brier_score(judged),
        "nll": negative_log_likelihood(judged),
        "ece": expected_calibration_error(judged),
    }


def brier_score(judged: Judged) -> float | None:
    """Mean squared distance of the class probabilities to the one-hot truth, between 0 and 2.

    Source: Brier, Verification of forecasts expressed in terms of probability, 1950.
    """
    return judged["brier"].mean().item() if judged and len(judged["brier"]) else None


def negative_log_likelihood(judged: Judged) -> float | None:
    """Mean of -log p(true class), in nats, over the images whose class the model knows."""
    known = judged["log_p"][judged["target"] >= 0] if judged else torch.zeros(0)
    return -known.mean().item() if len(known) else None


def expected_calibration_error(judged: Judged) -> float | None:
    """Mean over images of |accuracy - confidence| of their bin, of 15 bins of equal width.

    Source: Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, 2017.
    """
    if not judged or not len(judged["confidence"]):
        return None
    confidence = judged["confidence"]
    right = (judged["predicted"] == judged["target"]).double()
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, right - confidence)
    return (gaps.abs().sum() / len(confidence)).item()


def _visits(errors: Sequence[float | None], domains: Sequence[str]) -> dict[str, list[float]]:
    """The errors of each domain, visit by visit."""
    found: dict[str, list[float]] = {}
    for value, domain in zip(errors, domains, strict=True):
        if value is not None:
            found.setdefault(domain, []).append(value)
    return found
