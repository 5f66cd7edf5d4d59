"""The documentation names everything there is, and what it shows runs.

A block of Python whose first line is a comment with a file name is a file; the files of one page lie side by side, and
those called test_*.py are run by pytest. Other blocks of Python, and commands in console blocks, run as they are.
"""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import pytest
import typer

from cl import metrics, registry
from cl.cli import app
from tests.palimpsest import palimpsest

pytest_plugins = ["pytester"]
ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
FILE_NAME = re.compile(r"# (\w+\.py)\n")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def files(page: Path) -> dict[str, str]:
    """The blocks of Python that are files, by name."""
    found = [(FILE_NAME.match(block), block) for block in blocks(page, "python")]
    return {match[1]: block for match, block in found if match}


SCRIPTS = [(page.name, block) for page in PAGES for block in blocks(page, "python") if not FILE_NAME.match(block)]
CONSOLES = [(page.name, block) for page in PAGES for block in blocks(page, "console")]


METRICS = [
    name
    for name, function in inspect.getmembers(metrics, inspect.isfunction)
    if function.__module__ == metrics.__name__ and not name.startswith("_")
]


def commands() -> list[str]:
    """Every command, those of groups with their group's name."""
    top = typer.main.get_command(app)
    found = []
    for name, command in top.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found += [f"{name} {sub}" for sub in inner] if inner else [name]
    return found


@pytest.mark.parametrize("command", commands())
def test_every_command_is_described(command: str) -> None:
    assert f"palimpsest {command}" in TEXT


@pytest.mark.parametrize("name", [*registry.strategies.names(), *registry.streams.names()])
def test_every_strategy_and_stream_is_described(name: str) -> None:
    assert f"`{name}`" in TEXT


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_described(name: str) -> None:
    words = name.split("_")
    assert all(word in TEXT.lower() for word in words), f"{name} is not in the documentation"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PALIMPSEST_HOME", raising=False)


def run_commands(lines: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for line in lines.splitlines():
        if line.startswith("$ palimpsest "):
            code, _, err = palimpsest(capsys, monkeypatch, *shlex.split(line.removeprefix("$ palimpsest ")))
            assert code == 0, f"{line}: {err}"


@pytest.mark.parametrize(("page", "script"), SCRIPTS, ids=[page for page, _ in SCRIPTS])
def test_scripts_run(tiny_by_default: None, page: str, script: str) -> None:
    exec(compile(script, page, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("lines", [lines for _, lines in CONSOLES], ids=[page for page, _ in CONSOLES])
def test_commands_run(
    tiny_by_default: None, lines: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_commands(lines, capsys, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("lines", [lines for _, lines in CONSOLES], ids=[page for page, _ in CONSOLES])
def test_commands_run_with_the_shipped_backbone(
    lines: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_commands(lines, capsys, monkeypatch)


@pytest.mark.parametrize("page", [page for page in PAGES if files(page)], ids=lambda page: page.name)
def test_files_pass_their_own_tests(page: Path, pytester: pytest.Pytester) -> None:
    for name, content in files(page).items():
        pytester.path.joinpath(name).write_text(content, encoding="utf-8")
    pytester.syspathinsert()
    result = pytester.inline_run("-p", "no:cacheprovider")
    passed, _, failed = result.listoutcomes()
    assert passed and not failed, [str(report.longrepr) for report in failed]
