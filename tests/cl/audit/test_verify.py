"""Verification in new processes: what passes, and that each check can fail."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import rfc8785
import torch
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from typer.testing import CliRunner

import cl.audit.verification
from cl.audit.certificate import certify, place
from cl.audit.checks import (
    BytesAgree,
    Checks,
    CopyClean,
    OraclesAgree,
    OthersUnmoved,
    OutputsAgree,
    RunDiffered,
    SameEnvironment,
)
from cl.audit.evidence import check_home
from cl.audit.verification import case_of, verify
from cl.cli import app
from cl.components.builder import builds
from cl.components.handles import Handle
from cl.data.samples import Samples
from cl.data.stream import Task
from cl.deletion.execution import execute
from cl.deletion.forget_set import Kind, Selector
from cl.deletion.keeping_out import readmit
from cl.deletion.oracle import ColdRun, Finding, cold_run, observe, run_cold
from cl.deletion.vault import Vault
from cl.errors import DeletionError, LedgerError
from cl.home.ledger import Ledger
from cl.home.store import Tensors
from cl.parts.prototypes import class_means
from cl.testing import tiny_stream
from strategies.simplecil import SimpleCIL
from tests.deleting import forget, oracle, start, started
from tests.tiny import run_tiny

SEEN: dict[str, float] = {}  # what the planted strategy reads without saying so


@builds("cache")
def leaking_features(features: Tensors) -> Tensors:
    return {"features": features["features"] + SEEN["first"]}


class Leaking(SimpleCIL):
    """SimpleCIL whose features are shifted by a pixel of the first task, reached through a global."""

    def learn(self, task: Task, model: Any) -> dict[str, Handle]:
        SEEN.setdefault("first", float(task.train.images()[:, :, 9:12].float().mean()))
        features = self.component("leaking", leaking_features, self.features(task.train))
        means = self.component("means", class_means, task.train.plain, features, classes=list(task.classes))
        return {f"{task.id}/prototypes": means}


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Oracles in this process, on empty homes: quick."""

    def cold(works: list[ColdRun]) -> list[Finding]:
        found = []
        for work in works:
            SEEN.clear()
            found.append(run_cold(work, tmp_path_factory.mktemp("cold")))
        return found

    monkeypatch.setattr(cl.audit.verification, "oracles", cold)


def test_the_whole_way_on_the_command_line(tmp_path: Path) -> None:
    """New processes, certificate, ledger, and what can be known afterwards."""
    run_id, home = started(tmp_path / "home", "ease"), str(tmp_path / "home")
    ids = tmp_path / "ids.txt"
    ids.write_text("t1/c0/1\nt2/c1/3\n")
    done = call("forget", "execute", run_id, "--ids-file", str(ids), "--yes", "--json", "--home", home)
    assert list(done) == [
        "request", "state", "forgotten", "tainted", "rebuilt", "reused", "purged", "seconds", "predicted_seconds",
        "full_retrain_seconds", "manifest_before", "manifest_after", "components_after",
    ]  # fmt: skip
    request = done["request"]
    checked = call("forget", "verify", request, "--lineage", "--json", "--home", home)
    assert list(checked) == ["request", "grade", "checks", "manifest_after", "manifest_oracle"]
    assert checked["grade"] == "E0" and all(check["passed"] for check in checked["checks"].values())
    assert checked["manifest_after"] == checked["manifest_oracle"] == done["manifest_after"]
    assert (
        CliRunner().invoke(app, ["forget", "certify", request, "--out", str(tmp_path), "--home", home]).exit_code == 0
    )
    page = (tmp_path / f"certificate-{request}.html").read_text()
    assert "E0" in page and "://" not in page and "t1/c0/1" not in page
    assert call("ledger", "verify", "--json", "--home", home)["anchors"] == 1
    assert call("forget", "status", request, "--json", "--home", home)["state"] == "certified"
    with pytest.raises(DeletionError, match="--ids-file"):
        verify(Path(home), request)
    assert call("residue", request, "--ids-file", str(ids), "--json", "--home", home)["hits"] == []


