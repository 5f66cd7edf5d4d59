"""Figures of merit, as pure functions of what a run recorded.

An accuracy matrix `a` has one row and one column a task: `a[t][i]` is the accuracy on the test set of task i after
learning task t, a fraction in [0, 1], counted from 0, and `None` where it was not measured. A figure that needs an
unmeasured entry is `None`, never a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

AccuracyMatrix = Sequence[Sequence[float | None]]
Floats = NDArray[np.float64]


class GrowthExponent(NamedTuple):
    """A slope with the bounds of its 95 % interval."""

    slope: float
    low: float
    high: float


def average_accuracy(accuracy: AccuracyMatrix) -> float | None:
    """Mean over i of a[T-1][i], where measured: how good the last model is on all tasks, each task counting alike.

    Source: Lopez-Paz and Ranzato, Gradient Episodic Memory for Continual Learning, 2017 (there ACC).
    """
    last = _table(accuracy)[-1]
    return _mean(last[~np.isnan(last)])


def average_incremental_accuracy(curve: Sequence[float | None]) -> float | None:
    """Mean over t of curve[t], the accuracy over all classes seen so far after learning task t.

    Source: Rebuffi, Kolesnikov, Sperl and Lampert, iCaRL: Incremental Classifier and Representation Learning, 2017.
    """
    return _mean(curve)


def forgetting_per_task(accuracy: AccuracyMatrix) -> list[float | None]:
    """For each task i but the last: max over i <= t < T-1 of a[t][i], minus a[T-1][i]. Negative where i still gained.

    Source: Chaudhry, Dokania, Ajanthan and Torr, Riemannian Walk for Incremental Learning, 2018.
    """
    table = _table(accuracy)
    return [_figure(table[i:-1, i].max() - table[-1, i]) for i in range(len(table) - 1)]


def forgetting(accuracy: AccuracyMatrix) -> float | None:
    """Mean of `forgetting_per_task`; None for a single task.

    Source: Chaudhry et al., 2018.
    """
    return _mean(forgetting_per_task(accuracy))


def backward_transfer(accuracy: AccuracyMatrix) -> float | None:
    """Mean over i < T-1 of a[T-1][i] - a[i][i]: what later tasks gave to earlier ones; None for a single task.

    Source: Lopez-Paz and Ranzato, 2017 (there BWT).
    """
    table = _table(accuracy)
    return _mean(table[-1, :-1] - table.diagonal()[:-1])


def forward_transfer(accuracy: AccuracyMatrix, baseline: Sequence[float | None]) -> float | None:
    """Mean over i > 0 of a[i-1][i] - baseline[i]: what earlier tasks gave to one that was not yet learned.

    `baseline[i]` is the accuracy on task i of a model that learned nothing. None where future tasks were not measured,
    as in class-incremental streams, and for a single task.

    Source: Lopez-Paz and Ranzato, 2017 (there FWT).
    """
    table = _table(accuracy)
    return _mean(table.diagonal(1) - _per_task(baseline, len(table))[1:])


def intransigence(accuracy: AccuracyMatrix, joint_accuracy: AccuracyMatrix) -> float | None:
    """Mean over t of joint[t][t] - a[t][t]: how much worse each task was learned than by training on all tasks so far.

    None unless the joint model was trained and measured after each task.

    Source: Chaudhry et al., 2018.
    """
    table, joint = _table(accuracy), _table(joint_accuracy)
    return _mean(_per_task(joint.diagonal(), len(table)) - table.diagonal())


def growth_exponent(parameters_added: Sequence[int]) -> GrowthExponent | None:
    """Slope of log(total after task t) on log(t), t = 1..T, by least squares, with its 95 % interval from Student's t.

    `parameters_added[t-1]` counts the parameters that task t added; the total is their running sum. 0 means that the
    model does not grow, 1 linear growth; when task t adds t times what the first added, the slope nears 2 from below.
    None for fewer than three tasks and while the total is zero, where its logarithm does not exist. The interval is
    that of a plain regression: totals build on each other, so it tells how straight the line is, not how the next
    tasks will behave.

    Source: ours; the usual reading of a power law from a log-log plot.
    """
    totals = np.cumsum(np.asarray(parameters_added, dtype=float))
    count = len(totals)
    if count < 3 or totals.min() <= 0:
        return None
    return _slope(np.log(np.arange(1, count + 1)), np.log(totals))


def expansion_exponent(adapters_added: Sequence[int]) -> GrowthExponent | None:
    """Slope of log E(t) on log(t-1) over the tasks t = 2..T with E(t) > 0, with its 95 % interval as in
    `growth_exponent`; E(t) counts the adapters added after the first task. 1: as many with every task.

    `adapters_added[t-1]` counts the adapters that task t added, block by block. None for fewer than three tasks with
    E(t) > 0, and for fewer than five additions, too few to tell.

    Source: ours; what a method decides to add, without the parameters that every task adds to its head.
    """
    totals = np.cumsum(np.asarray(adapters_added[1:], dtype=float))
    tasks = np.flatnonzero(totals > 0) + 1
    if len(tasks) < 3 or totals[-1] < 5:
        return None
    return _slope(np.log(tasks), np.log(totals[tasks - 1]))


def half_ratio(adapters_added: Sequence[int]) -> float | None:
    """What the second half of the later tasks added, over what the first half did: E(T) / E(h) - 1, h their middle.

    1: as many (for an even number of later tasks). None where the first half added nothing.

    Source: ours.
    """
    totals = np.cumsum(np.asarray(adapters_added[1:], dtype=float))
    first = float(totals[len(totals) // 2 - 1]) if len(totals) > 1 else 0.0
    return float(totals[-1] / first - 1) if first > 0 else None


def expansion_rate(adapters_added: Sequence[int]) -> float | None:
    """Share of the tasks after the first that added an adapter; None for a single task. Source: ours."""
    return _mean([float(added > 0) for added in adapters_added[1:]])


def reuse_rate(adapters_added: Sequence[int], adapters: Sequence[int]) -> float | None:
    """Share of the tasks after the first that added no adapter and had some to reuse; None for a single task.

    `adapters[t-1]` counts the adapters in the model after task t. A method without adapters reuses none.

    Source: ours.
    """
    later = zip(adapters_added[1:], adapters[1:], strict=True)
    return _mean([float(added <= 0 and held > 0) for added, held in later])


def fill(adapters_added: Sequence[int], blocks: int) -> float | None:
    """Adapters added after the first task, over one for each of `blocks` blocks and later task; None for a single task.

    Source: ours; 1 is one set a task.
    """
    places = blocks * (len(adapters_added) - 1)
    return sum(adapters_added[1:]) / places if places > 0 else None


class ExpansionTruth(NamedTuple):
    """Expansion against a stream that records the domain of each task."""

    new: list[bool]
    precision: float | None
    recall: float | None


def expansion_truth(adapters_added: Sequence[int], domains: Sequence[str | None]) -> ExpansionTruth | None:
    """Did the method expand when the domain was new, and not when it was not? Tasks after the first count.

    precision: of the tasks that expanded, the share in a domain that no earlier task had. recall: of the tasks in a new
    domain, the share that expanded. Either is None where there is no such task; all is None where a domain is unknown.

    Source: ours; the usual precision and recall.
    """
    if any(domain is None for domain in domains):
        return None
    new = [domain not in domains[:task] for task, domain in enumerate(domains)]
    grew = [added > 0 for added in adapters_added]
    hits = sum(a and b for a, b in zip(new[1:], grew[1:], strict=True))
    expanded, due = sum(grew[1:]), sum(new[1:])
    return ExpansionTruth(new, hits / expanded if expanded else None, hits / due if due else None)


def accuracy_per_million_parameters(accuracy: float | None, parameters: int) -> float | None:
    """accuracy / (parameters / 10^6); None without an accuracy or without parameters.

    Source: ours; `parameters` are those that the method added to the frozen backbone.
    """
    return None if accuracy is None or parameters <= 0 else accuracy / (parameters / 1e6)


def _table(accuracy: AccuracyMatrix) -> Floats:
    """The matrix as an array, NaN where not measured."""
    table = np.array(accuracy, dtype=float)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or not table.size:
        raise ValueError(f"an accuracy matrix has one row and one column a task, not the shape {table.shape}")
    return table


def _per_task(values: Sequence[float | None] | Floats, tasks: int) -> Floats:
    """One number a task, NaN where not measured."""
    array = np.array(values, dtype=float)
    if array.shape != (tasks,):  # numpy would stretch a single number over all tasks
        raise ValueError(f"{tasks} tasks need {tasks} figures, not {array.size}")
    return array


def _mean(values: Sequence[float | None] | Floats) -> float | None:
    array = np.array(values, dtype=float)
    return _figure(array.mean()) if array.size else None


def _figure(value: np.floating) -> float | None:
    return None if np.isnan(value) else float(value)


def _slope(x: Floats, y: Floats) -> GrowthExponent:
    """Least squares over three points or more."""
    from scipy.special import stdtrit  # loading it takes longer than all else that a prediction loads of this project

    x, y = _centred(x), _centred(y)
    slope = float(x @ y / (x @ x))
    residual = y - slope * x
    error = np.sqrt(residual @ residual / (len(x) - 2) / (x @ x))
    half = float(stdtrit(len(x) - 2, 0.975) * error)
    return GrowthExponent(slope, slope - half, slope + half)


def _centred(values: Floats) -> Floats:
    return values - values.mean()
