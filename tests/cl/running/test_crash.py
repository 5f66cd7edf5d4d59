"""Kills, full disks and spoilt homes: one line, nothing lost, and the same manifest in the end."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cl.components import builder, checkpoint
from cl.errors import PalimpsestError, StoreError
from cl.home import store, writing
from cl.home.check import faults
from cl.home.layout import FORMAT
from cl.home.results import Results
from cl.testing import contents
from tests.homes import key_of, manifest
from tests.palimpsest import palimpsest
from tests.tiny import run_tiny


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("straight") / "home"
    run_tiny(home, "finetune")
    return home


@pytest.fixture(scope="module")
def seconds(straight: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """What an undisturbed run takes here."""
    start = time.monotonic()
    run_tiny(tmp_path_factory.mktemp("timed"), "finetune")
    return time.monotonic() - start


def in_child(work: Callable[[], object]) -> int:
    """Start `work` in a forked process, warm from the start; its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def killed_after(delay: float, home: Path) -> bool:
    """Run in a child and kill it after `delay` seconds; whether that came before its end."""
    child = in_child(lambda: run_tiny(home, "finetune"))
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def check_killed_runs(home: Path, straight: Path, seconds: float, kills: int, seed: int) -> None:
    draw = random.Random(seed)
    for kill in range(kills):
        place = home / str(kill)
        while killed_after(draw.uniform(0, seconds), place):
            if draw.random() < 0.7:
                break
        run_tiny(place, "finetune")
        assert manifest(place) == manifest(straight) and contents(place) == contents(straight)
        assert len(Results(place).all()) == 1


