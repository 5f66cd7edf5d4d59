"""What somebody who may write the home, or who made the certificate, tries with ledger and evidence."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

import cl.home.deletions
import cl.home.ledger
from cl.audit.certificate import certify, place
from cl.audit.evidence import check_certificate, export, read_export
from cl.audit.ledger_check import anchor_now, check_ledger
from cl.audit.software import sources_digest
from cl.audit.verification import verify
from cl.deletion.keeping_out import readmit
from cl.digests import canonical, digest_json
from cl.errors import LedgerError, PalimpsestError
from cl.home import writing
from cl.home.anchors import NAME, Anchor
from cl.home.chain import LedgerRecord, written
from cl.home.ledger import Ledger
from tests.deleting import forget, started
from tests.palimpsest import palimpsest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A home with two certified deletions; the requests."""
    home = tmp_path_factory.mktemp("evidence")
    run = started(home, "simplecil")
    requests = []
    for sample in ("t0/c0/1", "t1/c0/2"):
        requests.append(forget(home, run, ("sample", sample)).request)
        verify(home, requests[-1])
        certify(home, requests[-1])
    return home, requests


@pytest.fixture
def world(made: tuple[Path, list[str]], tmp_path: Path) -> tuple[Path, list[str]]:
    """A copy of it that a test may spoil."""
    home = tmp_path / "home"
    shutil.copytree(made[0], home)
    return home, made[1]


def edited(home: Path, request: str, change: Mapping[str, Any], key: bytes | None = None) -> None:
    """The certificate with other words, signed again with the operator's own key, or another."""
    path = place(home, request)
    content = json.loads(path.read_bytes())
    private = Ed25519PrivateKey.from_private_bytes(key or (home / "audit" / "signing.key").read_bytes())
    del content["signature"]
    content |= {**change, "public_key": private.public_key().public_bytes_raw().hex()}
    path.write_bytes(rfc8785.dumps({**content, "signature": private.sign(rfc8785.dumps(content)).hex()}))


def cut(home: Path, count: int) -> None:
    path = home / "audit" / "ledger.jsonl"
    lines = path.read_text().splitlines()[:-count]
    path.write_text("\n".join(lines) + "\n")


def signed_head(home: Path) -> None:
    """A head for the ledger as it now is, as its operator can make one."""
    records = [json.loads(line) for line in (home / "audit" / "ledger.jsonl").read_text().splitlines()]
    key = Ed25519PrivateKey.from_private_bytes((home / "audit" / "signing.key").read_bytes())
    head = {"counter": len(records), "hash": records[-1]["hash"]}
    (home / "audit" / "ledger.head").write_bytes(canonical({**head, "signature": key.sign(canonical(head)).hex()}))


def drop_the_last_record_with_the_head(home: Path, requests: list[str]) -> None:
    cut(home, 1)
    (home / "audit" / "ledger.head").unlink()


def drop_it_and_write_a_head_of_earlier_releases(home: Path, requests: list[str]) -> None:
    cut(home, 1)
    (home / "audit" / "ledger.head").write_text(Ledger(home).head)


def drop_it_and_sign_the_head_again(home: Path, requests: list[str]) -> None:
    cut(home, 1)
    signed_head(home)


def roll_back_a_later_request_with_its_certificate(home: Path, requests: list[str]) -> None:
    records = [json.loads(line) for line in (home / "audit" / "ledger.jsonl").read_text().splitlines()]
    cut(home, sum(one["request"] == requests[1] for one in records))
    signed_head(home)
    for path in (place(home, requests[1]), place(home, requests[1]).with_suffix(".html")):
        path.unlink()


def swap_certificates(home: Path, requests: list[str]) -> None:
    first, second = (place(home, one) for one in requests)
    text = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(text)


def copy_a_certificate_under_a_made_up_name(home: Path, requests: list[str]) -> None:
    shutil.copy(place(home, requests[0]), place(home, "0123456789ab"))


