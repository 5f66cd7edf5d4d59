"""Verification: the run after a deletion against the cold oracle, check by check, and the grade that follows.

V1  two oracles are equal                               (else nothing could be compared)
V2  names and bytes of the run, and those of its live manifest, are the oracle's
V3  so are its outputs on test sets, forgotten samples and noise
V4  the run before the deletion was another one         (else nothing was tested)
V5  with other content in place of the forgotten samples, nothing outside the tainted closure changes
V6  nothing is left of the samples in the home
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cl.audit.residue import Hit, residue
from cl.deletion.ledger import Ledger, body, state
from cl.deletion.oracle import Finding, altered, observe, oracles, picked, task
from cl.deletion.vault import Vault
from cl.errors import DeletionError, shown
from cl.home.runs import Runs
from cl.home.store import Store
from cl.running.rerun import open_run
from cl.running.session import Session

Grade = Literal["E0", "E1", "E2", "A", "X"]
Checks = dict[str, dict[str, Any]]
NOTHING = {"readmitted": "its samples may come again", "noop": "its samples were deleted before"}  # to check
VERIFIABLE = ("purged", "verified", "failed", "certified")


@dataclass(frozen=True)
class Evidence:
    """What verification found."""

    request: str
    grade: Grade
    checks: Checks
    manifest_after: str
    manifest_oracle: str

    def as_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


def verify(home: Path, request: str, *, lineage: bool = False, ids: Sequence[str] | None = None) -> Evidence:
    """Compare the run that `request` deleted from with runs that never saw the samples.

    lineage: V5 too, one more cold run. ids: the forgotten samples, once the request's own list is destroyed. Raises
    DeletionError where there is nothing to verify.
    """
    content = content_of(home, request, ids)
    session = open_run(home, content["run"])
    forgotten, exact = content["samples"], content["method"] == "exact"
    if exact and not session.suppressed.issuperset(session.whole.ids & forgotten.keys()):
        raise DeletionError(f"request {request} deleted other samples, or they were readmitted; it cannot be verified")
    after = _after(session, forgotten) if exact else Finding(**content["finding"])
    work = task(session, session.suppressed | set(forgotten), forgotten)
    extra = [altered(work, forgotten)] if lineage else []
    first, second, *third = oracles([work, work, *extra])
    served = not exact or _is_served(home, content["run"], after)
    checks = _compared(after, first, second, content, served)
    if third:
        checks["V5"] = _unmoved(after, third[0], content)
    checks["V6"] = _left(home, session, content) if exact else _kept(content)
    checks["environment"] = _same_environment(session, first)
    evidence = Evidence(request, grade_of(checks), checks, after.manifest, first.manifest)
    _record(home, evidence, first)
    return evidence


def grade_of(checks: Checks) -> Grade:
    """E0 if everything holds. Another machine than the run's never gives E0. What still has a trace of the samples, or
    cannot be compared at all, is not deleted: X. Anything else is no better than approximate: A."""
    passed = {name: bool(check["passed"]) for name, check in checks.items()}
    if not (passed["V1"] and passed["V4"] and passed["V6"] and passed.get("V5", True)):
        return "X"
    if passed["V2"] and passed["V3"]:
        return "E0" if passed["environment"] else "E1"
    other = checks["V2"]["names_differ"] or not checks["V2"]["served"]
    return "A" if passed["environment"] or other else "E1"


def content_of(home: Path, request: str, ids: Sequence[str] | None) -> dict[str, Any]:
    """What the request was about: from the vault, or with the ids that the caller has kept."""
    records = Ledger(home).known(request)
    now = state(records)
    if now not in VERIFIABLE:
        raise DeletionError(f"request {request} is {now}; {NOTHING.get(now, 'execute it to the end first')}")
    vault = Vault(home)
    if ids is None or vault.holds(request):
        return vault.get(request)
    received, resolved = body(records, "received"), body(records, "resolved")
    assert received is not None and resolved is not None
    if received["method"] != "exact":
        raise DeletionError(f"what request {request} measured on a copy was destroyed with the samples it names")
    session = open_run(home, received["run"])
    return {
        "run": received["run"],
        "method": received["method"],
        "samples": _recalled(session, request, resolved["samples"], set(ids)),
        "train": resolved["train"],
        "manifest_before": None,
        "digests": [],
        "tainted_names": None,
        "exceptions": [],
    }


def _recalled(session: Session, request: str, count: int, ids: AbstractSet[str]) -> dict[str, str]:
    """The samples of a certified request, as the caller has kept their ids: id -> content digest, empty where the
    source has lost the sample since. Raises DeletionError if they are not the `count` that were deleted."""
    held = session.suppression.deleted_by(request, session.whole)
    others = sorted((ids & session.whole.ids) - held)
    if others:
        raise DeletionError(f"'{shown(others[0])}' is not one of the {count} samples that request {request} deleted")
    if len(ids) != count or not held <= ids:
        raise DeletionError(f"request {request} deleted {count} samples; the {len(ids)} given are not those")
    pairs = [pair for one in picked(session.whole, held) for pair in zip(one.ids, one.contents, strict=True)]
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
    return live is not None and (live.manifest["manifest"], live.components) == (after.manifest, after.components)


def _compared(after: Finding, oracle: Finding, again: Finding, content: Mapping[str, Any], served: bool) -> Checks:
    differing = sorted(
        name for name, digest in oracle.components.items() if after.components.get(name, digest) != digest
    )
    names = len(oracle.components.keys() ^ after.components.keys())
    before = content["manifest_before"]
    return {
        "V1": {
            "passed": (oracle.components, oracle.outputs) == (again.components, again.outputs),
            "components": len(oracle.components),
            "seconds": round(oracle.seconds, 3),
        },
        "V2": {
            "passed": served and after.components == oracle.components,
            "served": served,
            "components": len(oracle.components),
            "names_differ": names,
            "bytes_differ": len(differing),
            "first": differing[:3],
        },
        "V3": {
            "passed": after.outputs == oracle.outputs,
            "probes": len(oracle.outputs),
            "rows": oracle.rows,
        },
        "V4": {
            "passed": before is None or before != oracle.manifest or content["train"] == 0,
            "known": before is not None,
            "trained_on": content["train"],
        },
    }


def _unmoved(after: Finding, altered_run: Finding, content: Mapping[str, Any]) -> dict[str, Any]:
    """Components outside the closure do not change with the content of the forgotten samples."""
    if content["tainted_names"] is None:
        raise DeletionError("V5 needs the tainted closure, which was destroyed at certification; leave out --lineage")
    tainted = set(content["tainted_names"])
    outside = sorted(name for name in after.components if not tainted & {name, name.rpartition("/")[0]})
    moved = [name for name in outside if altered_run.components.get(name) != after.components[name]]
    return {"passed": not moved, "outside": len(outside), "moved": len(moved), "first": moved[:3]}


def _left(home: Path, session: Session, content: Mapping[str, Any]) -> dict[str, Any]:
    hits = residue_of(home, session, content)
    excepted = [hit for hit in hits if _is_excepted(hit, session, content["exceptions"])]
    return {
        "passed": len(hits) == len(excepted),
        "hits": sum(hit.count for hit in hits),
        "excepted": sum(hit.count for hit in excepted),
        "first": [f"{hit.kind} in {hit.path}" for hit in hits if hit not in excepted][:3],
    }


def _kept(content: Mapping[str, Any]) -> dict[str, Any]:
    """For a baseline: how much of what the copy serves was made from the samples."""
    return {"passed": content["left"] == 0, "components": content["left"]}


def residue_of(home: Path, session: Session, content: Mapping[str, Any]) -> list[Hit]:
    """What is left of the request's samples in the home."""
    pixels = picked(session.whole, content["samples"])
    return residue(home, content["samples"], pixels, content["digests"])


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


