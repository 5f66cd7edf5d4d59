"""The conformance suite finds what it is there to find: strategies that cheat, each in one way."""

from __future__ import annotations

import pytest
from pytest import Pytester

pytest_plugins = ["pytester"]


def outcomes(pytester: Pytester, base: str, body: str, only: str = "test") -> set[str]:
    """The names of the suite's tests, of those whose name holds `only`, that fail for `body`."""
    source = f"from cl.testing import {base}\nfrom tests import cheating\nclass TestIt({base}):\n    {body}\n"
    pytester.makepyfile(source)
    result = pytester.inline_run("-p", "no:cacheprovider", "-k", only)
    return {report.nodeid.rpartition("::")[2] for report in result.getfailures()}


@pytest.mark.parametrize(
    ("strategy", "found_by"),
    [
        ("Honest", None),
        ("Remembering", "test_nothing_is_read_that_is_not_declared"),
        ("Drifting", "test_no_global_generator_is_moved"),
        ("Peeking", "test_a_visitors_images_get_the_same_scores_and_leave_no_trace"),
        ("Spoiling", "test_a_learnt_entry_never_changes"),
    ],
)
def test_a_cheating_strategy_is_found(pytester: Pytester, strategy: str, found_by: str | None) -> None:
    failed = outcomes(pytester, "StrategyConformance", f"strategy = cheating.{strategy}", found_by or "test")
    assert found_by in failed if found_by else failed == set()


@pytest.mark.parametrize(
    ("factory", "found_by"),
    [("unsteady", "test_it_resolves_to_the_same_stream_twice"), ("blind", "test_another_process_makes_it_again")],
)
def test_a_faulty_stream_is_found(pytester: Pytester, factory: str, found_by: str) -> None:
    body = f"stream = staticmethod(cheating.{factory})"
    assert found_by in outcomes(pytester, "StreamConformance", body, found_by)
