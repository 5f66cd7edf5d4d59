"""Executing a deletion, going on with one that was interrupted, and building again what others made of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from cl.deletion.baselines import measure
from cl.deletion.dossier import MeasuredCopy, Method, Order, dossier_of
from cl.deletion.events import Built, NothingToDo, Purged, append
from cl.deletion.forget_set import Selector, need_selectors
from cl.deletion.intake import interrupted_deletions, receive
from cl.deletion.plan import DeletionPlan, Scope
from cl.deletion.plan import plan as make_plan
from cl.deletion.steps import Deletion, Outcome
from cl.errors import DeletionError, PalimpsestError
from cl.home.layout import stale_runs
from cl.home.ledger import Ledger, state, writing
from cl.home.runs import Runs
from cl.home.store import Store
from cl.running.reopening import open_run
from cl.running.session import Session


def execute(
    home: Path,
    run: str,
    selectors: Sequence[Selector],
    *,
    scope: Scope = "home",
    method: Method = "exact",
    reason: str = "unspecified",
    keep: Sequence[str] = (),
    confirm: Callable[[DeletionPlan], None] = lambda plan: None,
) -> Outcome:
    """Delete what the selectors mean from `run`, or go on with the same deletion after a crash.

    keep: copies of the samples that stay. method: `exact`, or a baseline measured on a copy (`drop`, `retrain`), which
    deletes nothing from the run. confirm: called with the plan before anything is touched; it raises to stop. Raises
    DeletionError where exactness cannot be had (code or libraries changed), LedgerError on an edited ledger.
    """
    need_selectors(selectors)
    with writing(home):
        Ledger(home).verify()
        wanted = tuple(sorted(selectors, key=lambda one: (one.kind, one.value)))
        order = Order(Runs(Store(home)).find(run), wanted, scope, method, reason)
        request = _interrupted_before(home, order)
        session = open_run(home, run)
        if request is None:
            plan = make_plan(session, selectors, scope, keep)
            if not plan.forget.samples:
                return _nothing_to_do(home, plan)
            _refuse_changed(plan)
            confirm(plan)
            if method != "exact":
                return _compare(home, session, plan, order)
            request = receive(home, dossier_of(session.store, plan, order))
        return Deletion(home, request, lambda: session.setup).finish()


def rebuild_stale(home: Path) -> list[str]:
    """Run again, without the deleted samples, every run that deletions made stale; their ids."""
    stale = list(stale_runs(home))
    for run in stale:
        open_run(home, run).run()
    return stale


def _interrupted_before(home: Path, order: Order) -> str | None:
    """The interrupted request of exactly this deletion. Every other one is finished first: each knows the run as it
    was when it was approved, so what a later one builds would look to it like a hidden read."""
    same = None
    for request, dossier in interrupted_deletions(home):
        if dossier.order.same(order):
            same = request
        elif state(Ledger(home).of(request)) != "failed":
            _finish_first(home, request, dossier.order.run)
    return same


def _finish_first(home: Path, request: str, run: str) -> None:
    try:
        Deletion(home, request, lambda: open_run(home, run).setup).finish()
    except PalimpsestError as error:
        raise DeletionError(f"deletion {request} of run {run} has to be finished first: {error}") from error


def _refuse_changed(plan: DeletionPlan) -> None:
    if plan.changed:
        raise DeletionError(
            f"code, libraries or device of {plan.changed[0]} are not those that built run {plan.run}: nothing can be "
            "compared byte for byte; run it again first, then forget"
        )


def _compare(home: Path, session: Session, plan: DeletionPlan, order: Order) -> Outcome:
    """A baseline on a copy: its finding is sealed with the request, for verification. Measured before it is recorded:
    where nothing can be dropped, there is no request."""
    found = measure(session, plan, order.method)
    copy = MeasuredCopy(found.finding, found.left)
    request = receive(home, replace(dossier_of(session.store, plan, order), copy=copy))
    whole = f"{plan.full_retrain_seconds:.3f}"
    append(Ledger(home), request, Built(found.built, found.reused, whole, seconds=f"{found.seconds:.3f}"))
    append(Ledger(home), request, Purged(components=0, left=found.left))
    outcome = Deletion(home, request, lambda: session.setup).outcome()
    return replace(outcome, manifest_after=found.finding.manifest, components_after=found.finding.components)


def _nothing_to_do(home: Path, plan: DeletionPlan) -> Outcome:
    """Everything selected was deleted before; that it was asked again is recorded, nothing else."""
    request = secrets.token_hex(6)
    if plan.forget.gone:
        append(Ledger(home), request, NothingToDo(plan.run, plan.forget.gone))
    return Outcome(
        request=request,
        state="noop",
        forgotten=0,
        tainted=0,
        rebuilt=0,
        reused=len(plan.live.keys),
        purged=0,
        seconds=0.0,
        predicted_seconds=0.0,
        full_retrain_seconds=plan.full_retrain_seconds,
        manifest_before=plan.live.digest,
        manifest_after=plan.live.digest,
        components_after=plan.live.components,
    )
