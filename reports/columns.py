"""The columns of the comparison page: what each metric is called and means, and how it is read off a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.quantities import QuantityKind

RunFigures = Mapping[str, Any]
Entry = Mapping[str, Any]  # A strategy on the page: its row of `aggregate`, its runs, its colour.


@dataclass(frozen=True)
class Metric:
    """A figure of a run, as a column of the page. `read` gives None where the run does not have it."""

    name: str
    title: str
    kind: QuantityKind
    better: str  # "higher", "lower" or "" where neither is.
    definition: str
    read: Callable[[RunFigures], float | None]


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _named(name: str) -> Callable[[RunFigures], float | None]:
    return lambda run: _finite(run.get(name))


def _total(values: Iterable[Any]) -> float | None:
    known = [value for value in map(_finite, values) if value is not None]
    return sum(known) if known else None


def _last(values: Sequence[Any] | None) -> float | None:
    return _finite(values[-1]) if values else None


def _per_image(item: str) -> Callable[[RunFigures], float | None]:
    def read(run: RunFigures) -> float | None:
        inference = run.get("inference") or {}
        return inference[item] / inference["images"] if inference.get("images") else None

    return read


def _cost(run: RunFigures, item: str) -> float | None:
    return _total(phase.get(item) for phase in (run.get("cost") or {}).values())


def _grown(*path: str) -> Callable[[RunFigures], float | None]:
    def read(run: RunFigures) -> float | None:
        found: Any = run.get("growth")
        for name in path:
            found = (found or {}).get(name)
        return _finite(found)

    return read


LEARNING = (
    Metric(
        "average_incremental_accuracy",
        "Average incremental",
        "percent",
        "higher",
        "mean over tasks of the accuracy, after each, on all classes seen by then (Rebuffi et al. 2017, iCaRL)",
        _named("average_incremental_accuracy"),
    ),
    Metric(
        "average_accuracy",
        "Final",
        "percent",
        "higher",
        "accuracy after the last task, mean over tasks (Lopez-Paz & Ranzato 2017, GEM: ACC)",
        _named("average_accuracy"),
    ),
    Metric(
        "forgetting",
        "Forgetting",
        "percent",
        "lower",
        "mean over earlier tasks of the best accuracy that a task once had less its accuracy after the last task "
        "(Chaudhry et al. 2018, Riemannian Walk)",
        _named("forgetting"),
    ),
    Metric(
        "backward_transfer",
        "Backward transfer",
        "points",
        "higher",
        "mean over earlier tasks of a task’s accuracy after the last task less its accuracy when just learned "
        "(Lopez-Paz & Ranzato 2017)",
        _named("backward_transfer"),
    ),
    Metric(
        "forward_transfer",
        "Forward transfer",
        "points",
        "higher",
        "mean over later tasks of a task’s accuracy just before it is learned less that of an untrained model "
        "(Lopez-Paz & Ranzato 2017)",
        _named("forward_transfer"),
    ),
    Metric(
        "intransigence",
        "Intransigence",
        "percent",
        "lower",
        "mean over tasks of what joint training on all tasks so far reaches on a task less the accuracy when just "
        "learned (Chaudhry et al. 2018)",
        _named("intransigence"),
    ),
)
COST = (
    Metric(
        "adapters",
        "Adapters",
        "number",
        "",
        "adapters in the model after the last task",
        lambda run: _last(run.get("adapters")),
    ),
    Metric(
        "parameters_added",
        "Parameters added",
        "count",
        "lower",
        "added to the backbone over all tasks",
        lambda run: _total(run.get("parameters_added") or ()),
    ),
    Metric(
        "seconds",
        "Time",
        "seconds",
        "lower",
        "what the run’s components took when they were built, whether or not this run built them",
        lambda run: _cost(run, "seconds"),
    ),
    Metric(
        "forward_passes",
        "Forward passes",
        "count",
        "lower",
        "images put through the backbone to build the run’s components, whether or not this run built them",
        lambda run: _cost(run, "passes"),
    ),
    Metric(
        "passes_per_image",
        "Passes per test image",
        "number",
        "lower",
        "images put through the backbone to score the test images with the last model, over their number; one image "
        "counts once for each adapter that its shard needs",
        _per_image("passes"),
    ),
    Metric(
        "seconds_per_image",
        "Time per test image",
        "seconds",
        "lower",
        "what scoring the test images with the last model took when its components were built, over their number",
        _per_image("seconds"),
    ),
    Metric(
        "peak_memory_bytes",
        "Peak memory",
        "bytes",
        "lower",
        "the most memory in use during the run",
        _named("peak_memory_bytes"),
    ),
)
GROWTH = (
    Metric(
        "expansion_rate",
        "Expansion rate",
        "percent",
        "",
        "share of the tasks after the first that added an adapter",
        _grown("expansion_rate"),
    ),
    Metric(
        "reuse_rate",
        "Reuse rate",
        "percent",
        "",
        "share of the tasks after the first that added no adapter to those they could use",
        _grown("reuse_rate"),
    ),
    Metric(
        "growth_exponent",
        "Growth exponent",
        "ratio",
        "lower",
        "slope of the logarithm of all parameters added on that of the number of tasks; 1 is linear growth",
        _grown("growth_exponent", "slope"),
    ),
    Metric(
        "expansion_exponent",
        "Expansion exponent",
        "ratio",
        "lower",
        "the same for adapters added after the first task, against later tasks; none below five additions",
        _grown("expansion_exponent", "slope"),
    ),
    Metric(
        "expansion_precision",
        "Precision of expansion",
        "percent",
        "higher",
        "of the tasks that added an adapter, the share whose recorded domain was new",
        _grown("truth", "precision"),
    ),
    Metric(
        "expansion_recall",
        "Recall of expansion",
        "percent",
        "higher",
        "of the tasks whose recorded domain was new, the share that added an adapter",
        _grown("truth", "recall"),
    ),
    Metric(
        "accuracy_per_million",
        "Accuracy per million",
        "ratio",
        "higher",
        "final accuracy (1 is all right) over millions of parameters added",
        _grown("accuracy_per_million_parameters"),
    ),
)


def _online(*path: str) -> Callable[[RunFigures], float | None]:
    def read(run: RunFigures) -> float | None:
        found: Any = run.get("online")
        for name in path:
            found = (found or {}).get(name)
        return _finite(found)

    return read


def _passes(run: RunFigures) -> float | None:
    """Forward passes an image at test time, a backward pass counting as two."""
    told = ((run.get("online") or {}).get("test_time") or {}).get("batches") or {}
    pairs = [(p, n) for p, n in zip(told.get("passes", ()), told.get("images", ()), strict=False) if p is not None]
    return sum(p * n for p, n in pairs) / sum(n for _, n in pairs) if pairs else None


ONLINE = (
    Metric(
        "mean_error",
        "Mean online error",
        "percent",
        "lower",
        "error on each segment, scored before it is learnt from; mean over segments",
        _online("mean_error"),
    ),
    Metric(
        "source_error_before",
        "Source error before",
        "percent",
        "lower",
        "error on the clean test set before the first segment",
        _online("source_error_before"),
    ),
    Metric(
        "source_error_after",
        "Source error after",
        "percent",
        "lower",
        "error on the clean test set with the model as it is after the last segment",
        _online("source_error_after"),
    ),
    Metric(
        "brier_score",
        "Brier score",
        "ratio",
        "lower",
        "squared distance of the class probabilities to the truth (Brier 1950)",
        _online("test_time", "calibration", "brier"),
    ),
    Metric(
        "negative_log_likelihood",
        "Log-likelihood, negative",
        "ratio",
        "lower",
        "mean of -log of the true class’s probability, in nats",
        _online("test_time", "calibration", "nll"),
    ),
    Metric(
        "expected_calibration_error",
        "Calibration error",
        "percent",
        "lower",
        "gap between accuracy and confidence over 15 bins (Guo et al. 2017)",
        _online("test_time", "calibration", "ece"),
    ),
    Metric("updates", "Updates", "number", "", "batches from which something was learnt", _online("updates")),
    Metric(
        "online_passes",
        "Passes per image",
        "number",
        "lower",
        "forward passes per image at test time, a backward pass counting as two",
        _passes,
    ),
    Metric(
        "online_seconds",
        "Time per image",
        "seconds",
        "lower",
        "what scoring and learning took per image when it was built",
        _online("test_time", "per_image", "seconds"),
    ),
)
METRICS = {metric.name: metric for metric in (*LEARNING, *ONLINE, *GROWTH, *COST)}
