"""Cells side by side: the same bytes as one after the other, and nothing built twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cl.cli import main
from cl.errors import BadInput, UnknownName
from cl.running.compare import cells, run_cells
from cl.running.options import Options
from tests.photos import photographed
from tests.tiny import BACKBONE


def test_presets_and_settings_reach_whom_they_are_meant_for() -> None:
    grid = cells(
        "split-digits",
        ["ease", "joint", "simplecil"],
        2,
        Options(presets=["quick", "ease.official"], settings={"joint.when": "last", "lr": "0.1"}),
    )
    assert [(cell.options.seed, cell.strategy) for cell in grid[:3]] == [(0, "ease"), (0, "joint"), (0, "simplecil")]
    by_name = {cell.strategy: cell.options for cell in grid}
    assert by_name["ease"].presets == ("quick", "official") and by_name["joint"].presets == ("quick",)
    assert by_name["ease"].settings == {"lr": "0.1"}
    assert by_name["joint"].settings == {"when": "last", "lr": "0.1"} and by_name["simplecil"].settings == {}


@pytest.mark.parametrize(
    ("presets", "settings"), [(["fast"], {}), ([], {"when_": "last"}), ([], {"ease.when": "last"})]
)
def test_names_that_nobody_knows(presets: list[str], settings: dict[str, str]) -> None:
    with pytest.raises(UnknownName):
        cells("split-digits", ["ease", "joint"], 1, Options(presets=presets, settings=settings))


def test_a_strategy_named_twice_is_refused() -> None:
    with pytest.raises(BadInput, match="'ease' is named twice"):
        cells("split-digits", ["ease", "ease"], 1, Options())


def test_side_by_side_equals_one_after_the_other(tmp_path: Path) -> None:
    def figures(home: str, jobs: int) -> list[dict[str, object]]:
        grid = cells(
            "split-digits", ["ease", "simplecil"], 1, Options(settings={"epochs": "1"}, home=str(tmp_path / home))
        )
        return run_cells(grid, jobs)

    alone, beside = figures("alone", 1), figures("beside", 2)
    assert [one["components"] for one in alone] == [one["components"] for one in beside]
    assert [one["strategy"] for one in beside] == ["ease", "simplecil"]
    # What both need is built once, whoever comes first.
    assert sum(one["components_built"] for one in alone) == sum(one["components_built"] for one in beside)  # type: ignore


def test_compare_prints_rows_and_writes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "deep" / "page.html"
    words = ["compare", "split-digits", "simplecil", "--seeds", "2", "--jobs", "1", "--json", "--home", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["palimpsest", *words, "--out", str(page)])
    main()
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"stream", "runs", "rows", "page"}
    assert [run["seed"] for run in printed["runs"]] == [0, 1]
    (row,) = printed["rows"]
    found = row["metrics"]["average_accuracy"]
    assert found["n"] == 2 and found["std"] == 0 and found["mean"] == printed["runs"][0]["average_accuracy"]
    assert page.read_text(encoding="utf-8").startswith("<!") and printed["page"] == str(page)


def test_a_page_of_finished_runs_needs_no_images(tmp_path: Path) -> None:
    stream = photographed(tmp_path)
    options = Options(backbone=BACKBONE, home=tmp_path / "home", device="cpu")
    before = run_cells(cells(str(stream), ["simplecil", "slda"], 1, options), 1)
    shutil.rmtree(tmp_path / "images")
    after = run_cells(cells(str(stream), ["simplecil", "slda"], 1, options), 1)
    assert [one["manifest"] for one in after] == [one["manifest"] for one in before]
    assert all("figures as they were recorded" in one["warnings"][-1] for one in after)
    with pytest.raises(BadInput, match="is missing"):
        run_cells(cells(str(stream), ["simplecil", "slda"], 2, options), 1)
