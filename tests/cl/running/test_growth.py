"""Growth figures of runs, and what the command line makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cl.testing import tiny_backbone, tiny_stream
from tests.palimpsest import palimpsest
from tests.tiny import QUICK, run_tiny

SEMA: dict[str, Any] = {"rd_epochs": 1, "min_scan_batch": 1, "threshold": 0, "z": "abs"}


def test_an_adapter_in_every_block_with_every_task_is_linear(tmp_path: Path) -> None:
    growth = run_tiny(tmp_path, "ease").figures["growth"]
    assert growth["adapters"] == [[1, 1], [2, 2], [3, 3]]
    assert growth["adapters_added"] == [2, 2, 2] and growth["expansions"] == [2, 3]
    assert (growth["expansion_rate"], growth["reuse_rate"], growth["fill"]) == (1, 0, 1)
    blocks, d, r = 2, tiny_backbone().dim, QUICK["bottleneck"]
    assert growth["parameters_added"]["adapter"] == [blocks * (2 * d * r + r + d)] * 3
    assert growth["adapters_added_by_layer"] == [[1, 1]] * 3
    assert growth["parameters_added_by_layer"] == [[2 * d * r + r + d] * 2] * 3  # prototypes lie in no layer
    assert growth["adapter_parameters"][-1] == [3 * (2 * d * r + r + d)] * 2
    assert growth["truth"] is None and growth["decisions"] == []


def test_a_method_without_adapters_neither_expands_nor_reuses(tmp_path: Path) -> None:
    growth = run_tiny(tmp_path, "simplecil").figures["growth"]
    assert growth["adapters"] == [[0, 0]] * 3
    assert (growth["expansion_rate"], growth["reuse_rate"], growth["fill"]) == (0, 0, None)
    assert growth["growth_exponent"]["slope"] == pytest.approx(1)


def test_an_adapter_that_is_replaced_is_no_growth(tmp_path: Path) -> None:
    growth = run_tiny(tmp_path, "finetune").figures["growth"]
    assert growth["adapters"] == [[1, 1]] * 3 and growth["expansions"] == [] and growth["reuse_rate"] == 1


def test_decisions_and_routing_are_told_by_layer(tmp_path: Path) -> None:
    figures = run_tiny(tmp_path, "sema", tiny_stream(3, train=20), **SEMA).figures
    growth = figures["growth"]
    assert growth["adapters"] == [[1, 1], [2, 2], [3, 3]]
    assert [(one["task"], one["block"], len(one["z"])) for one in growth["decisions"]] == [
        ("t1", 0, 1), ("t1", 1, 1), ("t2", 0, 2), ("t2", 1, 2),
    ]  # fmt: skip
    assert all(one["expand"] and one["signal"] == min(one["z"]) for one in growth["decisions"])
    last = growth["routing"][-1]
    assert (last["task"], last["block"], list(last["weights"])) == ("t2", 1, ["t0", "t1", "t2"])
    assert sum(last["weights"].values()) == pytest.approx(1, abs=1e-5)


def test_several_scans_of_a_task_are_told_in_order(tmp_path: Path) -> None:
    official = {"order": "batch", "scan": "batch128", "stats": "ring500"}
    growth = run_tiny(tmp_path, "sema", tiny_stream(2, train=20), **SEMA, **official).figures["growth"]
    # The first scan stopped before it came to the second block, the rest of that pass was empty, the next one grew it.
    assert [(one["block"], one["expand"]) for one in growth["decisions"]] == [(0, True), (1, True)]
    added = growth["parameters_added_by_layer"][1]
    assert sum(added) == sum(
        row[1] for role, row in growth["parameters_added"].items() if role not in ("head", "decision")
    )


def test_show_growth(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    for strategy, settings in (("sema", SEMA), ("simplecil", {})):
        result = run_tiny(tmp_path, strategy, tiny_stream(3, train=20), **settings)
        code, out, _ = palimpsest(capsys, monkeypatch, "show", result.id, "--growth", "--home", str(tmp_path))
        assert code == 0 and ("expand" in out.split("expanded at")[0]) is (strategy == "sema")
        code, out, _ = palimpsest(capsys, monkeypatch, "show", result.id, "--growth", "--json", "--home", str(tmp_path))
        assert json.loads(out) == result.figures["growth"]


def test_growth_is_in_what_a_run_prints(tmp_path: Path) -> None:
    result = run_tiny(tmp_path, "ease")
    assert result.as_json()["growth"] == result.figures["growth"]
