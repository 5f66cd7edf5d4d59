"""The command line: quick help, JSON, and errors of one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from cl import run
from cl.cli import app
from cl.testing import tiny_backbone, tiny_stream
from tests.palimpsest import palimpsest

SLOW = {"torch", "timm", "pandas", "sklearn", "matplotlib", "avalanche"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A home and the run in it."""
    home = tmp_path_factory.mktemp("home")
    done = run(tiny_stream(), "simplecil", backbone=tiny_backbone(), home=home, device="cpu")
    return {"home": str(home), "run": done.id}


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "--version",
        "run --help",
        "list",
        "list --json",
        "new strategy mine --out {empty}",
        "results --home {home}",
        "results --home {empty}",
        "show {run} --home {home}",
        "show {run} --growth --home {home}",
        "show {run} --lineage t0/prototypes --home {home}",
        "forget status --home {home}",
        "ledger show --home {home}",
        "ledger verify --home {home}",
        "gc --dry-run --home {home}",
    ],
)
def test_what_only_reads_loads_nothing_slow(ran: dict[str, str], tmp_path: Path, words: str) -> None:
    given = words.format(**ran, empty=tmp_path).split()
    script = f"import sys; sys.argv = ['palimpsest', *{given}]\nfrom cl.cli import main\n"
    script += "try: main()\nexcept SystemExit as end: assert not end.code\n"
    script += f"found = {SLOW} & set(sys.modules)\nassert not found, found"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[3])


READING = [
    "results",
    "show abc",
    "predict abc cat.png",
    "access abc",
    "forget plan abc --task one",
    "forget execute abc --task one --yes",
    "forget verify abc",
    "forget certify abc",
    "forget status",
    "forget readmit abc",
    "ledger verify",
    "ledger show",
    "residue abc",
    "gc",
    "store verify",
]


@pytest.mark.parametrize("words", READING)
def test_what_reads_a_home_needs_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str
) -> None:
    home = tmp_path / "mistyped"
    code, out, err = palimpsest(capsys, monkeypatch, *words.split(), "--home", str(home))
    assert (code, out, err) == (2, "", f"palimpsest: there is no home at {home}; give the right one with --home\n")
    assert not home.exists()


@pytest.mark.parametrize("words", ["results", "forget status", "ledger verify", "ledger show", "gc", "store verify"])
def test_an_empty_home_is_a_home(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str
) -> None:
    code, _, err = palimpsest(capsys, monkeypatch, *words.split(), "--home", str(tmp_path))
    assert (code, err) == (0, "")


@pytest.mark.parametrize("words", [[], ["forget"], ["ledger"], ["store"], ["new"]])
def test_a_group_alone_says_what_it_holds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    code, out, err = palimpsest(capsys, monkeypatch, *words)
    assert (code, err) == (2, "") and "Commands:" in out
    assert palimpsest(capsys, monkeypatch, *words, "--help") == (0, out, "")


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert palimpsest(capsys, monkeypatch, "--version") == (0, f"palimpsest {version('palimpsest-cl')}\n", "")


def test_every_command_takes_json_and_a_home() -> None:
    def leaves(command: Any) -> Iterator[Any]:
        for one in getattr(command, "commands", {}).values():
            yield from leaves(one) if hasattr(one, "commands") else (one,)

    for one in leaves(get_command(app)):
        options = {option for parameter in one.params for option in parameter.opts}
        assert "--json" in options, one.name
        assert "--home" in options or "--ledger-export" in options, one.name  # a certificate is checked without one


@pytest.mark.parametrize("kind", ["strategies", "streams", "backbones"])
def test_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    code, out, _ = palimpsest(capsys, monkeypatch, "list", kind, "--json")
    names = {row["name"] for row in json.loads(out)}
    expected = {
        "strategies": {"ease", "simplecil", "finetune", "joint"},
        "backbones": {"glyph-vit"},
        "streams": {"split-mnist-5k", "split-digits", "glyphs"},
    }[kind]
    assert code == 0 and expected <= names


def test_describe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, out, _ = palimpsest(capsys, monkeypatch, "describe", "ease", "--json")
    content = json.loads(out)
    by_name = {one["name"]: one for one in content["hyperparameters"]}
    assert {"epochs", "batch_size", "lr", "weight_decay", "bottleneck", "scale", "dropout"} <= set(by_name)
    assert by_name["dropout"]["range"] and by_name["dropout"]["source"] and by_name["dropout"]["default"] == 0.1
    assert {"quick", "official", "paper"} <= set(content["presets"])
    assert content["preset_notes"].keys() == content["presets"].keys()


