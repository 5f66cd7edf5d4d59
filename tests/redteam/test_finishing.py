"""A deletion can always be finished, and says what is so when it cannot go the usual way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cl.audit.certificate import certify
from cl.audit.checks import Checks
from cl.audit.verification import verify
from cl.deletion.receipts import check_receipt, read_receipt, receipt_for, written
from cl.deletion.steps import Deletion
from cl.errors import DeletionError, PalimpsestError
from cl.home.ledger import Ledger
from cl.home.runs import Runs
from cl.home.store import Store
from cl.running.grants import Grants
from cl.testing import tiny_stream
from tests.deleting import forget
from tests.photos import everything, forgotten, learnt, photographed
from tests.tiny import run_tiny

GONE = "train/cat/1.png"


class Interrupted(Exception):
    """The process ends here."""


def interrupted_in_build(home: Path, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(self: Deletion) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Deletion, "_build", die)
        with pytest.raises(Interrupted):
            forgotten(home, run, ("sample", GONE))


def test_it_ends_though_the_run_was_made_anew_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between planning and building the run is repeated with another number of threads: nothing can be compared."""
    home, stream = tmp_path / "home", photographed(tmp_path)
    run = learnt(home, stream, "ease").id
    interrupted_in_build(home, run, monkeypatch)
    run_tiny(home, "ease", stream=str(stream), threads=2)  # type: ignore[arg-type]
    outcome = forgotten(home, run, ("sample", GONE))
    assert outcome.state == "purged" and "all of the run was built again" in outcome.notes[0]
    assert GONE.encode() not in everything(home)
    assert verify(home, outcome.request).grade == "E0"


def test_interrupted_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    run = learnt(home, photographed(tmp_path), "ease").id
    interrupted_in_build(home, run, monkeypatch)
    outcome = forgotten(home, run, ("sample", GONE))
    assert outcome.state == "purged" and outcome.notes == ()


def test_a_revocation_does_not_block_a_deletion_from_the_view(tmp_path: Path) -> None:
    stream = tiny_stream()
    run = run_tiny(tmp_path, "simplecil", user="bob").id
    before = Runs(Store(tmp_path)).resolution(run)
    Grants(tmp_path).change(Store(tmp_path), stream, [("bob", "ward-b", False)])
    mine = next(row.id for row in before.rows if row.access == ("ward-a",))
    outcome = forget(tmp_path, run, ("sample", mine))
    left = Runs(Store(tmp_path)).resolution(run)
    assert outcome.state == "purged" and mine not in left.ids
    assert all("ward-a" in row.access for row in left.rows)
    assert verify(tmp_path, outcome.request).grade == "E0"


def test_what_is_not_exact_is_signed_on_demand_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    run = learnt(home, photographed(tmp_path)).id
    request = forgotten(home, run, ("sample", "train/cat/0.png")).request
    monkeypatch.setattr(Checks, "grade", property(lambda self: "A"))
    verify(home, request)
    with pytest.raises(DeletionError, match="nothing exact was proved"):
        certify(home, request)
    path = certify(home, request, "A")
    page = path.with_suffix(".html").read_text(encoding="utf-8")
    first = page.index("does not certify an exact deletion")
    assert first < page.index('<div class="verdict">')


def test_a_receipt_opens_its_commitment_and_no_other(tmp_path: Path) -> None:
    home = tmp_path / "home"
    run = learnt(home, photographed(tmp_path)).id
    outcome = forgotten(home, run, ("subject", "person-1"), ("subject", "person-2"))
    receipts = {who: receipt_for(home, outcome.request, who) for who in ("person-1", "person-2")}
    path = tmp_path / "receipt.json"
    path.write_text(written(receipts["person-1"]), encoding="utf-8")
    verify(home, outcome.request)
    certify(home, outcome.request)
    check_receipt(read_receipt(path), Ledger(home).verify())
    for lie in ({"subject": "person-3"}, {"nonce": "00" * 16}, {"samples": []}, {"request": "abc"}):
        path.write_text(json.dumps({**json.loads(written(receipts["person-1"])), **lie}), encoding="utf-8")
        with pytest.raises(PalimpsestError):
            check_receipt(read_receipt(path), Ledger(home).verify())
    with pytest.raises(DeletionError, match="known no more"):
        receipt_for(home, outcome.request, "person-2")


def test_the_ledger_tells_nobody_who_was_meant(tmp_path: Path) -> None:
    """Whoever has ledger and candidates, but no nonce, cannot open a commitment."""
    home = tmp_path / "home"
    run = learnt(home, photographed(tmp_path)).id
    outcome = forgotten(home, run, ("subject", "person-1"))
    text = (home / "audit" / "ledger.jsonl").read_text()
    receipt = receipt_for(home, outcome.request, "person-1")
    assert receipt.commitment in text and receipt.nonce not in text and "person-1" not in text
