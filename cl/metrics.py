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
from scipy.special import stdtrit

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
    x = _centred(np.log(np.arange(1, count + 1)))
    y = _centred(np.log(totals))
    slope = float(x @ y / (x @ x))
    residual = y - slope * x
    error = np.sqrt(residual @ residual / (count - 2) / (x @ x))
    half = float(stdtrit(count - 2, 0.975) * error)
    return GrowthExponent(slope, slope - half, slope + half)


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


def _centred(values: Floats) -> Floats:
    return values - values.mean()
