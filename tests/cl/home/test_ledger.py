"""The ledger holds what happened, in order, signed, and never what was deleted."""

from __future__ import annotations

import json
import shutil
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
from cl.home.chain import LedgerRecord
from cl.home.keys import system_key
from cl.home.layout import MARKER
from cl.home.ledger import Ledger, state
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


@pytest.mark.parametrize("head", ["kept", "dropped", "of earlier releases"])
def test_a_cut_ledger_is_noticed_whatever_its_head_says(home: Path, tmp_path: Path, head: str) -> None:
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    path, newest = path_of(tmp_path), path_of(tmp_path).with_suffix(".head")
    lines = path.read_text().splitlines()[:-1]
    path.write_text("\n".join(lines) + "\n")
    if head == "dropped":
        newest.unlink()
    elif head == "of earlier releases":
        newest.write_text(json.loads(lines[-1])["hash"])
    with pytest.raises(LedgerError, match="was cut"):
        Ledger(tmp_path).verify()


def test_a_head_alone_cannot_be_dropped_or_set_back(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    newest = path_of(tmp_path).with_suffix(".head")
    old = newest.read_bytes()
    Ledger(tmp_path).append("planned", "r", {})
    newest.write_bytes(old)
    with pytest.raises(LedgerError, match="is an old one"):
        Ledger(tmp_path).verify()
    newest.unlink()
    with pytest.raises(LedgerError, match="is missing"):
        Ledger(tmp_path).verify()


def test_a_ledger_of_an_earlier_release_is_read_and_gone_on_with(home: Path, tmp_path: Path) -> None:
    """Its head was the hash alone, and the marker remembered nothing of it."""
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    marker = json.loads((tmp_path / MARKER).read_bytes())
    del marker["memory"]["ledger"]
    (tmp_path / MARKER).write_bytes(canonical(marker))
    path_of(tmp_path).with_suffix(".head").write_text(Ledger(tmp_path).head)
    count = len(Ledger(tmp_path).verify())
    Ledger(tmp_path).append("planned", "r", {})
    assert len(Ledger(tmp_path).verify()) == count + 1
    lines = path_of(tmp_path).read_text().splitlines()[:-1]
    path_of(tmp_path).write_text("\n".join(lines) + "\n")
    path_of(tmp_path).with_suffix(".head").unlink()
    with pytest.raises(LedgerError, match="was cut"):
        Ledger(tmp_path).verify()


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
    ledger, told = Ledger(tmp_path), Ledger._told
    ledger.append("received", "r", {})

    def meanwhile(self: Ledger) -> Any:
        monkeypatch.undo()
        found = told(self)
        Ledger(tmp_path).append("resolved", "r", {})
        return found

    monkeypatch.setattr(Ledger, "_told", meanwhile)
    assert len(ledger.verify()) == 2


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
