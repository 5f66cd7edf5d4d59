"""One thread and repeatable hypothesis examples for every test; the tiny backbone as the one that is meant."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

from cl.deletion.oracle import run_cold

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # tests fork, which a process that has used cuda must not
os.environ["HF_HUB_OFFLINE"] = "1"  # no test waits for a hub
os.environ.pop("PALIMPSEST_BACKBONE", None)
settings.register_profile("palimpsest", deadline=None, derandomize=True)
settings.load_profile("palimpsest")


@pytest.fixture
def tiny_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that name no backbone use the tiny one, in other processes too."""
    monkeypatch.setenv("PALIMPSEST_BACKBONE", "cl.testing:tiny_backbone")


@pytest.fixture
def cold_in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Oracles without processes of their own."""
    monkeypatch.setattr(
        "cl.audit.verification.oracles",
        lambda tasks: [run_cold(task, tmp_path_factory.mktemp("cold")) for task in tasks],
    )
