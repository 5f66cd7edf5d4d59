"""Metrics against hand-computed examples, and the properties that hold for every matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cl import metrics

# Hand-made: three tasks of a class-incremental run; future tasks are not measured.
MEASURED: list[list[float | None]] = [
    [0.9, None, None],
    [0.7, 0.8, None],
    [0.6, 0.85, 0.5],
]
# Three tasks of a task-incremental run, where future tasks are measured too.
FULL: list[list[float | None]] = [
    [0.9, 0.3, 0.2],
    [0.7, 0.8, 0.4],
    [0.6, 0.85, 0.5],
]

fractions = st.floats(0, 1)


@st.composite
def matrices(draw: st.DrawFn, min_tasks: int = 2, full: bool = False) -> list[list[float | None]]:
    tasks = draw(st.integers(min_tasks, 7))
    return [[draw(fractions) if full or i <= t else None for i in range(tasks)] for t in range(tasks)]


def close(expected: float) -> object:
    return pytest.approx(expected, abs=1e-9)


def test_average_accuracy_is_the_mean_of_the_last_row() -> None:
    assert metrics.average_accuracy(MEASURED) == close((0.6 + 0.85 + 0.5) / 3)


def test_average_accuracy_needs_only_the_last_row() -> None:
    assert metrics.average_accuracy([[None, None], [0.5, 0.7]]) == close(0.6)


def test_average_accuracy_without_a_last_row_is_none() -> None:
    assert metrics.average_accuracy([[0.5, None], [None, None]]) is None


def test_average_incremental_accuracy_is_the_mean_of_the_curve() -> None:
    assert metrics.average_incremental_accuracy([0.9, 0.75, 0.6]) == close(0.75)


@pytest.mark.parametrize("curve", [[], [None], [0.9, None, 0.6]])
def test_average_incremental_accuracy_of_a_broken_curve_is_none(curve: list[float | None]) -> None:
    assert metrics.average_incremental_accuracy(curve) is None


def test_forgetting_by_hand() -> None:
    # Task 0 was best at 0.9 and ended at 0.6; task 1 was only measured at 0.8 before the last and gained 0.05.
    assert metrics.forgetting_per_task(MEASURED) == [close(0.3), close(-0.05)]
    assert metrics.forgetting(MEASURED) == close(0.125)


def test_forgetting_counts_from_the_best_row_not_from_the_first() -> None:
    accuracy = [[0.5, None, None], [0.8, 0.9, None], [0.6, 0.9, 0.9]]
    assert metrics.forgetting_per_task(accuracy) == [close(0.2), close(0.0)]


def test_forgetting_ignores_what_was_measured_before_the_task_was_learned() -> None:
    accuracy = [[0.9, 1.0, 0.1], [0.9, 0.8, 0.1], [0.9, 0.7, 0.5]]
    assert metrics.forgetting_per_task(accuracy) == [close(0.0), close(0.1)]


def test_forgetting_of_a_single_task_is_none() -> None:
    assert metrics.forgetting([[0.9]]) is None
    assert metrics.forgetting_per_task([[0.9]]) == []


def test_forgetting_with_a_missing_row_is_none() -> None:
    accuracy = [[None, None, None], [0.7, 0.8, None], [0.6, 0.8, 0.5]]
    assert metrics.forgetting(accuracy) is None
    assert metrics.forgetting_per_task(accuracy) == [None, close(0.0)]


def test_backward_transfer_by_hand() -> None:
    assert metrics.backward_transfer(MEASURED) == close(((0.6 - 0.9) + (0.85 - 0.8)) / 2)


def test_backward_transfer_needs_the_diagonal() -> None:
    assert metrics.backward_transfer([[None, None], [0.5, 0.7]]) is None
    assert metrics.backward_transfer([[0.9]]) is None


def test_forward_transfer_by_hand() -> None:
    assert metrics.forward_transfer(FULL, [0.1, 0.1, 0.1]) == close(((0.3 - 0.1) + (0.4 - 0.1)) / 2)


def test_forward_transfer_is_none_where_future_tasks_were_not_measured() -> None:
    assert metrics.forward_transfer(MEASURED, [0.1, 0.1, 0.1]) is None
    assert metrics.forward_transfer([[0.9]], [0.1]) is None


def test_forward_transfer_does_not_need_a_baseline_of_the_first_task() -> None:
    assert metrics.forward_transfer(FULL, [None, 0.1, 0.1]) == close(0.25)


def test_intransigence_by_hand() -> None:
    joint = [[0.9, None, None], [0.9, 0.9, None], [0.9, 0.9, 0.8]]
    assert metrics.intransigence(MEASURED, joint) == close(((0.9 - 0.9) + (0.9 - 0.8) + (0.8 - 0.5)) / 3)


def test_intransigence_is_none_when_joint_was_measured_only_at_the_end() -> None:
    joint = [[None, None, None], [None, None, None], [0.9, 0.9, 0.8]]
    assert metrics.intransigence(MEASURED, joint) is None


@pytest.mark.parametrize("accuracy", [[], [[]], [[0.5, None]], [[0.5, None], [0.5]]])
def test_a_matrix_that_is_not_square_is_refused(accuracy: list[list[float | None]]) -> None:
    with pytest.raises(ValueError):
        metrics.average_accuracy(accuracy)


def test_figures_of_another_number_of_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="3 tasks need 3 figures"):
        metrics.forward_transfer(FULL, [0.1, 0.1])
    with pytest.raises(ValueError, match="3 tasks need 3 figures"):
        metrics.intransigence(FULL, [[0.9]])


@given(matrices(min_tasks=1))
def test_average_accuracy_is_a_fraction(accuracy: list[list[float | None]]) -> None:
    average = metrics.average_accuracy(accuracy)
    assert average is not None and 0 <= average <= 1


@given(matrices())
def test_forgetting_and_backward_transfer_are_bounded(accuracy: list[list[float | None]]) -> None:
    forgotten, transferred = metrics.forgetting(accuracy), metrics.backward_transfer(accuracy)
    assert forgotten is not None and transferred is not None
    assert -1 <= transferred <= 1
    # The best accuracy before the end is at least the one right after learning.
    assert -transferred - 1e-12 <= forgotten <= 1


@given(st.lists(fractions, min_size=2, max_size=7))
def test_perfect_memory_forgets_and_transfers_nothing(learned: list[float]) -> None:
    accuracy = [[value if i <= t else None for i, value in enumerate(learned)] for t in range(len(learned))]
    assert metrics.forgetting(accuracy) == 0
    assert metrics.backward_transfer(accuracy) == 0
    assert metrics.intransigence(accuracy, accuracy) == 0


@given(st.integers(2, 7))
def test_total_forgetting_is_one(tasks: int) -> None:
    accuracy = [[float(i == t) if i <= t else None for i in range(tasks)] for t in range(tasks)]
    assert metrics.forgetting(accuracy) == 1
    assert metrics.backward_transfer(accuracy) == -1


@given(matrices(), st.floats(-0.5, 0.5))
def test_differences_do_not_feel_a_common_shift(accuracy: list[list[float | None]], shift: float) -> None:
    shifted = [[None if value is None else value + shift for value in row] for row in accuracy]
    for figure in (metrics.forgetting, metrics.backward_transfer):
        expected = figure(accuracy)
        assert expected is not None and figure(shifted) == close(expected)


@given(st.data(), matrices(full=True))
def test_average_accuracy_does_not_feel_the_order_of_tasks(data: st.DataObject, accuracy: list[list[float]]) -> None:
    order = data.draw(st.permutations(range(len(accuracy))))
    relabelled = [[row[i] for i in order] for row in accuracy]
    expected = metrics.average_accuracy(accuracy)
    assert expected is not None and metrics.average_accuracy(relabelled) == close(expected)


@given(st.data(), matrices())
def test_forgetting_feels_only_the_best_of_the_rows_before_the_last(
    data: st.DataObject, accuracy: list[list[float | None]]
) -> None:
    """Task 0 is measured in every row: the rows before the last may come in any order for it."""
    rows = data.draw(st.permutations(accuracy[:-1]))
    swapped = [[other[0], *row[1:]] for other, row in zip(rows, accuracy[:-1], strict=True)] + accuracy[-1:]
    assert metrics.forgetting_per_task(swapped) == metrics.forgetting_per_task(accuracy)


@given(st.permutations([0.1, 0.4, 0.5, 0.9]))
def test_average_incremental_accuracy_does_not_feel_the_order(curve: list[float]) -> None:
    assert metrics.average_incremental_accuracy(curve) == close(0.475)


@given(st.integers(3, 30), st.integers(1, 10**9))
def test_equal_steps_grow_linearly(tasks: int, step: int) -> None:
    assert metrics.growth_exponent([step] * tasks) == (close(1), close(1), close(1))


@given(st.integers(3, 30), st.integers(1, 10**9))
def test_a_model_that_adds_nothing_after_the_first_task_does_not_grow(tasks: int, first: int) -> None:
    assert metrics.growth_exponent([first] + [0] * (tasks - 1)) == (close(0), close(0), close(0))


def test_totals_on_a_square_law_have_exponent_two() -> None:
    assert metrics.growth_exponent([1, 3, 5, 7, 9]) == (close(2), close(2), close(2))


def test_growth_exponent_by_hand() -> None:
    # Totals 1, 2, 2. With x = log(1, 2, 3) and y = log(1, 2, 2) centred, one degree of freedom is left, where the
    # 97.5 % point of Student's t is tan(0.475 * pi).
    growth = metrics.growth_exponent([1, 1, 0])
    assert growth is not None
    x = [value - math.log(6) / 3 for value in (0, math.log(2), math.log(3))]
    y = [value - math.log(4) / 3 for value in (0, math.log(2), math.log(2))]
    spread = sum(value**2 for value in x)
    slope = sum(a * b for a, b in zip(x, y, strict=True)) / spread
    squares = sum((b - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    half = math.tan(0.475 * math.pi) * math.sqrt(squares / spread)
    assert growth == (close(slope), close(slope - half), close(slope + half))


@given(st.lists(st.integers(1, 10**6), min_size=3, max_size=12), st.integers(2, 1000))
def test_growth_exponent_does_not_feel_the_unit(added: list[int], factor: int) -> None:
    growth = metrics.growth_exponent(added)
    scaled = metrics.growth_exponent([factor * value for value in added])
    assert growth is not None and scaled is not None
    assert growth.low <= growth.slope <= growth.high
    assert scaled == tuple(map(close, growth))


@pytest.mark.parametrize("added", [[], [5, 5], [0, 5, 5], [0, 0, 0, 0]])
def test_growth_exponent_without_three_positive_totals_is_none(added: list[int]) -> None:
    assert metrics.growth_exponent(added) is None


def test_accuracy_per_million_parameters() -> None:
    assert metrics.accuracy_per_million_parameters(0.8, 2_000_000) == close(0.4)
    assert metrics.accuracy_per_million_parameters(0.8, 0) is None
    assert metrics.accuracy_per_million_parameters(None, 2_000_000) is None


def test_the_expansion_exponent_by_hand() -> None:  # SEMA's specification, section 11
    linear = metrics.expansion_exponent([12, 3, 3, 3, 3])
    assert linear is not None and linear.slope == pytest.approx(1)
    early = metrics.expansion_exponent([12, 5, 5, 0, 0])  # E = 5, 10, 10, 10: five times the specification's 1, 2, 2, 2
    assert early is not None and early.slope == pytest.approx(0.508, abs=5e-4)
    late = metrics.expansion_exponent([12, 0, 3, 3, 3])  # the tasks before the first addition do not count
    assert late is not None and late.slope == pytest.approx(np.polyfit(np.log([2, 3, 4]), np.log([3, 6, 9]), 1)[0])
    assert metrics.expansion_exponent([12, 1, 1, 1, 1]) is None  # four additions
    assert metrics.expansion_exponent([12, 9, 9]) is None


def test_half_ratio_fill_and_rates() -> None:
    assert metrics.half_ratio([12, 3, 3, 3, 3]) == 1 and metrics.half_ratio([12, 3, 3, 0, 0]) == 0
    assert metrics.half_ratio([12, 0, 0, 3]) is None and metrics.half_ratio([12]) is None
    assert metrics.fill([12, 3, 0, 1], blocks=3) == pytest.approx(4 / 9)
    assert metrics.fill([12], blocks=3) is None
    assert metrics.expansion_rate([12, 3, 0, 0]) == pytest.approx(1 / 3)
    assert metrics.reuse_rate([12, 3, 0, 0], [12, 15, 15, 15]) == pytest.approx(2 / 3)
    assert metrics.reuse_rate([0, 0], [0, 0]) == 0 and metrics.expansion_rate([12]) is None


def test_expansion_against_the_recorded_domains() -> None:
    found = metrics.expansion_truth([12, 1, 1, 0, 0], ["a", "b", "a", "c", "b"])
    assert found == ([True, True, False, True, False], 0.5, 0.5)
    assert metrics.expansion_truth([12, 0], ["a", "a"]) == ([True, False], None, None)
    assert metrics.expansion_truth([12, 0], ["a", None]) is None
