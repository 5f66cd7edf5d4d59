"""The steps of a deletion: quarantine, build, switch, purge; each journalled, each safe to begin again.

A request that was interrupted goes on at the first step that the ledger does not call done. What it is about lies in
the vault until it is certified; the ledger holds keyed hashes and counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cl.deletion.dossier import read_dossier
from cl.deletion.events import (
    Built,
    Halted,
    Purged,
    Quarantined,
    Replanned,
    StepDone,
    StepStarted,
    Switched,
    append,
    newest,
    step_seconds,
)
from cl.deletion.intake import record_intake
from cl.deletion.plan import changed_builds, runs_with
from cl.deletion.purge import purge
from cl.deletion.taint import closure
from cl.deletion.vault import Vault
from cl.documents import plain
from cl.errors import DeletionError
from cl.home.deletions import settle
from cl.home.ledger import Ledger, state
from cl.home.results import Results
from cl.home.runs import Runs
from cl.home.store import Store
from cl.running.journal import Journal
from cl.running.session import Session, as_resolved, session_on
from cl.running.setup import Setup
from cl.running.suppression import Suppression


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
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        told = plain(self)
        return told if self.notes else {name: value for name, value in told.items() if name != "notes"}


class Deletion:
    """One request, from `approved` to `purged`. set_up: gives what its run is made of, asked for where it is driven."""

    def __init__(self, home: Path, request: str, set_up: Callable[[], Setup]) -> None:
        self.home, self.request, self._set_up = home, request, set_up
        self.ledger, self.vault = Ledger(home), Vault(home)
        self.dossier = read_dossier(self.vault, request)

    def finish(self) -> Outcome:
        """Do every step that is not done yet."""
        record_intake(self.home, self.request)
        steps: list[tuple[type[StepDone], str, Callable[[], StepDone]]] = [
            (Quarantined, "quarantine", self._quarantine),
            (Built, "build", self._build),
            (Switched, "switch", self._switch),
            (Purged, "purge", self._purge),
        ]
        for kind, name, work in steps:
            if newest(self.ledger.of(self.request), kind) is None:
                self._journal(name, work)
        return self.outcome()

    def outcome(self) -> Outcome:
        """What was done, from ledger and vault."""
        records, dossier = self.ledger.of(self.request), self.dossier
        live = Runs(Store(self.home)).live(dossier.order.run)
        built, purged = newest(records, Built), newest(records, Purged)
        whole = float(built.full_retrain_seconds) if built else dossier.forecast.full_retrain_seconds
        return Outcome(
            request=self.request,
            state=state(records),
            forgotten=len(dossier.forgotten.samples),
            tainted=len(dossier.taint.keys),
            rebuilt=built.rebuilt if built else 0,
            reused=built.reused if built else 0,
            purged=purged.components if purged else 0,
            seconds=sum(dict(step_seconds(records)).values()),
            predicted_seconds=dossier.forecast.predicted_seconds,
            full_retrain_seconds=whole,
            manifest_before=dossier.before.manifest,
            manifest_after=live.digest if live else "",
            components_after=dict(live.components) if live else {},
            notes=tuple(f"{one.why}: all of the run was built again" for one in [newest(records, Replanned)] if one),
        )

    def _journal(self, step: str, work: Callable[[], StepDone]) -> None:
        append(self.ledger, self.request, StepStarted(step))
        start = time.perf_counter()
        done = work()
        append(self.ledger, self.request, replace(done, seconds=f"{time.perf_counter() - start:.3f}"))
        if isinstance(done, Quarantined) and done.suppression is not None:
            settle(self.home, done.suppression)

    def _quarantine(self) -> Quarantined:
        """From here on no write may bring the data back, and nothing made from it is served."""
        store, run, forgotten = Store(self.home), self.dossier.order.run, self.dossier.forgotten
        everywhere = self.dossier.order.scope == "home"
        suppression = Suppression(self.home)
        people = [(forgotten.stream, who) for who in forgotten.subjects]
        entry = suppression.entry(None if everywhere else run, forgotten.kept_out, people)
        with store.locked(exclusive=True):
            made = suppression.add(store, self.request, entry, len(forgotten.samples))
            touched = closure(store, forgotten.traces)
            others = tuple(sorted(runs_with(store, forgotten.traces, touched) - {run}))
            runs = Runs(store)
            runs.quarantine(run, self.request)
            if everywhere:
                for other in others:
                    runs.retire(other, self.request)
                Results(self.home).remove(others)
        # Names of runs only: in the vault until the certificate is made, in the ledger as a count.
        stale, exceptions = (others, ()) if everywhere else ((), others)
        self.dossier = replace(self.dossier, stale=stale, exceptions=exceptions)
        self.vault.put(self.request, self.dossier.to_json())
        return Quarantined(stale=len(stale), exceptions=len(exceptions), suppression=made)

    def _build(self) -> Built:
        session, journal = self._driven
        uses = {use.key: use for use in session.builder.uses}
        before = set(self.dossier.before.keys)
        fresh = {key: use for key, use in uses.items() if key not in before}
        surplus = self._surplus(session, journal, {key: use.name for key, use in fresh.items()})
        changed = self._changed_since_planned(session) if surplus else None
        if changed is not None:
            append(self.ledger, self.request, Replanned(changed, len(surplus)))
        elif surplus:
            append(self.ledger, self.request, Halted("rebuilt outside the tainted closure", len(surplus)))
            raise DeletionError(
                f"'{surplus[0]}' was built anew although nothing it declares was deleted: a hidden read, or a name "
                "that depends on a position; mend the strategy and delete again"
            )
        built = {use.key: use.seconds for use in session.builder.uses if use.built}
        beside = max(0.0, session.elapsed() - sum(built.values()))  # lookups and files; building all takes more of them
        whole = sum(use.seconds for use in uses.values()) + beside
        return Built(rebuilt=len(fresh), reused=len(uses) - len(fresh), full_retrain_seconds=f"{whole:.3f}")

    def _surplus(self, session: Session, journal: Journal, fresh: Mapping[str, str]) -> list[str]:
        """Names of what was built anew outside the tainted closure; there must be none. What the run did not have
        before is allowed where a decision, taken again, asked for it, and where a whole task is gone: the table of
        tasks is part of the model, and a method may treat the first one of it in a way of its own."""
        tainted = set(self.dossier.taint.names)
        known = {*self.dossier.before.names, *tainted}
        entries = {name for name, handle in journal.model.entries.items() if handle.key in fresh}
        shorter = self.dossier.forgotten.tasks_emptied > 0
        names = {n for key, n in fresh.items() if n in known or not (shorter or _decided(session.store, key))}
        return sorted((names | (entries & known)) - tainted)

    def _changed_since_planned(self, session: Session) -> str | None:
        """Why nothing can be compared with the run as it was planned for; None if it can. Else all of it is built
        again: more than has to be, never less."""
        store, before = session.store, self.dossier.before
        records = [record for key in before.keys if (record := store.find(key)) is not None]
        if changed_builds(session, [("", record) for record in records]):
            return "code, libraries, threads or device changed since the deletion was planned"
        live = Runs(store).live(self.dossier.order.run)
        if live is None or live.digest != before.manifest:
            return "the run was made anew since the deletion was planned"
        return None

    def _switch(self) -> Switched:
        session, journal = self._driven
        with session.store.locked(exclusive=True):
            session.save(session.figures(journal), journal)
        return Switched(manifest=journal.manifest)

    def _purge(self) -> Purged:
        store = Store(self.home)
        with store.locked(exclusive=True):
            return purge(store, self.dossier)

    @cached_property
    def _driven(self) -> tuple[Session, Journal]:
        """The run on the filtered stream. What an interrupted attempt built is in the store already."""
        setup, runs = self._set_up(), Runs(Store(self.home))
        session = session_on(self.home, setup, as_resolved(setup.whole, runs.resolution(self.dossier.order.run)))
        return session, session.drive()


def _decided(store: Store, key: str) -> bool:
    record = store.find(key)
    return record is not None and any(read["edge"] == "control" for read in record.reads)
