"""Carrying a deletion out: quarantine, build, switch, purge; each step journalled, each safe to begin again.

A request that was interrupted goes on at the first step that the ledger does not call done. What it is about lies in
the vault until it is certified; the ledger holds keyed hashes and counts.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from cl.deletion.baselines import measure
from cl.deletion.forget_set import Selector, need_selectors
from cl.deletion.graph import component_graph
from cl.deletion.ledger import Ledger, body, state, writing
from cl.deletion.plan import Plan, Scope
from cl.deletion.plan import plan as make_plan
from cl.deletion.purge import purge
from cl.deletion.taint import closure
from cl.deletion.vault import Vault
from cl.errors import DeletionError, PalimpsestError
from cl.home.keys import keyed
from cl.home.layout import stale_runs
from cl.home.results import Results
from cl.home.runs import Runs
from cl.home.store import Store
from cl.running.journal import Journal
from cl.running.rerun import open_run
from cl.running.session import Session
from cl.running.suppression import Suppression

Method = Literal["exact", "drop", "retrain"]
OPEN = ("received", "resolved", "planned", "approved", "quarantined", "executing", "failed")
STEPS = ("quarantine", "build", "switch", "purge")
# The ledger's word for a finished step, where it has one of its own.
DONE = {"quarantine": "quarantined", "purge": "purged"}


@dataclass(frozen=True)
class Outcome:
    """What a deletion did: samples forgotten, components of the run, and components of the whole home purged."""

    request: str
    state: str
    forgotten: int
    tainted: int
    rebuilt: int
    reused: int
    purged: int
    seconds: float
    predicted_seconds: float
    full_retrain_seconds: float
    manifest_before: str
    manifest_after: str
    components_after: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


def execute(
    home: Path,
    run: str,
    selectors: Sequence[Selector],
    *,
    scope: Scope = "home",
    method: Method = "exact",
    reason: str = "unspecified",
    confirm: Callable[[Plan], None] = lambda plan: None,
) -> Outcome:
    """Delete what the selectors mean from `run`, or go on with the same deletion after a crash.

    method: `exact`, or a baseline measured on a copy (`drop`, `retrain`), which deletes nothing from the run.
    confirm: called with the plan before anything is touched; it raises to stop. Raises DeletionError where exactness
    cannot be had (code or libraries changed), LedgerError on an edited ledger.
    """
    need_selectors(selectors)
    with writing(home):
        Ledger(home).verify()
        wanted = sorted([one.kind, one.value] for one in selectors)
        request = _go_on(home, Runs(Store(home)).find(run), wanted, scope, method)
        session = open_run(home, run)
        if request is None:
            plan = make_plan(session, selectors, scope)
            if not plan.forget.samples:
                return _noop(home, plan)
            _refuse_changed(plan)
            confirm(plan)
            if method != "exact":
                return _compare(home, session, plan, wanted, method, reason)
            request = _receive(home, plan, wanted, method, reason)
        return Deletion(home, request, session).finish()


@dataclass
class Deletion:
    """One request, from `approved` to `purged`. opened: its run, opened before the samples were suppressed."""

    home: Path
    request: str
    opened: Session | None = None
    content: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.ledger, self.vault = Ledger(self.home), Vault(self.home)
        self.content = self.vault.get(self.request)
        self._driven: tuple[Session, Journal] | None = None

    def finish(self) -> Outcome:
        """Do every step that is not done yet."""
        _record(self.home, self.request)
        steps: dict[str, Callable[[], dict[str, Any]]] = {
            "quarantine": self._quarantine,
            "build": self._build,
            "switch": self._switch,
            "purge": self._purge,
        }
        for name in STEPS:
            if self._done(name) is None:
                self._journal(name, steps[name])
        return self.outcome()

    def outcome(self) -> Outcome:
        """What was done, from ledger and vault."""
        store, run = Store(self.home), self.content["run"]
        live = Runs(store).live(run)
        built, purged = self._done("build") or {}, self._done("purge") or {}
        seconds = sum(float((self._done(name) or {}).get("seconds", "0")) for name in STEPS)
        return Outcome(
            request=self.request,
            state=state(self.ledger.of(self.request)),
            forgotten=len(self.content["samples"]),
            tainted=len(self.content["tainted_keys"]),
            rebuilt=built.get("rebuilt", 0),
            reused=built.get("reused", 0),
            purged=purged.get("components", 0),
            seconds=seconds,
            predicted_seconds=self.content["predicted_seconds"],
            full_retrain_seconds=float(built.get("full_retrain_seconds", self.content["full_retrain_seconds"])),
            manifest_before=self.content["manifest_before"],
            manifest_after=live.manifest["manifest"] if live else "",
            components_after=live.components if live else {},
        )

    def _done(self, step: str) -> dict[str, Any] | None:
        return body(self.ledger.of(self.request), DONE.get(step, "step_done"), step)

    def _journal(self, step: str, work: Callable[[], dict[str, Any]]) -> None:
        self.ledger.append("step_started", self.request, {"step": step})
        start = time.perf_counter()
        found = work()
        seconds = f"{time.perf_counter() - start:.3f}"
        self.ledger.append(DONE.get(step, "step_done"), self.request, {"step": step, "seconds": seconds, **found})

    def _quarantine(self) -> dict[str, Any]:
        """From here on no write may bring the data back, and nothing made from it is served."""
        store, content = Store(self.home), self.content
        everywhere = content["scope"] == "home"
        with store.locked(exclusive=True):
            Suppression(self.home).add(store, self.request, None if everywhere else content["run"], content["samples"])
            touched = closure(store, content["samples"])
            runs = Runs(store)
            others = [run for run, live in runs.all_live() if live.keys & touched.components.keys()]
            others = [run for run in others if run != content["run"]]
            runs.quarantine(content["run"], self.request)
            if everywhere:
                for run in others:
                    runs.retire(run, self.request)
                Results(self.home).remove(others)
        # Names of runs only: in the vault until the certificate is made, in the ledger as a count.
        content["stale" if everywhere else "exceptions"] = others
        self.vault.put(self.request, content)
        return {"stale": len(others) if everywhere else 0, "exceptions": 0 if everywhere else len(others)}

    def _build(self) -> dict[str, Any]:
        session, journal = self._drive()
        uses = {use.key: use for use in session.builder.uses}
        fresh = {key: use for key, use in uses.items() if key not in set(self.content["used_keys"])}
        surplus = self._surplus(session, journal, {key: use.name for key, use in fresh.items()})
        if surplus:
            self.ledger.append(
                "failed", self.request, {"why": "rebuilt outside the tainted closure", "n": len(surplus)}
            )
            raise DeletionError(
                f"'{surplus[0]}' was built anew although nothing it declares was deleted: a hidden read, or a name "
                "that depends on a position; mend the strategy and delete again"
            )
        built = {use.key: use.seconds for use in session.builder.uses if use.built}
        beside = max(0.0, session.elapsed() - sum(built.values()))  # lookups and files; building all takes more of them
        whole = sum(use.seconds for use in uses.values()) + beside
        return {"rebuilt": len(fresh), "reused": len(uses) - len(fresh), "full_retrain_seconds": f"{whole:.3f}"}

    def _surplus(self, session: Session, journal: Journal, fresh: Mapping[str, str]) -> list[str]:
        """Names of what was built anew outside the tainted closure; there must be none. What the run did not have
        before is allowed where a decision, taken again, asked for it, and where a whole task is gone: the table of
        tasks is part of the model, and a method may treat the first one of it in a way of its own."""
        tainted = set(self.content["tainted_names"])
        known = {*self.content["names"], *tainted}
        entries = {name for name, handle in journal.model.entries.items() if handle.key in fresh}
        shorter = self.content["emptied"]["tasks"] > 0
        names = {n for key, n in fresh.items() if n in known or not (shorter or _decided(session.store, key))}
        return sorted((names | (entries & known)) - tainted)

    def _switch(self) -> dict[str, Any]:
        session, journal = self._drive()
        with session.store.locked(exclusive=True):
            session.save(session.figures(journal), journal)
        return {"manifest": journal.manifest}

    def _purge(self) -> dict[str, Any]:
        store = Store(self.home)
        with store.locked(exclusive=True):
            return purge(store, self.content)

    def _drive(self) -> tuple[Session, Journal]:
        """The run on the filtered stream. What an interrupted attempt built is in the store already."""
        if self._driven is None:
            session = open_run(self.home, self.content["run"]) if self.opened is None else replace(self.opened)
            self._driven = session, session.drive()
        return self._driven


def rebuild_stale(home: Path) -> list[str]:
    """Run again, without the deleted samples, every run that deletions made stale; their ids."""
    stale = list(stale_runs(home))
    for run in stale:
        open_run(home, run).run()
    return stale


def readmit(home: Path, request: str) -> int:
    """Let the samples of `request` come again, at the next run; how many. Raises DeletionError if it is not done."""
    with writing(home):
        records = Ledger(home).known(request)
        now, received = state(records), body(records, "received") or {}
        if now not in ("purged", "verified", "certified"):
            raise DeletionError(f"request {request} is {now}, so there is nothing to readmit")
        if received["method"] != "exact":
            raise DeletionError(f"request {request} measured '{received['method']}' on a copy: nothing to readmit")
        count = Suppression(home).lift(Store(home), request)
        Ledger(home).append("readmitted", request, {"samples": count})
        Vault(home).destroy(request)  # nobody will verify it any more
    return count


def _decided(store: Store, key: str) -> bool:
    record = store.find(key)
    return record is not None and any(read["edge"] == "control" for read in record.reads)


def _go_on(home: Path, run: str, selectors: Sequence[Sequence[str]], scope: str, method: str) -> str | None:
    """The interrupted request of exactly this deletion. Every other one is finished first: each knows the run as it
    was when it was approved, so what a later one builds would look to it like a hidden read."""
    asked = (run, selectors, scope, method)
    same = None
    for request, content in _interrupted(home):
        if (content["run"], content["selectors"], content["scope"], content["method"]) == asked:
            same = request
        elif state(Ledger(home).of(request)) != "failed":
            _finish_first(home, request, content["run"])
    return same


def _finish_first(home: Path, request: str, run: str) -> None:
    try:
        Deletion(home, request).finish()
    except PalimpsestError as error:
        raise DeletionError(f"deletion {request} of run {run} has to be finished first: {error}") from error


def _interrupted(home: Path) -> list[tuple[str, dict[str, Any]]]:
    """Deletions that were begun and not ended; what a crash left before `received` is destroyed."""
    ledger, vault = Ledger(home), Vault(home)
    found: list[tuple[str, dict[str, Any]]] = []
    for request in vault.requests():
        records = ledger.of(request)
        if not records:
            vault.destroy(request)
            continue
        content = vault.get(request)
        if content["method"] == "exact" and state(records).partition(" ")[0] in OPEN:
            found.append((request, content))
    return found


def _receive(home: Path, plan: Plan, selectors: list[list[str]], method: Method, reason: str) -> str:
    """Seal what the request is about, then record it."""
    request = secrets.token_hex(6)
    Vault(home).put(request, {**sealed(home, plan, selectors, method), "reason": reason})
    _record(home, request)
    return request


def _record(home: Path, request: str) -> None:
    """Record what was sealed: that it was received, resolved, planned and approved, where a crash left that out."""
    ledger, vault = Ledger(home), Vault(home)
    content, key = vault.get(request), vault.key(request)
    names = sorted(keyed(key, sample) for sample in content["samples"])
    bodies: dict[str, dict[str, Any]] = {
        "received": {
            **{name: content[name] for name in ("run", "scope", "method", "reason")},
            "selectors": [{"kind": kind, "value": keyed(key, value)} for kind, value in content["selectors"]],
        },
        "resolved": {
            "samples": len(names),
            "train": content["train"],
            "test": content["test"],
            "commitment": keyed(key, names),
        },
        "planned": {
            "tainted": len(content["tainted_keys"]),
            "build": content["build"],
            "predicted_seconds": f"{content['predicted_seconds']:.3f}",
            "full_retrain_seconds": f"{content['full_retrain_seconds']:.3f}",
            "manifest_before": keyed(key, content["manifest_before"]),
        },
        "approved": {},
    }
    known = {record["type"] for record in ledger.of(request)}
    for type_, what in bodies.items():
        if type_ not in known:
            ledger.append(type_, request, what)


def sealed(home: Path, plan: Plan, selectors: list[list[str]], method: Method) -> dict[str, Any]:
    """What the later steps need to know of the request and of the run as it was; for the vault alone."""
    store = Store(home)
    touched = closure(store, plan.forget.samples)
    entries = {name: entry["key"] for name, entry in plan.live.manifest["entries"].items()}
    tainted_entries = {name for name, key in entries.items() if key in touched.components}
    return {
        "run": plan.run,
        "selectors": selectors,
        "scope": plan.scope,
        "method": method,
        "samples": dict(plan.forget.samples),
        "train": plan.forget.train,
        "test": plan.forget.test,
        "build": plan.build,
        "manifest_before": plan.live.manifest["manifest"],
        "used_keys": sorted(plan.live.keys),
        "names": sorted({*entries, *(name for name, _ in plan.live.manifest["uses"])}),
        "tainted_names": sorted(plan.tainted | tainted_entries),
        "tainted_keys": sorted({step.key for step in plan.steps}),
        "digests": sorted(
            {*touched.shards, *touched.components}
            | {part["digest"] for record in touched.components.values() for part in record.parts.values()}
        ),
        "graph": component_graph(store, plan),
        "emptied": {"classes": len(plan.forget.classes_emptied), "tasks": len(plan.forget.tasks_emptied)},
        "warnings": len(plan.forget.warnings),
        "twins": len(plan.forget.twins),
        "blast_radius": dict(plan.blast_radius),
        "amplification": plan.amplification,
        "raw_data_needed": list(plan.raw_data_needed),
        "predicted_seconds": plan.predicted_seconds,
        "full_retrain_seconds": plan.full_retrain_seconds,
        "stale": [],
        "exceptions": [],
    }


def _refuse_changed(plan: Plan) -> None:
    if plan.changed:
        raise DeletionError(
            f"code, libraries or device of {plan.changed[0]} are not those that built run {plan.run}: nothing can be "
            "compared byte for byte; run it again first, then forget"
        )


def _compare(
    home: Path, session: Session, plan: Plan, selectors: list[list[str]], method: Method, reason: str
) -> Outcome:
    """A baseline on a copy: its finding is sealed with the request, for verification. Measured before it is recorded:
    where nothing can be dropped, there is no request."""
    found = measure(session, plan, method)
    request = _receive(home, plan, selectors, method, reason)
    vault, ledger = Vault(home), Ledger(home)
    content = {**vault.get(request), "finding": dict(found.finding), "left": found.left}
    vault.put(request, content)
    counts = {
        "rebuilt": found.built,
        "reused": found.reused,
        "full_retrain_seconds": f"{plan.full_retrain_seconds:.3f}",
    }
    ledger.append("step_done", request, {"step": "build", "seconds": f"{found.seconds:.3f}", **counts})
    ledger.append("purged", request, {"step": "purge", "seconds": "0", "components": 0, "left": found.left})
    outcome = Deletion(home, request).outcome()
    finding = found.finding
    return replace(outcome, manifest_after=finding["manifest"], components_after=finding["components"])


def _noop(home: Path, plan: Plan) -> Outcome:
    """Everything selected was deleted before; that it was asked again is recorded, nothing else."""
    request = secrets.token_hex(6)
    if plan.forget.gone:
        Ledger(home).append("noop", request, {"run": plan.run, "samples": plan.forget.gone})
    live = plan.live
    manifest = live.manifest["manifest"]
    return Outcome(
        request=request,
        state="noop",
        forgotten=0,
        tainted=0,
        rebuilt=0,
        reused=len(live.keys),
        purged=0,
        seconds=0.0,
        predicted_seconds=0.0,
        full_retrain_seconds=plan.full_retrain_seconds,
        manifest_before=manifest,
        manifest_after=manifest,
        components_after=live.components,
    )
