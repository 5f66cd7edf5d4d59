"""The command line: quick help, JSON, and errors of one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cl.cli import main


def palimpsest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of one command."""
    monkeypatch.setattr(sys, "argv", ["palimpsest", *words])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("word", ["--help", "results"])
def test_what_only_reads_loads_no_torch(word: str) -> None:
    command = f"import sys; sys.argv = ['palimpsest', '{word}']\nfrom cl.cli import main\n"
    script = command + "try: main()\nexcept SystemExit: pass\n"
    script += "assert not {'torch', 'timm', 'pandas', 'matplotlib'} & set(sys.modules), 'slow import'"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=Path(__file__).parents[2])


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
        (["run", "split-digits"], "strategy"),
        (["rnu"], "rnu"),
        (["list", "strategy"], "did you mean strategies"),
        (["describe", "eaze"], "did you mean ease"),
        (["show", "abc"], "no run 'abc'"),
        (["compare", "split-digits", "ease", "--seeds", "0"], "seeds"),
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


def test_a_home_that_is_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.write_text("not a folder")
    code, _, err = palimpsest(capsys, monkeypatch, "run", "split-digits", "simplecil", "--home", str(home))
    assert code == 2 and "it is a file, not a folder" in err and err.count("\n") == 1
    assert home.read_text() == "not a folder"


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_read_only_home(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    code, _, err = palimpsest(capsys, monkeypatch, "run", "split-digits", "simplecil", "--home", str(tmp_path / "home"))
    assert code == 2 and "permission denied" in err and err.count("\n") == 1
