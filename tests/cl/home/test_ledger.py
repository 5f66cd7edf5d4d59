"""The ledger holds what happened, in order, signed, and never what was deleted."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cl.deletion.dossier import read_dossier
from cl.deletion.oracle import with_noise
from cl.deletion.vault import Vault
from cl.digests import canonical, digest_json
from cl.errors import DeletionError, LedgerError
from cl.home import keys
from cl.home.keys import system_key
from cl.home.ledger import Ledger, LedgerRecord, state
from cl.running.suppression import Suppression
from cl.testing import tiny_stream
from tests.deleting import forget, started


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger")
    forget(folder, started(folder, "simplecil"), ("sample", "t1/c0/1"), ("subject", "person-2"))
    return folder


def path_of(home: Path) -> Path:
    return home / "audit" / "ledger.jsonl"


@settings(max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_any_changed_byte_is_noticed(home: Path, place: float, flip: int) -> None:
    path = path_of(home)
    good = path.read_bytes()
    at = int(place * len(good))
    path.write_bytes(good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
    try:
        with pytest.raises(LedgerError):
            Ledger(home).verify()
    finally:
        path.write_bytes(good)


@pytest.mark.parametrize("edit", ["drop", "swap", "repeat", "chain again"])
def test_lines_that_are_dropped_swapped_repeated_or_chained_again(home: Path, edit: str) -> None:
    path = path_of(home)
    good = path.read_bytes()
    lines = good.decode().splitlines()
    if edit == "drop":
        del lines[2]
    elif edit == "swap":
        lines[1], lines[2] = lines[2], lines[1]
    elif edit == "repeat":
        lines.insert(2, lines[2])
    else:
        last = json.loads(lines[-1])
        last["actor"] = "another"
        last["hash"] = digest_json({k: v for k, v in last.items() if k not in ("hash", "signature")})
        lines[-1] = canonical(last).decode()
    path.write_text("\n".join(lines) + "\n")
    try:
        with pytest.raises(LedgerError, match="was edited"):
            Ledger(home).verify()
    finally:
        path.write_bytes(good)


def test_a_cut_ledger_is_noticed_and_by_who_holds_a_head_even_if_its_own_was_cut_too(home: Path) -> None:
    path, newest, head = path_of(home), path_of(home).with_suffix(".head"), Ledger(home).head
    good = path.read_bytes()
    lines = good.decode().splitlines()[:-1]
    path.write_text("\n".join(lines) + "\n")
    try:
        with pytest.raises(LedgerError, match="was cut"):
            Ledger(home).verify()
        newest.unlink()
        with pytest.raises(LedgerError, match="is missing"):
            Ledger(home).verify()
        newest.write_text(json.loads(lines[-1])["hash"])
        Ledger(home).verify()
        with pytest.raises(LedgerError, match="was cut"):
            Ledger(home).verify([head])
    finally:
        path.write_bytes(good)
        newest.write_text(head)


def test_a_crash_between_record_and_head_is_no_cut(home: Path) -> None:
    newest, head = path_of(home).with_suffix(".head"), Ledger(home).head
    newest.write_text(Ledger(home).records()[-2].hash)
    Ledger(home).verify()
    newest.write_text(head)


def test_records_of_two_writers_at_once_are_all_kept(tmp_path: Path) -> None:
    """A verification that ends while a deletion is journalled must not undo its record, nor break the chain."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: [Ledger(tmp_path).append("planned", f"r{n}", {}) for _ in range(5)], range(4)))
    assert len(Ledger(tmp_path).verify()) == 20


def test_a_key_that_another_process_drew_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what the other one hashed with it, such as the suppression list, would mean nothing any more."""
    drawn = []

    def meanwhile(path: Path) -> None:
        monkeypatch.undo()
        drawn.append(system_key(tmp_path))
        draw(path)

    draw = keys._draw
    monkeypatch.setattr(keys, "_draw", meanwhile)
    assert [system_key(tmp_path)] == drawn
    assert [path.name for path in (tmp_path / "audit").iterdir()] == ["system.key"]


def test_a_record_added_while_the_ledger_is_checked_is_no_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, check = Ledger(tmp_path), Ledger._check
    ledger.append("received", "r", {})

    def meanwhile(self: Ledger, *record: Any) -> None:
        monkeypatch.setattr(Ledger, "_check", check)
        Ledger(tmp_path).append("resolved", "r", {})
        check(self, *record)

    monkeypatch.setattr(Ledger, "_check", meanwhile)
    assert len(ledger.verify()) == 1


def test_nothing_outside_the_vault_names_what_was_deleted(home: Path) -> None:
    request = Ledger(home).records()[0].request
    dossier = read_dossier(Vault(home), request)
    samples = dossier.forgotten.samples
    secrets = {*samples, "person-2", dossier.before.manifest}
    secrets |= {digest for one in samples.values() for digest in (one.content, *one.marks)}
    secrets |= set(dossier.taint.digests)
    texts = [path.read_bytes() for path in (home / "audit").rglob("*") if path.is_file()]
    assert not [one for one in secrets for text in texts if one.encode() in text]


def test_states_come_from_the_records_alone() -> None:
    def record(type_: str, step: str | None = None) -> LedgerRecord:
        return LedgerRecord(0, "", "", "", type_, "", {"step": step} if step else {}, "", "")

    assert state([record("received"), record("approved")]) == "approved"
    assert state([record("quarantined", "quarantine"), record("step_started", "build")]) == "executing (build)"
    assert state([record("purged", "purge"), record("failed"), record("verified")]) == "verified"


def test_the_vault_cannot_be_read_once_destroyed_nor_edited(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    vault.put("abc", b'{"samples": "person/1"}')
    assert vault.get("abc") == b'{"samples": "person/1"}'
    sealed = tmp_path / "audit" / "vault" / "abc.sealed"
    assert b"person" not in sealed.read_bytes()
    content = sealed.read_bytes()
    sealed.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DeletionError, match="was edited"):
        vault.get("abc")
    vault.destroy("abc")
    with pytest.raises(DeletionError, match="--ids-file"):
        vault.get("abc")


def test_suppression_is_of_name_or_content(home: Path) -> None:
    """Other pixels under a deleted name stay out, and so does the deleted picture in another stream; a picture of the
    same name in another stream does not."""
    stream, suppression = tiny_stream(), Suppression(home)
    noisy = with_noise(stream, {"t1/c0/1"})
    for one in (stream, noisy, replace(stream, name="another")):
        assert "t1/c0/1" in suppression.of(one, "any").deleted
    assert "t1/c0/1" not in suppression.of(replace(noisy, name="another"), "any").deleted
