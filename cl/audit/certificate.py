"""The certificate of a deletion: what was asked, done and found, signed. It names no sample and no digest of one.

The file is in the canonical form of RFC 8785, and the signature over that form of everything else in it, so that anyone
can check a copy with the tools of any language.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rfc8785

from cl import registry
from cl.deletion.ledger import Ledger, body, readable, state
from cl.deletion.purge import clear_temporaries
from cl.deletion.vault import Vault
from cl.errors import DeletionError, LedgerError
from cl.home.keys import keyed, public_key, sign, signed
from cl.home.runs import Runs
from cl.home.store import Store
from cl.home.writing import write_atomic

NOT_COVERED = (
    "what the backbone was pretrained on",
    "predictions, figures and pages that left the home before the deletion",
    "copies of the model or of the data that somebody else holds, and backups of the home",
    "bytes that a file system or a disk keeps after a file is removed",
)
GRADES = {
    "E0": "bit-exact: a run that never saw the samples, made cold in new processes, gives the same bytes",
    "E1": "exact by construction, not compared byte for byte: the machine or its libraries differ",
    "A": "approximate: the model is not the one that would be without the samples",
}


def certify(home: Path, request: str) -> Path:
    """Write and sign the certificate of a verified request, record it once, and destroy what the request was about.

    Returns the certificate's path; its page lies beside it. Certified already: the same certificate again. Raises
    DeletionError for a request that is not verified, or whose run has changed since.
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
    verified = body(records, "verified")
    if state(records) != "verified" or verified is None:
        raise DeletionError(f"request {request} is {state(records)}; palimpsest forget verify {request} comes first")
    content = vault.get(request)
    if content["method"] != "exact":
        raise DeletionError(
            f"request {request} measured '{content['method']}' on a copy and deleted nothing to certify"
        )
    live = Runs(Store(home)).live(content["run"])
    if live is None or live.manifest["manifest"] != verified["manifest_after"]:
        raise DeletionError(
            f"run {content['run']} has changed since request {request} was verified; run it again and verify it again"
        )
    certificate = readable(_compose(home, request, records, content, verified))
    write_atomic(path, rfc8785.dumps({**certificate, "signature": sign(home, rfc8785.dumps(certificate))}))
    _page(path)
    ledger.append("certified", request, {"grade": verified["grade"], "manifest": verified["manifest_after"]})
    _destroy(vault, request)
    return path


def _destroy(vault: Vault, request: str) -> None:
    """Forget what the request was about, and with it what baselines that measured the same samples have kept."""
    samples = vault.get(request)["samples"].keys()
    for other in vault.requests():
        content = vault.get(other)
        if content["method"] != "exact" and not samples.isdisjoint(content["samples"]):
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
            form, head = rfc8785.dumps(content), content["ledger_head"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LedgerError(f"{path} is not a certificate; put back the one that was there") from error
        if not signed(public_key(home), str(signature), form):
            raise LedgerError(f"{path} was edited: its signature does not hold")
        heads.append(str(head))
    return heads


def _compose(
    home: Path,
    request: str,
    records: list[dict[str, Any]],
    content: Mapping[str, Any],
    verified: Mapping[str, Any],
) -> dict[str, Any]:
    run = content["run"]
    named, key = Runs(Store(home)).request(run), Vault(home).key(request)
    received, resolved = body(records, "received") or {}, body(records, "resolved") or {}
    steps = [record for record in records if "seconds" in record["body"] and "step" in record["body"]]
    return {
        "format": 2,
        "request": request,
        "run": run,
        "strategy": named["strategy"],
        "stream": named["stream"]["name"],
        "seed": str(named["seed"]),  # of 64 bits; numbers of RFC 8785 have 53
        "received": records[0]["time"],
        "verified": next(r["time"] for r in reversed(records) if r["type"] == "verified"),
        "responsible": records[-1]["actor"],
        "reason": received.get("reason"),
        "method": received.get("method"),
        "scope": received.get("scope"),
        "selectors": [one["kind"] for one in received.get("selectors", [])],
        "samples": resolved.get("samples"),
        "train": resolved.get("train"),
        "test": resolved.get("test"),
        "commitment": resolved.get("commitment"),
        "emptied": content["emptied"],
        "grade": verified["grade"],
        "meaning": GRADES[verified["grade"]],
        "checks": verified["details"],
        "manifest": {
            "before": keyed(key, content["manifest_before"]),  # a digest of deleted data, hence keyed
            "after": verified["manifest_after"],
            "oracle": verified["manifest_oracle"],
        },
        "components": {
            "tainted": len(content["tainted_keys"]),
            **{name: (body(records, "step_done", "build") or {}).get(name) for name in ("rebuilt", "reused")},
        },
        "purged": {
            name: count for name, count in (body(records, "purged") or {}).items() if name not in ("step", "seconds")
        },
        "cost": {
            "predicted_seconds": round(content["predicted_seconds"], 3),
            "seconds": round(sum(float(step["body"]["seconds"]) for step in steps), 3),
            "steps": {step["body"]["step"]: float(step["body"]["seconds"]) for step in steps},
            "full_retrain_seconds": float((body(records, "step_done", "build") or {}).get("full_retrain_seconds", 0)),
            "oracle_seconds": float(verified["oracle_seconds"]),
            "blast_radius": content["blast_radius"],
            "amplification": content["amplification"],
        },
        "exceptions": _exceptions(content),
        "not_covered": list(NOT_COVERED),
        "stale_runs": len(content["stale"]),
        "raw_data_needed": content["raw_data_needed"],
        "graph": content["graph"],
        "ledger_head": Ledger(home).head,
        "public_key": public_key(home).hex(),  # a copy of the certificate is checked where the home is not
    }


def _exceptions(content: Mapping[str, Any]) -> list[str]:
    """What of the samples is still there under the operator's hand, each with the reason."""
    kept_from = "every run of this home" if content["scope"] == "home" else "this run"
    found = [f"the images where they came from: that source is only read; a list keeps them out of {kept_from}"]
    found += [f"run {run} read the samples and was left as it is (scope: run)" for run in content["exceptions"]]
    if content["twins"]:
        found.append(f"{content['twins']} samples of equal content under other ids were not selected and stay")
    return found


def _page(path: Path) -> None:
    registry.reports.get("certificate").write_certificate(json.loads(path.read_bytes()), path.with_suffix(".html"))
