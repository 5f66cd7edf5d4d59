"""The certificate of a deletion: what was asked, done and found, signed. It names no sample and no digest of one.

The file is in the canonical form of RFC 8785, and the signature over that form of everything else in it, so that anyone
can check a copy with the tools of any language.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rfc8785

from cl import registry
from cl.audit.checks import Grade
from cl.audit.evidence import GRADES, certificates, recorded
from cl.audit.software import Software, software
from cl.deletion.dossier import Dossier, read_dossier
from cl.deletion.events import Certified, Verified, append, needed
from cl.deletion.graph import ComponentGraph
from cl.deletion.purge import clear_temporaries
from cl.deletion.vault import Vault
from cl.digests import digest_bytes, digest_json
from cl.documents import plain, typed
from cl.errors import DeletionError
from cl.home.ledger import Ledger, as_utf8, state
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

    seed: of 64 bits, hence a text: numbers of RFC 8785 have 53. seed_commitment: over run and seed. public_key: for who
    checks a copy without the home. software: of the process that signed.
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
    seed_commitment: str
    software: Software
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
    certificate = as_utf8(_composed(home, request, dossier).as_json())
    write_atomic(path, rfc8785.dumps({**certificate, "signature": ledger.sign(rfc8785.dumps(certificate))}))
    _page(path)
    digests = [digest_bytes(one.read_bytes()) for one in (path, path.with_suffix(".html"))]
    append(ledger, request, Certified(verified.grade, verified.manifest_after, *digests))
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
    return certificates(home) / f"{request}.json"


def copy_to(path: Path, folder: Path) -> list[Path]:
    """Copies of the certificate and its page in `folder`."""
    made = []
    for source in (path, path.with_suffix(".html")):
        made.append(folder / f"certificate-{source.name}")
        write_atomic(made[-1], source.read_bytes())
    return made


def _composed(home: Path, request: str, dossier: Dossier) -> Certificate:
    """What the ledger says, and beside it what only the request's sealed content knows."""
    chain, named = Ledger(home).chain, Runs(Store(home)).request(dossier.order.run)
    said = recorded([one for one in chain.records if one.request == request])
    forgotten, forecast = dossier.forgotten, dossier.forecast
    more = {
        "strategy": named.strategy,
        "stream": named.stream.name,
        "seed": str(named.seed),
        "seed_commitment": digest_json(["seed", dossier.order.run, str(named.seed)]),
        "emptied": plain(Emptied(forgotten.classes_emptied, forgotten.tasks_emptied)),
        "meaning": GRADES[said["grade"]],
        "cost": {**said["cost"], "blast_radius": plain(forecast.blast_radius), "amplification": forecast.amplification},
        "exceptions": _exceptions(dossier),
        "not_covered": list(NOT_COVERED),
        "raw_data_needed": list(forecast.raw_data_needed),
        "graph": plain(dossier.taint.graph),
        "ledger_head": chain.head,
        "public_key": chain.keys[-1].hex(),
        "software": plain(software()),
    }
    return typed(Certificate, {**said, **more})


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
