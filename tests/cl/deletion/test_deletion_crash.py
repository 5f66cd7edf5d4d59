"""A deletion that is killed, or whose disk fills up, goes on where it stopped and ends as the undisturbed one does."""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import cl.audit.verification
import cl.deletion.oracle
import cl.deletion.vault
import cl.home.deletions
import cl.home.ledger
import cl.home.store
from cl.audit.certificate import certify, place
from cl.audit.verification import verify
from cl.deletion.oracle import Finding, observe
from cl.deletion.vault import Vault
from cl.errors import StoreError
from cl.home.ledger import Ledger
from cl.home.results import Results
from cl.home.runs import Runs
from cl.home.store import Store
from cl.home.writing import write_atomic
from tests.deleting import forget, keys, oracle, started

SAMPLE = "t1/c0/1"
WRITERS = (cl.home.store, cl.deletion.vault, cl.home.ledger, cl.home.deletions)


@cache
def finding(folder: Path) -> Finding:
    """What two cold oracles would find, made once in this process."""
    home, cold = folder / "home", folder / "cold"
    run = started(home, "ease")
    session, _ = oracle(home, run, {SAMPLE}, cold)
    return observe(session, session.drive(), {SAMPLE}, 0.0)


def whole(home: Path, run: str) -> None:
    """Delete, verify and certify, from wherever an earlier attempt stopped."""
    done = [r.request for r in Ledger(home).records() if r.type == "purged"]
    request = done[0] if done else forget(home, run, ("sample", SAMPLE)).request
    if not place(home, request).exists() or Vault(home).holds(request):
        if not any(r.type == "certified" for r in Ledger(home).of(request)):
            assert verify(home, request).grade == "E0"
        certify(home, request)


def killed(work: Callable[[], None], prepare: Callable[[], None]) -> bool:
    """Run `work` in a fork of this warm process, `prepare` arming its death; whether it died by it."""
    child = os.fork()
    if child == 0:
        try:
            prepare()
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def at_write(number: int) -> Callable[[], None]:
    """Death by SIGKILL just before the write of this number."""

    def arm() -> None:
        count = 0

        def dying(*arguments: Any, **options: Any) -> None:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            write_atomic(*arguments, **options)

        for module in WRITERS:
            module.write_atomic = dying  # type: ignore[attr-defined]

    return arm


def after_record(type_: str, step: str | None) -> Callable[[], None]:
    """Death just after the ledger has recorded this."""

    def arm() -> None:
        append = Ledger.append

        def dying(self: Ledger, kind: str, request: str, body: dict[str, Any]) -> dict[str, Any]:
            record = append(self, kind, request, body)
            if kind == type_ and body.get("step") == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return record

        Ledger.append = dying  # type: ignore[method-assign]

    return arm


def after_seconds(seconds: float) -> Callable[[], None]:
    def arm() -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds)  # the default action of SIGALRM ends the process at once

    return arm


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Finding:
    return finding(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def length(tmp_path_factory: pytest.TempPathFactory, expected: Finding) -> float:
    """Seconds that deleting, verifying and certifying take where nothing disturbs them: the instants lie inside."""
    home = tmp_path_factory.mktemp("length")
    run = started(home, "ease")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cl.audit.verification, "oracles", lambda tasks: [replace(expected) for _ in tasks])
        start = time.perf_counter()
        whole(home, run)
    return time.perf_counter() - start


@pytest.fixture(autouse=True)
def _quick_oracles(monkeypatch: pytest.MonkeyPatch, expected: Finding) -> None:
    monkeypatch.setattr(cl.audit.verification, "oracles", lambda tasks: [replace(expected) for _ in tasks])


def check(home: Path, run: str, expected: Finding) -> None:
    live = Runs(Store(home)).live(run)
    assert live is not None
    assert (live.digest, keys(home)) == (expected.manifest, live.keys)
    assert Results(home).find(run).figures["manifest"] == expected.manifest
    assert [r.type for r in Ledger(home).verify()].count("certified") == 1
    assert Vault(home).requests() == []
    assert not list(home.rglob(".tmp-*"))


def disturb(home: Path, arm: Callable[[], None], expected: Finding) -> bool:
    run = started(home, "ease")
    died = killed(lambda: whole(home, run), arm)
    whole(home, run)
    check(home, run, expected)
    return died


BOUNDARIES = [
    *[(name, None) for name in ("received", "resolved", "planned", "approved")],
    *[("step_started", step) for step in ("quarantine", "build", "switch", "purge")],
    *[("quarantined", "quarantine"), ("step_done", "build"), ("step_done", "switch"), ("purged", "purge")],
    *[("verified", None), ("certified", None)],
]


@pytest.mark.parametrize(("type_", "step"), BOUNDARIES)
def test_killed_at_a_step_boundary(tmp_path: Path, expected: Finding, type_: str, step: str | None) -> None:
    assert disturb(tmp_path, after_record(type_, step), expected)


@pytest.mark.parametrize("number", [1, 7, 20, 35, 50, 60])
def test_killed_before_a_write(tmp_path: Path, expected: Finding, number: int) -> None:
    assert disturb(tmp_path, at_write(number), expected)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(200))
def test_killed_at_any_instant(tmp_path: Path, expected: Finding, length: float, number: int) -> None:
    disturb(tmp_path, after_seconds(random.Random(number).uniform(0.005, 0.95) * length), expected)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("number", [3, 25, 50])
def test_a_write_that_fails_is_an_error_and_the_next_attempt_ends_well(
    tmp_path: Path, expected: Finding, monkeypatch: pytest.MonkeyPatch, code: int, number: int
) -> None:
    run = started(tmp_path, "ease")
    count = 0

    def failing(*arguments: Any, **options: Any) -> None:
        nonlocal count
        count += 1
        if count >= number:
            raise OSError(code, os.strerror(code))
        write_atomic(*arguments, **options)

    with monkeypatch.context() as patch:
        for module in WRITERS:
            patch.setattr(module, "write_atomic", failing)
        with pytest.raises((StoreError, OSError)):
            whole(tmp_path, run)
    assert not any(r.type == "certified" for r in Ledger(tmp_path).records())
    whole(tmp_path, run)
    check(tmp_path, run, expected)
