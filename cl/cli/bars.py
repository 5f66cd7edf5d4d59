"""Progress bars on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cl.progress import reporting


@contextmanager
def bars(console: Console, quiet: bool) -> Iterator[None]:
    """Show all progress reported inside the block, one bar a label; nothing if `quiet` and not a terminal."""
    if not console.is_terminal:
        with reporting(_Lines(console, quiet)):
            yield
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as shown, reporting(_Bars(shown)):
        yield


class _Bars:
    def __init__(self, shown: Progress) -> None:
        self._shown = shown
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, label: str, done: int, total: int) -> None:
        if label not in self._tasks:
            self._tasks[label] = self._shown.add_task(label, total=total)
        self._shown.update(self._tasks[label], completed=done, total=total or None, visible=done < total or total == 0)


class _Lines:
    """Off a terminal: a plain line for each finished run or task, so that a log shows life."""

    def __init__(self, console: Console, quiet: bool) -> None:
        self._console, self._quiet = console, quiet

    def __call__(self, label: str, done: int, total: int) -> None:
        if not self._quiet and done and (label == "runs" or " on " in label):
            self._console.print(f"{label}: {done}/{total}", highlight=False, markup=False, soft_wrap=True)
