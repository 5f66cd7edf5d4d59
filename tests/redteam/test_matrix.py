"""The exactness matrix: every strategy against every kind of request. The oracle is made from outside the product: a
folder in which the files never lay, a table without their lines, a list of classes without theirs, an empty home.

    make matrix
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cl import registry
from cl.deletion.forget_set import Kind
from cl.home.runs import Runs
from cl.home.store import Store
from tests.photos import Photo, album, describe, forgotten, learnt, photographed, take

STRATEGIES = [name for name in registry.strategies.names() if ":" not in name]
Request = tuple[tuple[Kind, str], ...]
SIX = ("cat", "owl", "ibex", "newt", "lynx", "crow")


@dataclass(frozen=True)
class Case:
    """photos: what there is. requests: one deletion after the other. rest: what an oracle never had is all but this.
    tasks: what its file says of tasks, if not two classes each. grown: whether the last task came later."""

    photos: Sequence[Photo]
    requests: Sequence[Request]
    rest: Sequence[Photo]
    tasks: str = ""
    grown: bool = False
    beside: str = ""


def _without(photos: Sequence[Photo], gone: Callable[[Photo], bool]) -> list[Photo]:
    return [one for one in photos if not gone(one)]


def _samples(gone: set[str], photos: Sequence[Photo]) -> Case:
    named: Request = tuple(("sample", name) for name in sorted(gone))
    return Case(photos, [named], _without(photos, lambda one: one.sample in gone))


def _task(number: int) -> Case:
    photos, sizes = album(SIX), [2, 2, 2]
    gone = set(SIX[2 * number : 2 * number + 2])
    sizes[number] = 0
    classes = [name for name in SIX if name not in gone]
    tasks = f"tasks = {sizes}\nclasses = {classes}".replace("'", '"')
    return Case(photos, [(("task", f"task-{number:02d}"),)], _without(photos, lambda one: one.label in gone), tasks)


def _one_class() -> Case:
    photos = album(SIX)
    tasks = 'tasks = [2, 1, 2]\nclasses = ["cat", "owl", "ibex", "lynx", "crow"]'
    return Case(photos, [(("class", "newt"),)], _without(photos, lambda one: one.label == "newt"), tasks)


def _all_but_one() -> Case:
    photos = album(SIX)
    return _samples({f"train/ibex/{row}.png" for row in range(1, 5)}, photos)


def _hundred() -> Case:
    photos = album(SIX, train=30)
    every = sorted(one.sample for one in photos if one.split == "train")
    return _samples(set(every[::2][:100]), photos)


def _two_in_a_row() -> Case:
    photos = album(SIX)
    first, second = ("subject", "person-1"), ("sample", "train/crow/0.png")
    rest = _without(photos, lambda one: one.subject == "person-1" or one.sample == "train/crow/0.png")
    return Case(photos, [(first,), (second,)], rest)  # type: ignore[list-item]


def _twins() -> Case:
    photos = [*album(SIX), Photo("train/lynx/twin.png", "lynx", "train", "someone")]
    gone = {"train/cat/2.png", "train/lynx/twin.png"}
    return Case(photos, [(("sample", "train/cat/2.png"),)], _without(photos, lambda one: one.sample in gone))


def _person(name: str) -> Case:
    photos = album(SIX)
    return Case(photos, [(("subject", name),)], _without(photos, lambda one: one.subject == name))


CASES: dict[str, Callable[[], Case]] = {
    "one sample": lambda: _samples({"train/ibex/2.png"}, album(SIX)),
    "several tasks": lambda: _samples({"train/cat/1.png", "train/newt/3.png", "test/crow/0.png"}, album(SIX)),
    "one person": lambda: _person("person-2"),
    "one class": _one_class,
    "first task": lambda: _task(0),
    "middle task": lambda: _task(1),
    "last task": lambda: _task(2),
    "all but one": _all_but_one,
    "test images": lambda: _samples({"test/cat/0.png", "test/lynx/1.png"}, album(SIX)),
    "twin files": _twins,
    "a hundred": _hundred,
    "two in a row": _two_in_a_row,
    "after growth": lambda: replace(_samples({"train/ibex/2.png"}, album(SIX)), grown=True),
    "shared components": lambda: replace(_samples({"train/ibex/2.png"}, album(SIX)), beside="simplecil"),
}


def _deleted(folder: Path, case: Case, strategy: str) -> dict[str, str]:
    """The components of the run after all of its deletions."""
    home = folder / "home"
    folder.mkdir()
    take(folder, case.photos)
    for one in case.photos:
        if one.sample.endswith("twin.png"):
            shutil.copy(folder / "images" / "train" / "cat" / "2.png", folder / "images" / one.sample)
    if case.grown:
        learnt(home, describe(folder, [one for one in case.photos if one.label in SIX[:4]]), strategy)
    if case.beside:
        learnt(home, describe(folder, case.photos), case.beside)
    run = learnt(home, describe(folder, case.photos), strategy).id
    for request in case.requests:
        forgotten(home, run, *request)
    return dict(Runs(Store(home)).served(run).components)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", CASES)
def test_it_equals_a_world_without_the_data(tmp_path: Path, strategy: str, kind: str) -> None:
    case = CASES[kind]()
    after = _deleted(tmp_path / "all", case, strategy)
    (tmp_path / "rest").mkdir()
    take(tmp_path / "rest", case.rest)
    fresh = learnt(tmp_path / "fresh", describe(tmp_path / "rest", case.rest, tasks=case.tasks), strategy)
    assert after == fresh.figures["components"]


def test_the_matrix_can_fail(tmp_path: Path) -> None:
    case = CASES["one sample"]()
    after = _deleted(tmp_path / "all", case, "simplecil")
    fresh = learnt(tmp_path / "fresh", photographed(tmp_path / "rest", case.photos), "simplecil")
    assert after != fresh.figures["components"]
