"""Small runs on the conformance suite's tiny stream and backbone, for tests of homes and stores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cl import registry
from cl.home.results import Result
from cl.models.vit import TimmBackbone
from cl.running.run import run
from cl.testing import tiny_backbone, tiny_stream

FAST = {
    "epochs": 2, "batch_size": 8, "bottleneck": 4, "source_epochs": 1, "source_batch_size": 8, "passes": 2,
    "high_rank": 4,
}  # fmt: skip


def fast(strategy: type) -> dict[str, Any]:
    """The settings of FAST that `strategy` has."""
    known = strategy.Hyper.__dataclass_fields__  # type: ignore[attr-defined]
    return {name: value for name, value in FAST.items() if name in known}


def tiny_run(home: Path, strategy: str = "ease", **more: Any) -> Result:
    """A run of a second at most: the tiny stream on the tiny backbone."""
    settings = fast(registry.strategies.get(strategy))
    given = {"stream": tiny_stream(), "backbone": tiny_backbone(), "settings": settings, "device": "cpu", **more}
    return run(strategy=strategy, home=home, **given)


@pytest.fixture
def named_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name of a backbone stands for the tiny one."""

    def load(name: str, device: str) -> TimmBackbone:
        return tiny_backbone()

    monkeypatch.setattr("cl.running.run.load_backbone", load)
    monkeypatch.setattr("cl.running.rerun.load_backbone", load)


def manifest(home: Path) -> Mapping[str, Any]:
    """The manifest of the only run in `home`."""
    (path,) = home.glob("runs/*/manifest.json")
    content: Mapping[str, Any] = json.loads(path.read_bytes())
    return content
