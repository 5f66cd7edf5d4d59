"""Many runs side by side: cells (strategy, seed) in processes of their own on one home, with the bytes of one alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.queues import Queue
from typing import Any

from joblib import cpu_count

from cl import progress
from cl.errors import BadInput, ProcessLost
from cl.running.options import Options
from cl.running.settings import STREAM, check_known, meant_for, shared_out


@dataclass(frozen=True)
class Cell:
    """One run of a comparison, as plain values that travel to another process."""

    stream: str
    strategy: str
    options: Options


def cells(stream: str, strategies: Sequence[str], seeds: int, options: Options) -> list[Cell]:
    """The grid strategies x seeds. A preset or setting may be meant for one strategy: `ease.official`, `joint.when`.

    A setting without a strategy goes to each one that has it, and to the stream; `stream.people` only to that. Raises
    UnknownName where nobody knows a name.
    """
    from cl.data.recipes import arguments_of
    from cl.learning.strategy import strategy_of
    from cl.models.loading import default_backbone

    if seeds < 1:
        raise BadInput(f"seeds must be at least 1, not {seeds}")
    twice = [name for name in strategies if strategies.count(name) > 1]
    if twice:
        raise BadInput(f"strategy '{twice[0]}' is named twice; compare its settings in two runs instead")
    methods: dict[str, Any] = {name: strategy_of(name) for name in strategies}
    known = {name: set(method.Hyper.__dataclass_fields__) for name, method in methods.items()}
    offered = {name: set(method.presets) for name, method in methods.items()}
    check_known("preset", options.presets, offered)
    sets = shared_out(options.settings, {**known, STREAM: arguments_of(stream)})
    backbone = default_backbone() if options.backbone is None else options.backbone
    each = {
        name: replace(
            options,
            backbone=backbone,  # by name: another process may have an older environment
            presets=tuple(plain for _, plain in meant_for(name, options.presets, offered[name])),
            settings=sets[name],
            arguments=sets[STREAM],
        )
        for name in methods
    }
    return [Cell(stream, name, replace(each[name], seed=seed)) for seed in range(seeds) for name in methods]


def default_jobs(device: str) -> int:
    """The cores; one job on cuda, where several would only wait for the one device."""
    from cl.numerics import device_kind

    return 1 if device_kind(device) == "cuda" else cpu_count()


def run_cells(grid: Sequence[Cell], jobs: int) -> list[dict[str, Any]]:
    """The figures of every cell, in the order of `grid`."""
    if jobs < 1:
        raise BadInput(f"jobs must be at least 1, not {jobs}")
    if jobs == 1 or len(grid) == 1:
        return [_figures(cell) for cell in progress.track(grid, "runs")]
    return _side_by_side(grid, min(jobs, len(grid)))


def get_ready() -> None:
    """Begin to load the engine for the processes of `run_cells`, while the caller goes on."""
    if _processes().get_start_method() == "forkserver":
        resource_tracker.ensure_running()  # the server's start would start it, which lets Ctrl-C through again
        with _apart():
            forkserver.ensure_running()


def _processes() -> BaseContext:
    """How processes are made: loading the engine takes seconds, so that one process loads it and is forked for each.
    It does nothing else before, hence is safe to fork; systems other than Linux do not promise that."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cl.running.run"])
    return context


@contextmanager
def _apart() -> Iterator[None]:
    """A process started inside, and what it forks, never sees Ctrl-C, which the parent handles; and it finds no modules
    in the working folder, where a folder may well be called `cl`."""
    before = os.environ.get("PYTHONSAFEPATH")
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)


def _side_by_side(grid: Sequence[Cell], jobs: int) -> list[dict[str, Any]]:
    get_ready()
    context = _processes()
    messages: Queue[Any] = context.Queue()
    listener = threading.Thread(target=_relay, args=(messages,), daemon=True)
    listener.start()
    found: dict[int, dict[str, Any]] = {}
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=(messages,))
    try:
        waiting = {pool.submit(_figures, cell): place for place, cell in enumerate(grid)}
        for done in progress.track(as_completed(waiting), "runs", len(grid)):
            found[waiting[done]] = done.result()
    except BrokenProcessPool as error:
        _end(pool)
        raise ProcessLost(
            "a process of this comparison was killed, perhaps for want of memory; "
            "run the same command again, with fewer --jobs, and it goes on from what is stored"
        ) from error
    except BaseException:
        _end(pool)
        raise
    pool.shutdown()
    messages.put(None)
    listener.join()
    return [found[place] for place in range(len(grid))]


def _figures(cell: Cell) -> dict[str, Any]:
    """Those of the cell's run; where its images are gone, those that were recorded."""
    from cl.running.recorded import recorded
    from cl.running.run import run_with

    try:
        return dict(run_with(cell.stream, cell.strategy, cell.options).figures)
    except BadInput as error:
        before = recorded(cell.stream, cell.strategy, cell.options, str(error))
        if before is None:
            raise
        return before


def _start_worker(messages: Queue[Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    progress.install(lambda label, done, total: messages.put((f"{label} [{os.getpid()}]", done, total)))


def _end_with_parent() -> None:
    """A parent that was killed can end nobody, and nobody needs this process any more."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _relay(messages: Queue[Any]) -> None:
    while (message := messages.get()) is not None:
        progress.tell(*message)


def _end(pool: ProcessPoolExecutor) -> None:
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