def _same_environment(session: Session, oracle: Finding) -> dict[str, Any]:
    """The oracle's machine and libraries against those of every component of the run."""
    live = Runs(session.store).live(session.request.id)
    records = [record for key in (live.keys if live else ()) if (record := session.store.find(key)) is not None]
    others = [r for r in records if (r.fingerprint, r.numerics) != (oracle.fingerprint, oracle.numerics)]
    return {"passed": not others, "components": len(records), "elsewhere": len(others), **oracle.fingerprint}


def _record(home: Path, evidence: Evidence, oracle: Finding) -> None:
    """Only what is free of a trace is `verified`; the rest has failed."""
    checks = {name: bool(check["passed"]) for name, check in evidence.checks.items()}
    found = {
        "grade": evidence.grade,
        "checks": checks,
        "details": without_examples(evidence.checks),
        "manifest_after": evidence.manifest_after,
        "manifest_oracle": evidence.manifest_oracle,
        "oracle_seconds": f"{oracle.seconds:.3f}",
    }
    ledger = Ledger(home)
    if state(ledger.of(evidence.request)) != "certified":
        ledger.append("failed" if evidence.grade == "X" else "verified", evidence.request, found)


def without_examples(checks: Checks) -> Checks:
    """The checks with their numbers alone: what a record may hold."""
    return {name: {key: value for key, value in one.items() if key != "first"} for name, one in checks.items()}