def test_a_killed_run_goes_on_to_the_same_manifest(straight: Path, seconds: float, tmp_path: Path) -> None:
    check_killed_runs(tmp_path, straight, seconds, kills=10, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_many_killed_runs_go_on(straight: Path, seconds: float, tmp_path: Path, seed: int) -> None:
    check_killed_runs(tmp_path, straight, seconds, kills=20, seed=seed)


def test_a_build_killed_in_training_goes_on_from_its_last_epoch(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)
    save = checkpoint.Checkpoint.save

    def save_and_die(self: checkpoint.Checkpoint, tensors: store.Tensors) -> None:
        save(self, tensors)
        os.kill(os.getpid(), signal.SIGKILL)

    def attempt() -> None:
        checkpoint.Checkpoint.save = save_and_die  # type: ignore[method-assign]
        run_tiny(tmp_path, "finetune")

    deaths = 0
    while os.waitpid(in_child(attempt), 0)[1] != 0:
        deaths += 1
        assert len(list((tmp_path / "checkpoints").iterdir())) <= 1
    assert deaths == 3 * 2  # tasks, epochs
    run_tiny(tmp_path, "finetune")
    assert contents(tmp_path) == contents(straight)
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("spoil", [lambda data: data[:-7], lambda data: bytes(len(data)), lambda data: b""])
def test_a_damaged_checkpoint_counts_as_none(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[bytes], bytes]
) -> None:
    write = store.write_atomic

    def write_damaged(path: Path, data: bytes, **how: object) -> None:
        write(path, spoil(data) if path.parent.name == "checkpoints" else data, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(store, "write_atomic", write_damaged)
    assert killed_at_first_checkpoint(tmp_path)
    run_tiny(tmp_path, "finetune")
    assert manifest(tmp_path) == manifest(straight)


def killed_at_first_checkpoint(home: Path) -> bool:
    def attempt() -> None:
        save = checkpoint.Checkpoint.save
        checkpoint.Checkpoint.save = lambda self, tensors: (save(self, tensors), os._exit(9))  # type: ignore
        run_tiny(home, "finetune")

    return os.waitstatus_to_exitcode(os.waitpid(in_child(attempt), 0)[1]) == 9


def test_two_processes_build_what_both_want_once(straight: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def counted() -> None:
        original = builder.Builder._build

        def note(self: builder.Builder, plan: builder.Plan, store: bool) -> builder.Handle:
            with begun.open("a") as lines:
                lines.write(f"{plan.key}\n")
            return original(self, plan, store)

        builder.Builder._build = note  # type: ignore[method-assign]
        run_tiny(tmp_path / "home", "finetune")

    children = [in_child(counted) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    keys = begun.read_text().split()
    assert len(keys) == len(set(keys))
    assert manifest(tmp_path / "home") == manifest(straight)


def failing_writes(code: int, after: int) -> Callable[..., None]:
    """`write_atomic` that fails with this error from its call number `after` on."""
    calls = itertools.count()
    write = store.write_atomic

    def attempt(path: Path, data: bytes, **how: object) -> None:
        if next(calls) >= after:
            raise OSError(code, os.strerror(code), str(path))
        write(path, data, **how)  # type: ignore[arg-type]

    return attempt


@pytest.mark.parametrize("after", [0, 1, 4, 9, 20])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO])
def test_a_disk_that_takes_no_more_is_one_line_and_loses_nothing(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, after: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_atomic", failing_writes(code, after))
        with pytest.raises(StoreError, match=r"cannot use home") as caught:
            run_tiny(tmp_path, "finetune")
        assert "\n" not in str(caught.value)
    kept = contents(tmp_path)
    run_tiny(tmp_path, "finetune")
    assert manifest(tmp_path) == manifest(straight)
    assert kept.items() <= contents(tmp_path).items()
    assert not list(tmp_path.rglob(f"{writing.TEMPORARY}*"))


def test_a_full_disk_under_a_checkpoint_is_one_line(
    tiny_by_default: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, full = store.write_atomic, failing_writes(errno.ENOSPC, 0)

    def attempt(path: Path, data: bytes, **how: Any) -> None:
        (full if path.parent.name == "checkpoints" else write)(path, data, **how)

    monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(store, "write_atomic", attempt)
    words = ("run", "split-digits", "finetune", "--set", "epochs=1", "--home", str(tmp_path))
    code, _, err = palimpsest(capsys, monkeypatch, *words, "--json")
    assert code == 2 and err.count("\n") == 1 and "full" in err


def occupied(home: Path) -> None:
    home.write_text("a file")


def newer(home: Path) -> None:
    home.mkdir()
    (home / "format.json").write_text(f'{{"format":{FORMAT + 1}}}')


def older(home: Path) -> None:
    home.mkdir()
    (home / "format.json").write_text(f'{{"format":{FORMAT - 1}}}')


def unreadable_format(home: Path) -> None:
    home.mkdir()
    (home / "format.json").write_bytes(b"\xff\x00")


def odd_format(home: Path) -> None:
    home.mkdir()
    (home / "format.json").write_text("[1]")


def blocked(home: Path) -> None:
    home.mkdir()
    (home / "store").write_text("a file")


def no_database(home: Path) -> None:
    home.mkdir()
    (home / "results.sqlite").write_bytes(b"these bytes are no database" * 100)


def newer_database(home: Path) -> None:
    home.mkdir()
    with sqlite3.connect(home / "results.sqlite") as database:
        database.execute("PRAGMA user_version = 99")


def another_database(home: Path) -> None:
    home.mkdir()
    with sqlite3.connect(home / "results.sqlite") as database:
        database.execute("CREATE TABLE letters (text TEXT)")


SPOILT = {
    occupied: "it is a file",
    newer: "newer palimpsest",
    older: "build it again in another --home",
    unreadable_format: "damaged",
    odd_format: "damaged",
    blocked: "it is a file",
    no_database: "not a results database",
    newer_database: "newer release",
    another_database: "another database (it holds 'letters')",
}


@pytest.mark.parametrize("spoil", SPOILT)
@pytest.mark.parametrize("command", ["run", "results", "show", "predict", "gc", "verify"])
def test_a_home_that_cannot_be_used_is_one_line(
    spoil: Callable[[Path], None],
    command: str,
    tmp_path: Path,
    tiny_by_default: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = tmp_path / "home"
    spoil(home)
    words = {
        "run": ["run", "split-digits", "simplecil"],
        "show": ["show", "abc"],
        "predict": ["predict", "abc", "x.png"],
        "verify": ["store", "verify"],
    }.get(command, [command])
    before = {path: path.read_bytes() for path in [home, *home.rglob("*")] if path.is_file()}
    code, out, err = palimpsest(capsys, monkeypatch, *words, "--home", str(home), "--json")
    assert code in (0, 1, 2) and "Traceback" not in err
    if command == "run":
        assert (code, out, err.count("\n")) == (2, "", 1) and SPOILT[spoil] in err
    for path, data in before.items():
        assert path.read_bytes() == data


def test_a_results_database_that_is_none_is_told_of_before_anything_is_built(tmp_path: Path) -> None:
    no_database(tmp_path / "home")
    with pytest.raises(StoreError, match="not a results database"):
        run_tiny(tmp_path / "home", "simplecil")
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_a_read_only_home_is_one_line_and_can_still_be_read(straight: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(straight, tmp_path / "home"))
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    for path in [home, *home.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    told = tmp_path / "told"
    told.touch()
    told.chmod(0o666)

    def attempt() -> None:
        if os.geteuid() == 0:
            os.setresuid(*[65_534] * 3)  # the superuser may write anywhere
        assert len(Results(home).all()) == 1
        assert not list(faults(store.Store(home)))
        try:
            run_tiny(home, "finetune", seed=1)
        except PalimpsestError as error:
            told.write_text(str(error))

    for folder in tmp_path.parents:
        if folder.stat().st_uid == os.geteuid() and folder != folder.parent:
            folder.chmod(folder.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    assert os.waitpid(in_child(attempt), 0)[1] == 0
    assert "permission denied; choose another --home" in told.read_text()
    assert {path: path.read_bytes() for path in before} == before


def flipped(path: Path) -> None:
    """Another bit in a file, of the same size and time."""
    times, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
def test_damage_is_found_said_and_built_again(straight: Path, tmp_path: Path, suffix: str) -> None:
    home = Path(shutil.copytree(straight, tmp_path / "home"))
    damaged = key_of(home, "t1/network")
    (path,) = home.rglob(f"{damaged}.{suffix}")
    flipped(path)
    for reader in home.rglob("*"):  # what reads it must be built again, or nobody would look at its bytes
        if reader.is_file() and "predictions" not in reader.name and reader.suffix in (".json", ".safetensors"):
            keep = reader.stem == damaged or reader.parent.parent.name != "store"
            None if keep else reader.unlink()
    figures = run_tiny(home, "finetune").figures
    assert any("damaged" in warning or "digest" in warning for warning in figures["warnings"])
    assert manifest(home) == manifest(straight) and contents(home) == contents(straight)


def test_interrupting_at_the_keyboard_is_130_and_one_line(
    tiny_by_default: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(builder.Builder, "_build", interrupt)
    words = ("run", "split-digits", "simplecil", "--home", str(tmp_path), "--json")
    code, out, err = palimpsest(capsys, monkeypatch, *words)
    assert (code, out, err.count("\n")) == (130, "", 1)
