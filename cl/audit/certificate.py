"""The certificate of a deletion: what was asked, done and found, signed. It names no sample and no digest of one.

The file is in the canonical form of RFC 8785, and the signature over that form of everything else in it, so that anyone
can check a copy with the tools of any language.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rfc8785

from cl import registry
from cl.audit.checks import Grade
from cl.deletion.dossier import Dossier, read_dossier
from cl.deletion.events import Built, Certified, Purged, Received, Resolved, Verified, append, needed, step_seconds
from cl.deletion.graph import ComponentGraph
from cl.deletion.purge import clear_temporaries
from cl.deletion.vault import Vault
from cl.documents import plain, typed
from cl.errors import DeletionError, LedgerError
from cl.home.keys import keyed, public_key, sign, signed
from cl.home.ledger import Ledger, LedgerRecord, as_utf8, state
from cl.home.runs import Runs
from cl.home.store import Store
from cl.home.writing import write_atomic

NOT_COVERED = (
    "what the backbone was pretrained on",
    "predictions, figures and pages that left the home before the deletion",
    "copies of the model or of the data that somebody else holds, and backups of the home",
    "bytes that a file system or a disk keeps after a file is removed",
)
SIGNED = ("E0", "E1", "A")  # from the best
GRADES = {
    "E0": "bit-exact: a run that never saw the samples, made cold in new processes, gives the same bytes",
    "E1": "exact by construction, not compared byte for byte: the machine or its libraries differ",
    "A": "nothing exact was proved: the model is not the one that would be without the samples",
}


@dataclass(frozen=True)
class Emptied:
    """How many classes and tasks lost all their training samples."""

    classes: int
    tasks: int


@dataclass(frozen=True)
class Manifests:
    """Digests of the run's manifest before (under the request's key), after, and of the oracle's."""

    before: str
    after: str
    oracle: str


@dataclass(frozen=True)
class ComponentCounts:
    """Components of the run."""

    tainted: int
    rebuilt: int
    reused: int


@dataclass(frozen=True)
class Cost:
    """Seconds by step and in all, as foretold and as they were; see `cl.deletion.plan.DeletionPlan` for the rest."""

    predicted_seconds: float
    seconds: float
    steps: Mapping[str, float]
    full_retrain_seconds: float
    oracle_seconds: float
    blast_radius: Mapping[str, float]
    amplification: float


@dataclass(frozen=True)
class Certificate:
    """What a certificate says, all but its signature.

    seed: of 64 bits, hence a text: numbers of RFC 8785 have 53. public_key: for who checks a copy without the home.
    """

    request: str
    run: str
    strategy: str
    stream: str
    seed: str
    received: str
    verified: str
    responsible: str
    reason: str
    method: str
    scope: str
    selectors: tuple[str, ...]
    samples: int
    train: int
    test: int
    commitment: str
    emptied: Emptied
    grade: str
    meaning: str
    checks: Mapping[str, Mapping[str, Any]]
    manifest: Manifests
    components: ComponentCounts
    purged: Mapping[str, int]
    cost: Cost
    exceptions: tuple[str, ...]
    not_covered: tuple[str, ...]
    stale_runs: int
    raw_data_needed: tuple[str, ...]
    graph: ComponentGraph
    ledger_head: str
    public_key: str
    format: int = 2

    def as_json(self) -> dict[str, Any]:
        return plain(self)


def certify(home: Path, request: str, lowest: Grade = "E1") -> Path:
    """Write and sign the certificate of a verified request, record it once, and destroy what the request was about.

    Returns the certificate's path; its page lies beside it. Certified already: the same certificate again. Raises
    DeletionError for a request that is not verified, whose run has changed since, or of a grade below `lowest`.
    """
    ledger, vault = Ledger(home), Vault(home)
    records = ledger.known(request)
    path = place(home, request)
    with Store(home).locked(exclusive=True):
        clear_temporaries(home)
    if state(records) == "certified":
        if vault.holds(request):  # a crash came between
            _destroy(vault, request)
        vault.destroy(request)
        return path
    if state(records) != "verified":
        raise DeletionError(f"request {request} is {state(records)}; palimpsest forget verify {request} comes first")
    dossier, verified = read_dossier(vault, request), needed(records, Verified)
    run, method = dossier.order.run, dossier.order.method
    if method != "exact":
        raise DeletionError(f"request {request} measured '{method}' on a copy and deleted nothing to certify")
    if SIGNED.index(verified.grade) > SIGNED.index(lowest):
        raise DeletionError(
            f"request {request} was verified {verified.grade}: nothing exact was proved. Find out why "
            f"(palimpsest forget status {request} --json), or sign it as what it is: --grade {verified.grade}"
        )
    live = Runs(Store(home)).live(run)
    if live is None or live.digest != verified.manifest_after:
        raise DeletionError(
            f"run {run} has changed since request {request} was verified; run it again and verify it again"
        )
    certificate = as_utf8(_composed(home, records, dossier).as_json())
    write_atomic(path, rfc8785.dumps({**certificate, "signature": sign(home, rfc8785.dumps(certificate))}))
    _page(path)
    append(ledger, request, Certified(verified.grade, verified.manifest_after))
    _destroy(vault, request)
    return path


