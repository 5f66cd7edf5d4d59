"""Verification: the run after a deletion against the cold oracle, check by check (see `cl.audit.checks`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl.audit.checks import (
    BytesAgree,
    Checks,
    CopyClean,
    Grade,
    NothingLeft,
    OraclesAgree,
    OthersUnmoved,
    OutputsAgree,
    RunDiffered,
    SameEnvironment,
)
from cl.audit.residue import Hit, Residue, residue
from cl.deletion.dossier import Dossier, MeasuredCopy, read_dossier
from cl.deletion.events import Received, Refuted, Resolved, Verified, append, needed
from cl.deletion.oracle import Finding, cold_run, observe, oracles, shards_with, with_replaced
from cl.deletion.vault import Vault
from cl.errors import DeletionError, shown
from cl.home.ledger import Ledger, state
from cl.home.runs import Runs
from cl.home.store import Store
from cl.running.reopening import open_run, open_run_as_resolved
from cl.running.session import Session
from cl.running.suppression import Suppression

EXAMPLES = 3  # names of what differs that are told
NOTHING = {"readmitted": "its samples may come again", "noop": "its samples were deleted before"}  # to check
VERIFIABLE = ("purged", "verified", "failed", "certified")


@dataclass(frozen=True)
class Evidence:
    """What verification found."""

    request: str
    checks: Checks
    manifest_after: str
    manifest_oracle: str

    @property
    def grade(self) -> Grade:
        """See `Checks.grade`."""
        return self.checks.grade

    def as_json(self) -> dict[str, Any]:
        return {
            "request": self.request,
            "grade": self.grade,
            "checks": self.checks.as_json(),
            "manifest_after": self.manifest_after,
            "manifest_oracle": self.manifest_oracle,
        }


@dataclass(frozen=True)
class Case:
    """What a request was about, as far as it is known still.

    samples: id -> content digest, empty where the source has lost the sample. train: how many of them were for
    training. exceptions: runs that were left alone. copy: of a baseline. Destroyed at certification, hence empty or
    None then: manifest_before, tainted (names of components) and digests of what was made from the samples.
    """

    run: str
    samples: Mapping[str, str]
    train: int
    manifest_before: str | None = None
    tainted: AbstractSet[str] | None = None
    digests: Sequence[str] = ()
    exceptions: Sequence[str] = ()
    copy: MeasuredCopy | None = None


def verify(home: Path, request: str, *, lineage: bool = False, ids: Sequence[str] | None = None) -> Evidence:
    """Compare the run that `request` deleted from with runs that never saw the samples.

    lineage: V5 too, one more cold run. ids: the forgotten samples, once the request's own list is destroyed. Raises
    DeletionError where there is nothing to verify.
    """
    case = case_of(home, request, ids)
    session = open_run_as_resolved(home, case.run)
    if case.copy is None and not session.absent.deleted >= session.whole.ids & case.samples.keys():
        raise DeletionError(f"request {request} deleted other samples, or they were readmitted; it cannot be verified")
    after = _after(session, case.samples) if case.copy is None else case.copy.finding
    resolved = Runs(Store(home)).resolution(session.request.id).ids if case.copy is None else session.stream.ids
    without = session.suppressed | case.samples.keys() | (session.whole.ids - resolved)
    work = cold_run(session, without, case.samples)
    extra = [with_replaced(work, case.samples)] if lineage else []
    first, second, *third = oracles([work, work, *extra])
    checks = Checks(
        v1=_oracles_agree(first, second),
        v2=_bytes_agree(after, first, case.copy is not None or _is_served(home, case.run, after)),
        v3=OutputsAgree(after.outputs == first.outputs, len(first.outputs), first.rows),
        v4=_run_differed(first, case),
        v5=_others_unmoved(after, third[0], case) if third else None,
        v6=_nothing_left(home, session, case) if case.copy is None else CopyClean(case.copy.left == 0, case.copy.left),
        environment=_same_environment(session, first),
    )
    evidence = Evidence(request, checks, after.manifest, first.manifest)
    _record(home, evidence, first)
    return evidence


def case_of(home: Path, request: str, ids: Sequence[str] | None) -> Case:
    """What the request was about: from the vault, or with the ids that the caller has kept."""
    records = Ledger(home).known(request)
    now = state(records)
    if now not in VERIFIABLE:
        raise DeletionError(f"request {request} is {now}; {NOTHING.get(now, 'execute it to the end first')}")
    vault = Vault(home)
    if ids is None or vault.holds(request):
        return known_case(read_dossier(vault, request))
    received, resolved = needed(records, Received), needed(records, Resolved)
    if received.method != "exact":
        raise DeletionError(f"what request {request} measured on a copy was destroyed with the samples it names")
    session = open_run(home, received.run)
    return Case(received.run, _recalled(session, request, resolved.samples, set(ids)), resolved.train)


def known_case(dossier: Dossier) -> Case:
    return Case(
        run=dossier.order.run,
        samples={name: one.content for name, one in dossier.forgotten.samples.items()},
        train=dossier.forgotten.train,
        manifest_before=dossier.before.manifest,
        tainted=frozenset(dossier.taint.names),
        digests=(*dossier.taint.digests, *dossier.forgotten.traces.marks),
        exceptions=dossier.exceptions,
        copy=dossier.copy,
    )


def _recalled(session: Session, request: str, count: int, ids: AbstractSet[str]) -> dict[str, str]:
    """The samples of a certified request, as the caller has kept their ids: id -> content digest, empty where the
    source has lost the sample since. Raises DeletionError if they are not the `count` that were deleted."""
    known = Suppression(session.store.home).deleted_by(request, session.whole)
    others = sorted((ids & session.whole.ids) - known)
    if others:
        raise DeletionError(f"'{shown(others[0])}' is not one of the {count} samples that request {request} deleted")
    if len(ids) != count or not known <= ids:
        raise DeletionError(f"request {request} deleted {count} samples; the {len(ids)} given are not those")
    pairs = [pair for one in shards_with(session.whole, known) for pair in zip(one.ids, one.contents, strict=True)]
    return dict.fromkeys(ids, "") | dict(pairs)


def _after(session: Session, forgotten: Mapping[str, str]) -> Finding:
    """The run as the home has it: every live component read back and hashed again."""
    journal = session.drive()
    for _, part in journal.model.parts:
        session.store.load(part.record, part.name)
    return observe(session, journal, forgotten, session.elapsed())


def _is_served(home: Path, run: str, after: Finding) -> bool:
    """Whether the run's live manifest, which says what is served, is that of what was compared."""
    live = Runs(Store(home)).live(run)
    return live is not None and (live.digest, live.components) == (after.manifest, after.components)


