"""Settings meant for a strategy or for the stream, and names that a family brings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cl import registry
from cl.data.recipes import arguments_of, resolve_stream
from cl.errors import BadInput, UnknownName
from cl.learning.strategy import strategy_of
from cl.running.compare import cells
from cl.running.options import Options
from cl.running.settings import shared_out
from cl.testing import tiny_stream
from strategies.simplecil import SimpleCIL
from tests.palimpsest import palimpsest

KNOWN = {"ease": {"epochs", "tasks"}, "joint": {"epochs"}, "stream": {"tasks", "people"}}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"epochs": 1}, {"ease": {"epochs": 1}, "joint": {"epochs": 1}, "stream": {}}),
        ({"people": 3}, {"ease": {}, "joint": {}, "stream": {"people": 3}}),
        ({"tasks": 3}, {"ease": {"tasks": 3}, "joint": {}, "stream": {"tasks": 3}}),
        ({"stream.tasks": 3}, {"ease": {}, "joint": {}, "stream": {"tasks": 3}}),
        ({"joint.epochs": 1, "epochs": 2}, {"ease": {"epochs": 2}, "joint": {"epochs": 1}, "stream": {}}),
    ],
)
def test_a_setting_goes_to_all_that_have_it_or_to_its_scope(settings: dict[str, Any], expected: Any) -> None:
    assert shared_out(settings, KNOWN) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("peple", "unknown hyperparameter 'peple'; did you mean people"),
        ("stream.peple", "unknown argument of the stream 'peple'; did you mean people"),
        ("joint.tasks", "unknown hyperparameter 'tasks'"),
        ("eas.tasks", "unknown strategy 'eas'; did you mean ease"),
    ],
)
def test_an_unknown_setting_is_told_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        shared_out({name: 1}, KNOWN)


def test_arguments_of_a_stream_are_typed_and_enter_its_recipe() -> None:
    assert arguments_of("domain-digits") == ["tasks", "people"]
    stream = resolve_stream("cl.testing:tiny_stream", arguments={"tasks": "2"})
    assert stream.recipe == tiny_stream(tasks=2).recipe
    with pytest.raises(BadInput, match=r"tasks = 'two': input should be a valid integer"):
        resolve_stream("domain-digits", arguments={"tasks": "two"})


def test_a_comparison_hands_the_streams_arguments_to_every_cell() -> None:
    settings = {"stream.people": "5", "joint.epochs": "1", "epochs": "3"}
    grid = cells("split-digits", ["ease", "joint"], 1, Options(settings=settings))
    assert [cell.options.arguments for cell in grid] == [{"people": "5"}] * 2
    assert [cell.options.settings for cell in grid] == [{"epochs": "3"}, {"epochs": "1"}]


def test_run_takes_arguments_of_the_stream(
    tiny_by_default: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ["run", "cl.testing:tiny_stream", "simplecil", "--set", "tasks=2", "--home", str(tmp_path), "--json"]
    code, out, err = palimpsest(capsys, monkeypatch, *words)
    assert code == 0, err
    assert len(json.loads(out)["accuracy"]) == 2


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family `foreign` of streams and one of strategies, as if some package had registered them."""
    installed = registry.entry_points
    streams = registry.Family({"Tiny": lambda tasks=3: tiny_stream(tasks)})
    strategies = registry.Family({"Means": SimpleCIL}, {"Broken": "needs an older torch; use foreign:Means"})
    points = {"palimpsest.stream_families": streams, "palimpsest.strategy_families": strategies}

    def found(group: str) -> Any:
        return [_point("foreign", lambda: points[group])] if group in points else installed(group=group)

    monkeypatch.setattr(registry, "entry_points", found)


def _point(name: str, load: Callable[[], Any]) -> Any:
    return SimpleNamespace(name=name, load=load)


def test_a_family_brings_its_members(family: None) -> None:
    assert "foreign:Means" in registry.strategies.names() and "foreign:Tiny" in registry.streams.names()
    assert strategy_of("foreign:Means") is SimpleCIL
    assert len(resolve_stream("foreign:Tiny", arguments={"tasks": 2}).tasks) == 2


def test_a_refused_member_says_why_and_an_unknown_one_names_the_nearest(family: None) -> None:
    with pytest.raises(BadInput, match="strategy 'foreign:Broken': needs an older torch; use foreign:Means"):
        strategy_of("foreign:Broken")
    with pytest.raises(UnknownName, match="did you mean foreign:Means"):
        strategy_of("foreign:Mean")


def test_other_names_with_a_colon_are_imported(family: None) -> None:
    assert strategy_of("strategies.simplecil:SimpleCIL") is SimpleCIL
    with pytest.raises(BadInput, match="cannot be imported"):
        strategy_of("forein:Means")