def _destroy(vault: Vault, request: str) -> None:
    """Forget what the request was about, and with it what baselines that measured the same samples have kept."""
    samples = read_dossier(vault, request).forgotten.samples.keys()
    for other in vault.requests():
        dossier = read_dossier(vault, other)
        if dossier.order.method != "exact" and not samples.isdisjoint(dossier.forgotten.samples):
            vault.destroy(other)
    vault.destroy(request)


def place(home: Path, request: str) -> Path:
    """Where the certificate of `request` is kept."""
    return home / "audit" / "certificates" / f"{request}.json"


def copy_to(path: Path, folder: Path) -> list[Path]:
    """Copies of the certificate and its page in `folder`."""
    made = []
    for source in (path, path.with_suffix(".html")):
        made.append(folder / f"certificate-{source.name}")
        write_atomic(made[-1], source.read_bytes())
    return made


def anchors(home: Path) -> list[str]:
    """The ledger heads that the home's certificates name. Raises LedgerError for an edited certificate."""
    heads = []
    for path in sorted(place(home, "*").parent.glob("*.json")):
        try:
            content = json.loads(path.read_bytes())
            signature = content.pop("signature")
            form, head = rfc8785.dumps(content), typed(Certificate, content).ledger_head
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LedgerError(f"{path} is not a certificate; put back the one that was there") from error
        if not signed(public_key(home), str(signature), form):
            raise LedgerError(f"{path} was edited: its signature does not hold")
        heads.append(head)
    return heads


def _composed(home: Path, records: Sequence[LedgerRecord], dossier: Dossier) -> Certificate:
    key, named = Vault(home).key(records[0].request), Runs(Store(home)).request(dossier.order.run)
    received, resolved = needed(records, Received), needed(records, Resolved)
    built, purged, verified = needed(records, Built), needed(records, Purged), needed(records, Verified)
    forgotten, forecast, seconds = dossier.forgotten, dossier.forecast, step_seconds(records)
    return Certificate(
        request=records[0].request,
        run=dossier.order.run,
        strategy=named.strategy,
        stream=named.stream.name,
        seed=str(named.seed),
        received=records[0].time,
        verified=next(record.time for record in reversed(records) if record.type == Verified.TYPE),
        responsible=records[-1].actor,
        reason=received.reason,
        method=received.method,
        scope=received.scope,
        selectors=tuple(one.kind for one in received.selectors),
        samples=resolved.samples,
        train=resolved.train,
        test=resolved.test,
        commitment=resolved.commitment,
        emptied=Emptied(forgotten.classes_emptied, forgotten.tasks_emptied),
        grade=verified.grade,
        meaning=GRADES[verified.grade],
        checks=verified.details,
        # The digest of the run before is one of deleted data, hence keyed.
        manifest=Manifests(keyed(key, dossier.before.manifest), verified.manifest_after, verified.manifest_oracle),
        components=ComponentCounts(len(dossier.taint.keys), built.rebuilt, built.reused),
        purged=purged.counts,
        cost=Cost(
            predicted_seconds=round(forecast.predicted_seconds, 3),
            seconds=round(sum(spent for _, spent in seconds), 3),
            steps=dict(seconds),
            full_retrain_seconds=float(built.full_retrain_seconds),
            oracle_seconds=float(verified.oracle_seconds),
            blast_radius=forecast.blast_radius,
            amplification=forecast.amplification,
        ),
        exceptions=tuple(_exceptions(dossier)),
        not_covered=NOT_COVERED,
        stale_runs=len(dossier.stale),
        raw_data_needed=forecast.raw_data_needed,
        graph=dossier.taint.graph,
        ledger_head=Ledger(home).head,
        public_key=public_key(home).hex(),
    )


def _exceptions(dossier: Dossier) -> list[str]:
    """What of the samples is still there under the operator's hand, each with the reason."""
    kept_from = "every run of this home" if dossier.order.scope == "home" else "this run"
    found = [f"the images where they came from: that source is only read; a list keeps them out of {kept_from}"]
    found += [f"run {run} read the samples and was left as it is (scope: run)" for run in dossier.exceptions]
    if dossier.forgotten.kept:
        found.append(f"{len(dossier.forgotten.kept)} identical copies were kept on the operator's word")
    return found


def _page(path: Path) -> None:
    registry.reports.get("certificate").write_certificate(json.loads(path.read_bytes()), path.with_suffix(".html"))