@pytest.mark.parametrize("name", ["ease", "split-digits", "glyph-vit"])
def test_describe_names_what_it_describes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    code, out, _ = palimpsest(capsys, monkeypatch, "describe", name, "--json")
    assert code == 0 and json.loads(out)["name"] == name
    code, out, err = palimpsest(capsys, monkeypatch, "describe", name)
    assert (code, err) == (0, "") and out.startswith(f"{name} (")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "split-digits", "eas"], "did you mean ease"),
        (["run", "split-digts", "ease"], "did you mean split-digits"),
        (["run", "split-digits", "ease", "--set", "epochs"], "key=value"),
        (["run", "split-digits", "ease", "--set", "epochs=-1"], "epochs"),
        (["run", "split-digits", "ease", "--set", "epoch=1"], "did you mean epochs"),
        (["run", "split-digits", "ease", "--backbone", "glyph-vti"], "did you mean glyph-vit"),
        (["run", "split-digits", "ease", "--device", "tpu"], "auto, cpu or cuda"),
        (["run", "split-digits", "ease", "--threads", "0"], "threads"),
        (["run", "split-digits", "ease", "--threads", "99999999999"], "threads must be from 1 to"),
        (["run", "split-digits", "ease", "--seed", "-1"], "seed must be from 0 to"),
        (["run", "split-digits", "ease", "--seed", str(2**63)], "seed must be from 0 to"),
        (["run", "split-digits", "json:dumps"], "'json:dumps' is no strategy"),
        (["run", "split-digits", "..:x"], "strategy '..:x' cannot be imported"),
        (["run", "split-digits", "simplecil", "--backbone", ":x"], "backbone ':x' cannot be imported"),
        (["run", "split-digits", "simplecil", "--backbone", "os:path"], "'os:path' makes no backbone"),
        (["run", "split-digits", "simplecil", "--backbone", "builtins:str"], "'builtins:str' made a str"),
        (["run", "split-digits", "simplecil", "--backbone", "os:getcwd"], "'os:getcwd' is no function of the device"),
        (["run", "builtins:dict", "simplecil"], "'builtins:dict'"),
        (["run", "\udcff.toml", "simplecil"], "is not UTF-8; rename it"),
        (["run", "split-digits"], "strategy"),
        (["rnu"], "rnu"),
        (["list", "strategy"], "did you mean strategies"),
        (["describe", "eaze"], "did you mean ease"),
        (["show", "abc"], "no run 'abc'"),
        (["show", "abc", "--lineage", "head", "--dependents", "head"], "give one of them"),
        (["compare", "split-digits", "ease", "--seeds", "0"], "seeds"),
        (["compare", "split-digits", "ease", "--out", "."], "--out . is a folder"),
        (["compare", "split-digits", "ease", "--set", "joint.when=last"], "unknown strategy 'joint'"),
        (["compare", "split-digits", "ease", "--preset", "ease.fast"], "unknown preset"),
    ],
)
def test_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], message: str
) -> None:
    monkeypatch.setenv("PALIMPSEST_HOME", str(tmp_path))
    code, out, err = palimpsest(capsys, monkeypatch, *words)
    assert code == 2 and not out
    assert message in err and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize("told", ["CUDA out of memory. Tried to allocate 2 GiB", "can't allocate memory: you tried"])
def test_torch_out_of_memory_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(told)

    monkeypatch.setattr("cl.running.run.run", fail)
    code, out, err = palimpsest(capsys, monkeypatch, "run", "split-digits", "simplecil")
    assert (code, out) == (2, "") and "out of memory" in err and "--jobs" in err and err.count("\n") == 1


def test_a_home_that_is_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.write_text("not a folder")
    code, _, err = palimpsest(capsys, monkeypatch, "run", "split-digits", "simplecil", "--home", str(home))
    assert code == 2 and "it is a file, not a folder" in err and err.count("\n") == 1
    code, out, err = palimpsest(capsys, monkeypatch, "results", "--home", str(home))
    assert (code, out) == (2, "") and "it is a file, not a folder" in err and err.count("\n") == 1
    assert home.read_text() == "not a folder"


def test_results_of_a_home_of_a_newer_format(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "format.json").write_text('{"format":99}')
    code, out, err = palimpsest(capsys, monkeypatch, "results", "--home", str(tmp_path))
    assert (code, out) == (2, "") and "has format 99" in err and err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_read_only_home(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    code, _, err = palimpsest(capsys, monkeypatch, "run", "split-digits", "simplecil", "--home", str(tmp_path / "home"))
    assert code == 2 and "permission denied" in err and err.count("\n") == 1