def sign_one_for_a_request_that_was_never_made(home: Path, requests: list[str]) -> None:
    shutil.copy(place(home, requests[0]), place(home, "0123456789ab"))
    edited(home, "0123456789ab", {"request": "0123456789ab"})


def edit_the_page(home: Path, requests: list[str]) -> None:
    page = place(home, requests[0]).with_suffix(".html")
    page.write_bytes(page.read_bytes().replace(b"<b>E0</b>", b"<b>E1</b>"))


def swap_pages(home: Path, requests: list[str]) -> None:
    first, second = (place(home, one).with_suffix(".html") for one in requests)
    first.write_bytes(second.read_bytes())


def sign_again_with_other_numbers(home: Path, requests: list[str]) -> None:
    edited(home, requests[0], {"samples": 400, "train": 400})


def sign_again_with_other_words(home: Path, requests: list[str]) -> None:
    edited(home, requests[0], {"exceptions": []})


def sign_again_with_another_key(home: Path, requests: list[str]) -> None:
    edited(home, requests[0], {}, bytes(range(32)))


def write_all_anew_under_a_new_key(home: Path, requests: list[str]) -> None:
    """As one who has no key: the whole ledger, its key, head and certificates."""
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    path, before, lines = home / "audit" / "ledger.jsonl", "0" * 64, []
    for line in path.read_text().splitlines():
        record = json.loads(line) | {"actor": "another", "prev_hash": before}
        content = {name: value for name, value in record.items() if name not in ("hash", "signature")}
        before = digest_json(content)
        lines.append(canonical({**content, "hash": before, "signature": private.sign(before.encode()).hex()}).decode())
    path.write_text("\n".join(lines) + "\n")
    (home / "audit" / "signing.key").chmod(0o600)
    (home / "audit" / "signing.key").write_bytes(bytes(range(32)))
    (home / "audit" / "signing.pub").write_text(private.public_key().public_bytes_raw().hex())
    signed_head(home)
    for request in requests:
        edited(home, request, {"responsible": "another", "ledger_head": before})


def begin_a_ledger_that_says_one_was_lost(home: Path, requests: list[str]) -> None:
    """The way of `forget reapply`, taken to be rid of a record: the certificates that are left contradict it."""
    shutil.move(home / "audit" / "certificates", home / "kept")
    for name in ("ledger.jsonl", "ledger.head", "signing.key", "signing.pub"):
        (home / "audit" / name).unlink()
    Ledger(home).begin_anew()
    shutil.move(home / "kept", home / "audit" / "certificates")


ATTACKS = [
    drop_the_last_record_with_the_head,
    drop_it_and_write_a_head_of_earlier_releases,
    drop_it_and_sign_the_head_again,
    roll_back_a_later_request_with_its_certificate,
    swap_certificates,
    copy_a_certificate_under_a_made_up_name,
    sign_one_for_a_request_that_was_never_made,
    edit_the_page,
    swap_pages,
    sign_again_with_other_numbers,
    sign_again_with_other_words,
    sign_again_with_another_key,
    write_all_anew_under_a_new_key,
    begin_a_ledger_that_says_one_was_lost,
]


def test_what_nobody_touched_holds(made: tuple[Path, list[str]]) -> None:
    found = check_ledger(made[0])
    assert [one.request for one in found.certificates] == sorted(made[1])
    assert [line for line in found.unchecked if "nothing is anchored outside" in line]
    assert not [line for line in found.unchecked if "page" in line or made[1][0] in line]


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_is_caught(world: tuple[Path, list[str]], attack: Callable[[Path, list[str]], None]) -> None:
    attack(*world)
    with pytest.raises(LedgerError) as caught:
        check_ledger(world[0])
    assert "\n" not in str(caught.value)


