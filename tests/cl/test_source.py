"""Titles and docstrings are read from sources; what is not told plainly is left to an import."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest

from cl import registry, source

NUMBER = itertools.count()
BASE = "from cl import Strategy\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def module(folder: Path, text: str) -> str:
    """The name of a new module that holds `text` and cannot be imported."""
    name = f"never_imported_{next(NUMBER)}"
    folder.joinpath(f"{name}.py").write_text(f"{text}\nraise ImportError('read me, do not run me')\n", encoding="utf-8")
    return name


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("class Mine:\n    title = 'one ' 'two'", "one two"),
        ("class Mine:\n    title: ClassVar[str] = 'one'", "one"),
        ("class Theirs:\n    title = 'one'\nclass Mine(Theirs):\n    pass", "one"),
        ("class Theirs:\n    title = 'one'\nclass Mine(Theirs[int]):\n    title = 'two'", "two"),
        (f"{BASE}class Mine(Strategy):\n    paper = 'one'", ""),
        (f"{BASE}class Mine(Strategy[int]):\n    title = 'one'", "one"),
        ("class Mine:\n    title = f'{1}'", None),
        ("class Mine:\n    title = 'one'\n    title = 'two'", None),
        ("class Mine:\n    pass", None),
        ("class Mine(A, B):\n    pass", None),
        ("@final\nclass Mine:\n    title = 'one'", None),
        ("class Mine(metaclass=Other):\n    title = 'one'", None),
        ("class Mine:\n    title = 'one'\nMine.title = 'two'", None),
        ("class Mine:\n    title = 'one'\nif True:\n    class Mine:\n        title = 'two'", None),
        ("class Mine:\n    title = 'one'\ntry:\n    from nowhere import Mine\nexcept ImportError:\n    pass", None),
        ("Mine = type('Mine', (), {'title': 'one'})", None),
        ("def Mine(): ...", None),
        ("from never_there import Mine", None),
        ("no Python at all", None),
    ],
)
def test_a_title_is_what_the_class_says(folder: Path, text: str, title: str | None) -> None:
    found = source.texts(module(folder, text), "Mine", ["title"])
    assert found == (None if title is None else {"title": title})


@pytest.mark.parametrize(
    ("text", "doc"),
    [
        ("def mine():\n    '''One.\n\n    Two.'''", "One.\n\nTwo."),
        ("@cache\ndef mine():\n    '''One.'''", "One."),
        ("def mine():\n    mine = 1", ""),
        ("def mine():\n    '''One.'''\nmine.__doc__ = 'Two.'", None),
        ("mine = partial(print)", None),
    ],
)
def test_a_docstring_is_what_the_function_says(folder: Path, text: str, doc: str | None) -> None:
    found = source.texts(module(folder, text), "mine", ["__doc__"])
    assert found == (None if doc is None else {"__doc__": doc})


def test_names_are_followed_through_packages_that_are_not_run(folder: Path) -> None:
    package = folder / "never_run"
    package.mkdir()
    package.joinpath("__init__.py").write_text("from .inner import Theirs as Mine\nraise ImportError\n")
    package.joinpath("inner.py").write_text("from never_run.deep import Base\nclass Theirs(Base):\n    paper = 'two'\n")
    package.joinpath("deep.py").write_text("class Base:\n    title = 'one'\n")
    assert source.texts("never_run", "Mine", ["title", "paper"]) == {"title": "one", "paper": "two"}
    assert "never_run" not in sys.modules


@pytest.mark.parametrize(("known", "attributes"), [(registry.strategies, ("title", "paper")), (registry.streams, ())])
def test_all_that_is_listed_is_told_as_an_import_would(known: registry.Registry, attributes: tuple[str, ...]) -> None:
    wanted = attributes or ("__doc__",)
    for name, told in known.texts(*wanted).items():
        entry = known.get(name)
        assert isinstance(told, dict)
        first = {key: text.strip().partition("\n")[0] for key, text in told.items()}
        assert first == {key: (getattr(entry, key) or "").strip().partition("\n")[0] for key in wanted}, name
