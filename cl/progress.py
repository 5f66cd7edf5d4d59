"""Progress, reported by whoever runs something long and shown by whoever sits at the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Reporter = Callable[[str, int, int], None]  # label, done, total

_reporter: Reporter | None = None


@contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Send all progress inside this block to `reporter`."""
    global _reporter
    before, _reporter = _reporter, reporter
    try:
        yield
    finally:
        _reporter = before


def install(reporter: Reporter) -> None:
    """Send all progress of this process to `reporter` from now on."""
    global _reporter
    _reporter = reporter


def track(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Yield `items`, telling the reporter after each."""
    if total is None:
        total = len(items) if isinstance(items, Sized) else 0
    tell(label, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        tell(label, done, total)


def tell(label: str, done: int, total: int) -> None:
    """Report that `done` of `total` steps of `label` are done."""
    if _reporter is not None:
        _reporter(label, done, total)