def _oracles_agree(oracle: Finding, again: Finding) -> OraclesAgree:
    equal = (oracle.components, oracle.outputs) == (again.components, again.outputs)
    return OraclesAgree(equal, len(oracle.components), round(oracle.seconds, 3))


def _bytes_agree(after: Finding, oracle: Finding, served: bool) -> BytesAgree:
    differing = sorted(
        name for name, digest in oracle.components.items() if after.components.get(name, digest) != digest
    )
    return BytesAgree(
        passed=served and after.components == oracle.components,
        served=served,
        components=len(oracle.components),
        names_differ=len(oracle.components.keys() ^ after.components.keys()),
        bytes_differ=len(differing),
        first=tuple(differing[:EXAMPLES]),
    )


def _run_differed(oracle: Finding, case: Case) -> RunDiffered:
    before = case.manifest_before
    differed = before is None or before != oracle.manifest or case.train == 0
    return RunDiffered(differed, known=before is not None, trained_on=case.train)


def _others_unmoved(after: Finding, altered_run: Finding, case: Case) -> OthersUnmoved:
    """Components outside the closure do not change with the content of the forgotten samples."""
    if case.tainted is None:
        raise DeletionError("V5 needs the tainted closure, which was destroyed at certification; leave out --lineage")
    outside = sorted(name for name in after.components if not case.tainted & {name, name.rpartition("/")[0]})
    moved = [name for name in outside if altered_run.components.get(name) != after.components[name]]
    return OthersUnmoved(not moved, len(outside), len(moved), tuple(moved[:EXAMPLES]))


def _nothing_left(home: Path, session: Session, case: Case) -> NothingLeft:
    found = residue_of(home, session, case)
    excepted = [hit for hit in found.hits if _is_excepted(hit, session, case.exceptions)]
    others = [f"{hit.kind} in {hit.path}" for hit in found.hits if hit not in excepted]
    hits, in_excepted = (sum(hit.count for hit in some) for some in (found.hits, excepted))
    return NothingLeft(not others, hits, in_excepted, tuple(others[:EXAMPLES]), found.searched, found.not_searched)


def residue_of(home: Path, session: Session, case: Case) -> Residue:
    """What is left of the request's samples in the home."""
    gone = shards_with(session.whole, case.samples)
    rest = shards_with(session.whole, session.whole.ids - case.samples.keys())
    return residue(home, session.whole.name, case.samples, gone, case.digests, rest)


def _is_excepted(hit: Hit, session: Session, exceptions: Sequence[str]) -> bool:
    """Whether the file belongs to a run that the request left alone (scope `run`)."""
    store, runs = session.store, Runs(session.store)
    lives = [live for run in exceptions if (live := runs.live(run)) is not None]
    keys = {key for live in lives for key in live.keys}
    if any(hit.path.startswith(f"runs/{run}/") for run in exceptions):
        return True
    stem = Path(hit.path).name.partition(".")[0]
    reads = {one["digest"] for key in keys if (record := store.find(key)) is not None for one in record.reads}
    return stem in keys or (hit.path.startswith("shards/") and stem in reads)


def _same_environment(session: Session, oracle: Finding) -> SameEnvironment:
    """The oracle's machine and libraries against those of every component of the run."""
    live = Runs(session.store).live(session.request.id)
    records = [record for key in (live.keys if live else ()) if (record := session.store.find(key)) is not None]
    others = [r for r in records if (r.fingerprint, r.numerics) != (oracle.fingerprint, oracle.numerics)]
    return SameEnvironment(not others, len(records), len(others), oracle.fingerprint)


def _record(home: Path, evidence: Evidence, oracle: Finding) -> None:
    """Only what is free of a trace is `verified`; the rest has failed."""
    kind = Refuted if evidence.grade == "X" else Verified
    ledger = Ledger(home)
    if state(ledger.of(evidence.request)) != "certified":
        event = kind(
            grade=evidence.grade,
            checks=evidence.checks.passed,
            details=evidence.checks.as_json(examples=False),
            manifest_after=evidence.manifest_after,
            manifest_oracle=evidence.manifest_oracle,
            oracle_seconds=f"{oracle.seconds:.3f}",
        )
        append(ledger, evidence.request, event)