def call(*words: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_off_a_terminal_nothing_is_deleted_without_yes(tmp_path: Path) -> None:
    run_id = started(tmp_path, "simplecil")
    result = CliRunner().invoke(app, ["forget", "execute", run_id, "--task", "t0", "--home", str(tmp_path)])
    assert "add --yes" in str(result.exception)
    assert Ledger(tmp_path).records() == []


@pytest.mark.usefixtures("warm")
def test_a_hidden_read_is_caught(tmp_path: Path) -> None:
    SEEN.clear()
    run_id = run_tiny(tmp_path, Leaking).id
    SEEN.clear()
    outcome = forget(tmp_path, run_id, ("sample", "t0/c0/1"))
    evidence = verify(tmp_path, outcome.request, lineage=True)
    assert evidence.grade == "X"
    assert not evidence.checks.v5.passed and evidence.checks.v5.first  # type: ignore[union-attr]
    with pytest.raises(DeletionError, match="failed"):
        certify(tmp_path, outcome.request)


@pytest.mark.usefixtures("warm")
def test_a_trace_that_survived_is_grade_x(tmp_path: Path) -> None:
    run_id = started(tmp_path, "simplecil")
    outcome = forget(tmp_path, run_id, ("sample", "t0/c0/1"))
    (tmp_path / "log.txt").write_text('worked on "t0/c0/1"')
    assert verify(tmp_path, outcome.request).grade == "X"
    (tmp_path / "log.txt").unlink()
    assert verify(tmp_path, outcome.request).grade == "E0"


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (["t0/c0/1"], "deleted 2 samples; the 1 given"),
        (["t0/c0/1", "t0/c0/111"], "deleted 2 samples; the 2 given"),
        (["t0/c0/1", "t0/c0/3"], "'t0/c0/3' is not one of the 2"),
    ],
)
def test_once_certified_only_the_very_samples_will_do(tmp_path: Path, kept: list[str], said: str) -> None:
    """Of a wrong list nothing would be left, whatever is."""
    certified = certified_deletion(tmp_path)
    with pytest.raises(DeletionError, match=said):
        verify(tmp_path, certified, ids=kept)
    assert verify(tmp_path, certified, ids=["t0/c0/1", "t0/c0/2"]).grade == "E0"


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("first", [True, False])
def test_samples_that_the_source_has_lost_since_are_still_searched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """Whoever deletes takes the files away where they came from, too: before or after the certificate."""
    request = forget(tmp_path, started(tmp_path, "simplecil"), *PAIR).request
    ids = None if first else ["t0/c0/1", "t0/c0/2"]
    if not first:
        verify(tmp_path, request)
        certify(tmp_path, request)
    rest = tiny_stream().without({"t0/c0/1", "t0/c0/2"})
    monkeypatch.setattr("cl.running.reopening.resolve_stream", lambda recipe, home: rest)
    assert verify(tmp_path, request, ids=ids).grade == "E0"
    (tmp_path / "log.txt").write_text('worked on "t0/c0/2"')
    assert verify(tmp_path, request, ids=ids).checks.v6.hits == 1  # type: ignore[union-attr]


PAIR: tuple[tuple[Kind, str], ...] = (("sample", "t0/c0/1"), ("sample", "t0/c0/2"))


def certified_deletion(home: Path) -> str:
    request = forget(home, started(home, "simplecil"), *PAIR).request
    assert verify(home, request).grade == "E0"
    certify(home, request)
    return request


@pytest.mark.usefixtures("warm")
def test_a_certificate_can_be_checked_without_the_home(tmp_path: Path) -> None:
    text = place(tmp_path, certified_deletion(tmp_path)).read_bytes()
    content = json.loads(text)
    assert rfc8785.dumps(content) == text
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(content["public_key"]))
    told = text.replace(b',"signature":"' + content["signature"].encode() + b'"', b"")
    key.verify(bytes.fromhex(content["signature"]), told)
    with pytest.raises(InvalidSignature):
        key.verify(bytes.fromhex(content["signature"]), told.replace(b'"E0"', b'"E1"'))


@pytest.mark.usefixtures("warm")
def test_a_name_that_is_not_utf_8_does_not_stop_a_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_ACTOR", "caf\udce9")
    text = place(tmp_path, certified_deletion(tmp_path)).read_bytes()
    assert json.loads(text)["responsible"] == "caf?" and check_home(tmp_path)


@pytest.mark.usefixtures("warm")
def test_a_verified_ledger_that_was_edited_gets_no_certificate(tmp_path: Path) -> None:
    request = forget(tmp_path, started(tmp_path, "simplecil"), ("sample", "t0/c0/1")).request
    verify(tmp_path, request)
    ledger = tmp_path / "audit" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b'"grade":"E0"', b'"grade":"E1"'))
    with pytest.raises(LedgerError, match="was edited"):
        certify(tmp_path, request)
    assert not place(tmp_path, request).exists()


@pytest.mark.usefixtures("warm")
def test_what_a_baseline_measured_is_not_asked_for_again(tmp_path: Path) -> None:
    run_id = started(tmp_path, "ease")
    measured = execute(tmp_path, run_id, [Selector("task", "t1")], method="drop").request
    with pytest.raises(DeletionError, match="on a copy"):
        readmit(tmp_path, measured)
    deleted = forget(tmp_path, run_id, ("task", "t1")).request
    ids = sorted(case_of(tmp_path, deleted, None).samples)
    verify(tmp_path, deleted)
    certify(tmp_path, deleted)
    with pytest.raises(DeletionError, match="on a copy"):
        verify(tmp_path, measured, ids=ids)