FIGURES = ("samples", "train", "test", "grade", "run", "received", "verified", "commitment", "scope", "responsible")


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_no_figure_can_be_another_though_the_operator_signs_it(
    made: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Even where the ledger keeps no digest of the certificate: every figure is compared."""
    home = tmp_path_factory.mktemp("figures") / "home"
    shutil.copytree(made[0], home)
    name = data.draw(st.sampled_from([*FIGURES, "checks", "manifest", "components", "purged", "cost", "stale_runs"]))
    before = json.loads(place(home, made[1][0]).read_bytes())[name]
    if isinstance(before, dict):
        known = sorted(before.keys() - {"blast_radius", "amplification"})  # which the ledger does not tell
        after: object = {**before, data.draw(st.sampled_from(known)): 7777}
    else:
        after = "other" if isinstance(before, str) else 7777
    path = place(home, made[1][0])
    edited(home, made[1][0], {name: after})
    chain = Ledger(home).chain
    with pytest.raises(LedgerError, match="does not say what the ledger recorded"):
        check_certificate(path, None, chain)


@settings(max_examples=40, deadline=None)
@given(place_=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), which=st.sampled_from(["json", "html"]))
def test_any_changed_byte_of_certificate_or_page_is_noticed(
    made: tuple[Path, list[str]], place_: float, flip: int, which: str
) -> None:
    path = place(made[0], made[1][0]).with_suffix(f".{which}")
    good = path.read_bytes()
    at = int(place_ * len(good))
    path.write_bytes(good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
    try:
        with pytest.raises(LedgerError):
            check_ledger(made[0])
    finally:
        path.write_bytes(good)


def test_a_certificate_whose_data_were_readmitted_is_named(world: tuple[Path, list[str]]) -> None:
    home, (request, other) = world
    readmit(home, request)
    found = {one.request: one for one in check_ledger(home).certificates}
    assert found[request].readmitted and not found[other].readmitted


def test_what_is_not_there_is_said(world: tuple[Path, list[str]]) -> None:
    home, (request, other) = world
    place(home, request).unlink()
    place(home, other).with_suffix(".html").unlink()
    said = "\n".join(check_ledger(home).unchecked)
    assert f"request {request}: its certificate" in said and f"request {other}: its page" in said


# Anchors: all of the home put back from an older copy is noticed outside alone.


@pytest.fixture(params=["file", "git"])
def anchor(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    place_ = tmp_path / "elsewhere"
    if request.param == "git":
        place_.mkdir()
        subprocess.run(["git", "init", "-q", str(place_)], check=True)
    return place_


def test_a_home_put_back_as_a_whole_is_caught_by_its_anchor(
    world: tuple[Path, list[str]], anchor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, (request, _) = world
    monkeypatch.setenv("PALIMPSEST_ANCHOR", str(anchor))
    shutil.copytree(home, tmp_path / "older")
    readmit(home, request)
    count = len(Ledger(home).verify())
    assert check_ledger(home).anchored == count
    assert not [line for line in check_ledger(home).unchecked if "anchored" in line]
    check_ledger(tmp_path / "older", anchor=tmp_path / "none")  # by itself it is whole
    with pytest.raises(LedgerError, match="anchored outside, is not in it"):
        check_ledger(tmp_path / "older")
    with pytest.raises(LedgerError, match="anchored outside, is not in it"):
        Ledger(tmp_path / "older").append("planned", "r", {})


def test_a_commit_that_takes_heads_away_takes_nothing_away(
    world: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, repository = world[0], tmp_path / "git"
    repository.mkdir()
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    anchor_now(home, repository)
    before = Anchor(repository).heads()
    (repository / NAME).write_text("")
    author = ["-c", "user.name=x", "-c", "user.email=x@y"]
    subprocess.run(["git", "-C", str(repository), *author, "commit", "-qam", "tidied"], check=True)
    assert before and Anchor(repository).heads() == before


def test_half_a_line_of_a_crash_is_no_head(world: tuple[Path, list[str]], tmp_path: Path) -> None:
    home, file = world[0], tmp_path / "heads"
    anchor_now(home, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    anchor_now(home, file)
    assert len(Anchor(file).heads()) == 1 and check_ledger(home, file).anchored == len(Ledger(home).verify())


@pytest.mark.parametrize("unusable", ["missing/heads", "folder"])
def test_an_anchor_that_cannot_be_used_stops_with_one_line(
    world: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unusable: str
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("PALIMPSEST_ANCHOR", str(tmp_path / unusable))
    with pytest.raises(LedgerError, match=r"the anchor .* cannot be used"):
        Ledger(world[0]).append("planned", "r", {})
    monkeypatch.delenv("PALIMPSEST_ANCHOR")
    Ledger(world[0]).verify()


# Keys.


def test_a_key_is_changed_by_a_record_that_the_old_one_signed(world: tuple[Path, list[str]]) -> None:
    home, requests = world
    old = (home / "audit" / "signing.key").read_bytes()
    first = Ledger(home).chain.keys[-1]
    public = Ledger(home).rotate_key()
    assert (home / "audit" / "signing.key").read_bytes() != old and public != first
    assert not (home / "audit" / "signing.key.next").exists()
    Ledger(home).append("planned", "r", {})
    found = check_ledger(home)
    assert found.key == public.hex() and len(found.certificates) == 2
    chain = read_of(home)
    for key in (None, first.hex()):
        check_certificate(place(home, requests[0]), key, chain)
    with pytest.raises(LedgerError, match="not signed with the key"):  # it came later: nothing says whose the first is
        check_certificate(place(home, requests[0]), public.hex(), chain)


def test_a_key_cannot_be_changed_by_the_new_one(world: tuple[Path, list[str]]) -> None:
    home, _ = world
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    records = Ledger(home).verify()
    content = records[-1].as_json() | {"seq": len(records), "prev_hash": records[-1].hash, "type": "key_changed"}
    content["body"] = {"public_key": key.public_key().public_bytes_raw().hex()}
    del content["hash"], content["signature"]
    digest = digest_json(content)
    line = canonical({**content, "hash": digest, "signature": key.sign(digest.encode()).hex()})
    path = home / "audit" / "ledger.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(LedgerError, match="not signed with this home's key"):
        check_ledger(home)


def test_a_lost_signing_key_is_not_drawn_anew(world: tuple[Path, list[str]]) -> None:
    (world[0] / "audit" / "signing.key").unlink()
    with pytest.raises(PalimpsestError, match="put it back"):
        Ledger(world[0]).append("planned", "r", {})
    assert not (world[0] / "audit" / "signing.key").exists()


# Crashes between the writes.


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """`work` in a fork that dies just before its write, or replacing, of this number; whether it died."""
    child = os.fork()
    if child == 0:
        count, write, replace_ = 0, writing.write_atomic, os.replace

        def dying(what: Callable[..., None], *arguments: Any, **options: Any) -> None:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            what(*arguments, **options)

        for module in (cl.home.ledger, cl.home.deletions, cl.home.keys):
            module.write_atomic = lambda *a, **k: dying(write, *a, **k)  # type: ignore[attr-defined]
        cl.home.keys.os.replace = lambda *a: dying(replace_, *a)  # type: ignore[attr-defined]
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


WORKS: dict[str, Callable[[Path], object]] = {
    "first": lambda home: Ledger(home).append("received", "r", {}),
    "append": lambda home: Ledger(home).append("planned", "r", {}),
    "rotate": lambda home: Ledger(home).rotate_key(),
    "anew": lambda home: Ledger(home).begin_anew(),
}


@pytest.mark.parametrize("kind", WORKS)
def test_a_ledger_killed_at_any_write_is_never_refused(tmp_path: Path, kind: str) -> None:
    for number in range(1, 30):
        home = tmp_path / str(number)
        home.mkdir()
        if kind != "first":
            Ledger(home).append("received", "r", {})
        if kind == "anew":
            (home / "audit" / "ledger.jsonl").unlink()
        died = killed_at(number, lambda home=home: WORKS[kind](home))  # type: ignore[misc]
        if kind == "anew":  # until it has begun, the old one is missed
            Ledger(home).begin_anew()
        count = len(Ledger(home).verify())
        Ledger(home).append("resolved", "r", {})
        assert len(Ledger(home).verify()) == count + 1
        WORKS["rotate"](home)
        Ledger(home).append("resolved", "r", {})
        assert check_ledger(home).records == count + 3
        if not died:
            assert number > 3
            return
    raise AssertionError("it never came to its end")


# Without a home.


def read_of(home: Path) -> Any:
    path = home.parent / "export.json"
    path.write_bytes(export(home).to_json())
    return read_export(path)


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a.__name__.startswith(("sign_", "edit_", "swap_p"))])
def test_it_is_caught_without_a_home(world: tuple[Path, list[str]], attack: Callable[[Path, list[str]], None]) -> None:
    home, requests = world
    chain = read_of(home)
    attack(home, requests)
    request = "0123456789ab" if place(home, "0123456789ab").exists() else requests[0]
    with pytest.raises(LedgerError):
        check_certificate(place(home, request), None, chain)


def test_of_an_export_no_record_can_be_left_out_or_changed(world: tuple[Path, list[str]]) -> None:
    home, _ = world
    good = json.loads(export(home).to_json())
    path = home.parent / "export.json"
    last, head = good["records"][-1], good["head"]
    for bad in (
        {**good, "records": good["records"][:-1]},
        {**good, "records": good["records"][1:]},
        {**good, "records": [*good["records"][:-1], {**last, "type": "readmitted"}]},
        {**good, "head": {**head, "counter": head["counter"] - 1}},
        {**good, "head": {**head, "signature": "0" * 128}},
        {**good, "public_key": "0" * 64},
    ):
        path.write_bytes(canonical(bad))
        with pytest.raises(PalimpsestError):
            read_export(path)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b"[" * 100000, b'{"schema":1}', b"\xff", b'{"a":NaN}', b"1" * 5000]
)
def test_a_file_that_is_something_else_is_one_line(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(text)
    for read in (check_certificate, read_export):
        with pytest.raises(PalimpsestError) as error:
            read(path)
        assert "\n" not in str(error.value)


def test_an_export_gives_away_no_secret(made: tuple[Path, list[str]]) -> None:
    text = export(made[0]).to_json()
    secrets = [path.read_bytes() for path in (made[0] / "audit").glob("*.key")]
    assert secrets and not [one for one in secrets if one.hex().encode() in text or one in text]
    assert b"t0/c0/1" not in text


def test_the_command_says_what_it_could_not_check_and_what_was_readmitted(
    world: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, (request, _) = world
    copies = home.parent / "copies"
    copies.mkdir()
    for name in (f"{request}.json", f"{request}.html"):
        shutil.copy(home / "audit" / "certificates" / name, copies / name)
    file, key = str(copies / f"{request}.json"), str(home / "audit" / "signing.pub")
    code, said, _ = palimpsest(capsys, monkeypatch, "certificate", "verify", file)
    assert code == 0 and "not checked: whose key" in said and "give --ledger-export" in said
    assert f"by release {json.loads((copies / f'{request}.json').read_bytes())['software']['release']}" in said
    out = str(home.parent / "ledger.json")
    assert palimpsest(capsys, monkeypatch, "ledger", "export", "--out", out, "--home", str(home))[0] == 0
    how = ("certificate", "verify", file, "--public-key", key, "--ledger-export", out)
    code, said, _ = palimpsest(capsys, monkeypatch, *how, "--json")
    assert code == 0 and json.loads(said)["holds"] and len(json.loads(said)["unchecked"]) == 1
    readmit(home, request)
    assert palimpsest(capsys, monkeypatch, "ledger", "export", "--out", out, "--home", str(home))[0] == 0
    code, said, _ = palimpsest(capsys, monkeypatch, *how)
    assert code == 1 and "readmitted" in said
    code, said, _ = palimpsest(capsys, monkeypatch, "ledger", "verify", "--home", str(home))
    assert code == 0 and "holds no more" in said


def test_checking_a_certificate_loads_no_torch(made: tuple[Path, list[str]]) -> None:
    script = (
        "import sys; from cl.cli import main\n"
        f"sys.argv = ['palimpsest', 'certificate', 'verify', {str(place(made[0], made[1][0]))!r}]\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'timm', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_a_certificate_names_the_software(made: tuple[Path, list[str]]) -> None:
    said = json.loads(place(made[0], made[1][0]).read_bytes())
    import timm
    import torch

    assert (said["software"]["torch"], said["software"]["timm"]) == (torch.__version__.split("+")[0], timm.__version__)
    assert said["software"]["sources"] == sources_digest()
    assert said["seed_commitment"] == digest_json(["seed", said["run"], said["seed"]])


# The scripts of the documentation, as they stand there, where nothing but `cryptography` is installed.


SCRIPTS = re.findall(r"^```py\n(.*?)^```$", (ROOT / "docs" / "deletion.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has `cryptography` and what that needs."""
    folder = tmp_path_factory.mktemp("empty")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in ("cryptography", "cffi", "_cffi_backend"):
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
            (packages / path.name).symlink_to(path)
    return folder / "bin" / "python"


def by_script(empty: Path, number: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    script = empty.parent / f"script{number}.py"
    script.write_text(SCRIPTS[number])
    command = [str(empty), "-I", str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=empty.parent)


def test_nothing_else_is_installed_there(empty: Path) -> None:
    for name in ("cl", "rfc8785", "torch", "numpy"):
        assert subprocess.run([empty, "-I", "-c", f"import {name}"], capture_output=True, check=False).returncode


def test_the_docs_own_script_verifies_a_certificate(world: tuple[Path, list[str]], empty: Path) -> None:
    home, (request, other) = world
    key = (home / "audit" / "signing.pub").read_text()
    done = by_script(empty, 0, place(home, request), key)
    assert done.returncode == 0 and f"request {request} grade E0" in done.stdout, done.stderr
    assert by_script(empty, 0, place(home, request), "0" * 64).returncode
    edited(home, request, {"samples": 4}, bytes(range(32)))
    assert by_script(empty, 0, place(home, request), key).returncode
    text = place(home, other).read_bytes()
    place(home, other).write_bytes(text.replace(b'"E0"', b'"E1"', 1))
    assert "InvalidSignature" in by_script(empty, 0, place(home, other), key).stderr


def test_the_docs_own_script_follows_an_export(world: tuple[Path, list[str]], empty: Path) -> None:
    home, (request, other) = world
    key = (home / "audit" / "signing.pub").read_text()
    Ledger(home).rotate_key()
    readmit(home, request)
    out = home.parent / "export.json"
    out.write_bytes(export(home).to_json())
    done = by_script(empty, 1, place(home, request), out, key)
    assert done.returncode == 0 and "readmitted on 2" in done.stdout, done.stderr
    assert "not readmitted" in by_script(empty, 1, place(home, other), out, key).stdout
    content = json.loads(out.read_bytes())
    out.write_bytes(canonical({**content, "records": content["records"][:-1]}))
    assert by_script(empty, 1, place(home, request), out, key).returncode


# Time stamps, by an authority that the test makes.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    (folder / "conf").write_text(
        "[tsa]\ndefault_tsa = t\n[t]\nserial = serial\nsigner_cert = tsa.pem\nsigner_key = tsa.key\n"
        "signer_digest = sha256\ndefault_policy = 1.2.3.4\ndigests = sha256, sha512\n"
        "ess_cert_id_alg = sha256\n[leaf]\nkeyUsage = critical, digitalSignature\n"
        "extendedKeyUsage = critical, timeStamping\n[req]\ndistinguished_name = d\n[d]\n"
        "[root]\nbasicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign\n"
    )
    (folder / "serial").write_text("01")
    new = "req -x509 -newkey rsa:2048 -nodes -config conf -extensions root -days 30 -subj /CN=root"
    openssl(folder, f"{new} -keyout ca.key -out ca.pem")
    openssl(folder, f"{new} -keyout other.key -out other.pem")
    openssl(folder, "req -new -newkey rsa:2048 -nodes -config conf -subj /CN=tsa -keyout tsa.key -out tsa.csr")
    leaf = "-extfile conf -extensions leaf -CA ca.pem -CAkey ca.key -CAcreateserial -days 30"
    openssl(folder, f"x509 -req -in tsa.csr -out tsa.pem {leaf}")
    return folder


def openssl(folder: Path, command: str) -> None:
    subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the authority of this test is openssl's")
def test_a_time_stamp_says_when_a_head_was_there(
    world: tuple[Path, list[str]], authority: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rfc3161_client")
    home, (request, _) = world
    shutil.copytree(home, home.parent / "older")
    readmit(home, request)
    count = len(Ledger(home).verify())
    asked, token = authority / "head.tsq", authority / "head.tsr"
    said = palimpsest(capsys, monkeypatch, "ledger", "anchor", "--request", str(asked), "--home", str(home))
    assert said[0] == 0, said
    openssl(authority, "ts -reply -config conf -section t -queryfile head.tsq -out head.tsr")
    Ledger(home).append("planned", "r", {})
    how = ("ledger", "verify", "--token", str(token), "--authority")
    code, said_, error = palimpsest(capsys, monkeypatch, *how, str(authority / "ca.pem"), "--home", str(home), "--json")
    assert code == 0 and json.loads(said_)["stamped"]["counter"] == count, error
    assert any("1 of them are not anchored" in line for line in json.loads(said_)["unchecked"])
    code, _, error = palimpsest(capsys, monkeypatch, *how, str(authority / "other.pem"), "--home", str(home))
    assert code == 2 and "does not hold under" in error
    older = str(home.parent / "older")
    code, _, error = palimpsest(capsys, monkeypatch, *how, str(authority / "ca.pem"), "--home", older)
    assert code == 2 and "stamps no head of this ledger" in error


def test_a_thousand_records_are_checked_in_little_time(tmp_path: Path) -> None:
    """Signatures were checked once a process, and every command asks several times."""
    Ledger(tmp_path).append("received", "r", {})
    ledger = lengthened(tmp_path, 1000)
    start = time.perf_counter()
    assert len(ledger.verify()) == 1000
    first = time.perf_counter() - start
    start = time.perf_counter()
    for _ in range(10):
        ledger.verify()
    again = (time.perf_counter() - start) / 10
    assert again < first / 3, (first, again)


def lengthened(home: Path, count: int) -> Ledger:
    """The ledger with so many records, written at once."""
    first = Ledger(home).verify()[0]
    private = Ed25519PrivateKey.from_private_bytes((home / "audit" / "signing.key").read_bytes())
    records = [first]
    while len(records) < count:
        body = {"tainted": 4, "commitment": "a" * 64}
        content = {**first.as_json(), "seq": len(records), "prev_hash": records[-1].hash, "body": body}
        del content["hash"], content["signature"]
        digest = digest_json(content)
        records.append(LedgerRecord(**content, hash=digest, signature=private.sign(digest.encode()).hex()))
    (home / "audit" / "ledger.jsonl").write_bytes(written(records))
    return Ledger(home)
