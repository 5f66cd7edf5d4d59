"""Figures of merit of a run at test time, as pure functions of judged predictions and of errors in order of arrival.

Judged predictions are tensors with one row an image: `predicted` and `target` (class numbers; -1: a class that the
model does not know), `confidence` (the highest probability), `log_p` (log-probability of the true class), `brier`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor

BINS = 15
WINDOW = 10_000  # images of the running error that tells a collapse

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


def stability(
    errors: Sequence[float], reference: Sequence[float], images: Sequence[int], window: int = WINDOW
) -> dict[str, float | None]:
    """How a method stood beside its reference on the same batches, both as errors in order of arrival.

    above: share of batches with the larger error. longest: most such batches in a row. collapse: the batch, counted
    from 1, from which on the error over the last `window` images (or all so far) stays above the reference's; None if
    it does not end above.
    Source: ours; Press et al., RDumb, NeurIPS 2023, for methods that fall behind the model they started from.
    """
    worse = [mine > theirs for mine, theirs in zip(errors, reference, strict=True)]
    stretches = [len(list(group)) for above, group in groupby(worse) if above]
    behind = [m > r for m, r in zip(_running(errors, images, window), _running(reference, images, window), strict=True)]
    ahead = [number for number, one in enumerate(behind, 1) if not one]
    return {
        "above": sum(worse) / len(worse) if worse else None,
        "longest": float(max(stretches, default=0)),
        "collapse": float(max(ahead, default=0) + 1) if behind and behind[-1] else None,
    }


def _running(errors: Sequence[float], images: Sequence[int], window: int) -> list[float]:
    """After each batch, the error over the last batches that hold at least `window` images together (or over all)."""
    wrong = [round(rate * count) for rate, count in zip(errors, images, strict=True)]
    found, first = [], 0
    held = missed = 0
    for count, misses in zip(images, wrong, strict=True):
        held, missed = held + count, missed + misses
        while held - images[first] >= window:
            held, missed, first = held - images[first], missed - wrong[first], first + 1
        found.append(missed / held)
    return found


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