@pytest.mark.usefixtures("warm")
def test_another_machine_is_never_e0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = started(tmp_path, "simplecil")
    outcome = forget(tmp_path, run_id, ("sample", "t0/c0/1"))
    cold = cl.audit.verification.oracles
    elsewhere = {"cpu": "another"}
    monkeypatch.setattr(
        cl.audit.verification, "oracles", lambda tasks: [replace(one, fingerprint=elsewhere) for one in cold(tasks)]
    )
    assert verify(tmp_path, outcome.request).grade == "E1"


@pytest.mark.usefixtures("warm")
def test_a_run_changed_after_verification_is_not_certified(tmp_path: Path) -> None:
    run_id = started(tmp_path, "simplecil")
    outcome = forget(tmp_path, run_id, ("sample", "t0/c0/1"))
    assert verify(tmp_path, outcome.request).grade == "E0"
    forget(tmp_path, run_id, ("sample", "t0/c0/2"))
    with pytest.raises(DeletionError, match="verify it again"):
        certify(tmp_path, outcome.request)
    readmit(tmp_path, outcome.request)
    with pytest.raises(DeletionError, match="is readmitted; its samples may come again"):
        verify(tmp_path, outcome.request)
    assert not Vault(tmp_path).holds(outcome.request)


@pytest.mark.usefixtures("warm")
@pytest.mark.usefixtures("warm")
def test_a_manifest_that_serves_something_else_is_no_exact_deletion(tmp_path: Path) -> None:
    request = forget(tmp_path, run_id := started(tmp_path, "simplecil"), ("sample", "t0/c0/1")).request
    path = tmp_path / "runs" / run_id / "manifest.json"
    path.write_text(path.read_text().replace('"digest":"', '"digest":"0'))
    found = verify(tmp_path, request)
    assert found.grade == "A" and not found.checks.v2.served and found.checks.v3.passed
    with pytest.raises(DeletionError, match="has changed"):
        certify(tmp_path, request, "A")
    assert run_tiny(tmp_path, "simplecil").id == run_id
    assert verify(tmp_path, request).grade == "E0" and certify(tmp_path, request).exists()


def test_scope_run_lists_the_other_run_and_still_verifies(tmp_path: Path) -> None:
    run_id = started(tmp_path, "ease")
    start(tmp_path, "simplecil")
    outcome = forget(tmp_path, run_id, ("sample", "t1/c0/1"), scope="run")
    evidence = verify(tmp_path, outcome.request)
    assert (evidence.grade, evidence.checks.v6.excepted > 0) == ("E0", True)


def test_the_oracle_sees_no_old_store_and_the_outputs_cover_what_was_forgotten(tmp_path: Path) -> None:
    run_id = started(tmp_path / "home", "simplecil")
    session, _ = oracle(tmp_path / "home", run_id, {"t0/c0/1"}, tmp_path / "cold")
    finding = observe(session, session.drive(), {"t0/c0/1"}, 0.0)
    assert set(finding.outputs) == {"test of t0", "test of t1", "test of t2", "forgotten 0", "noise"}
    with pytest.raises(DeletionError, match="not empty"):
        run_cold(cold_run(session, (), ()), tmp_path / "cold")


@pytest.mark.parametrize(
    ("failing", "grade"),
    [((), "E0"), (("environment",), "E1"), (("V2",), "A"), (("V3",), "A"), (("V1",), "X"), (("V4",), "X"),
     (("V5",), "X"), (("V6",), "X"), (("V2", "environment"), "E1"), (("V6", "environment"), "X")],
)  # fmt: skip
def test_grades(failing: tuple[str, ...], grade: str) -> None:
    def held(name: str) -> bool:
        return name not in failing

    checks = Checks(
        v1=OraclesAgree(held("V1"), 1, 0.0),
        v2=BytesAgree(held("V2"), True, 1, 0, 0, ()),
        v3=OutputsAgree(held("V3"), 1, 1),
        v4=RunDiffered(held("V4"), True, 1),
        v5=OthersUnmoved(held("V5"), 1, 0, ()),
        v6=CopyClean(held("V6"), 0),
        environment=SameEnvironment(held("environment"), 1, 0, {}),
    )
    assert checks.grade == grade


def test_noise_replaces_the_pixels_of_the_forgotten_alone() -> None:
    from cl.deletion.oracle import with_noise

    before, after = (tiny_stream().tasks[0].train, with_noise(tiny_stream(), {"t0/c0/1"}).tasks[0].train)
    changed = [a != b for a, b in zip(before.contents, after.contents, strict=True)]
    assert [one for one, differs in zip(before.ids, changed, strict=True) if differs] == ["t0/c0/1"]
    rows = (before.images() != after.images()).flatten(1).any(1)
    assert torch.equal(rows, torch.tensor(changed))
    assert isinstance(after, Samples)
