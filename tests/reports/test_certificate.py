"""The certificate's page says what was asked, touched, proved and paid, and what is not covered; in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reports.certificate import CHECKS, write_certificate

GRAPH: dict[str, Any] = {
    "tasks": ["cats", "dogs"],
    "nodes": [
        {"name": "cats · train", "role": "train images", "task": 0, "action": "filter"},
        {"name": "dogs · train", "role": "train images", "task": 1, "action": "keep"},
        {"name": "cats/adapter", "role": "adapter", "task": 0, "action": "rebuild"},
        {"name": "dogs/adapter", "role": "adapter", "task": 1, "action": "keep"},
        {"name": "scores", "role": "cache", "task": 1, "action": "purge"},
    ],
    "edges": [[0, 2], [1, 3], [2, 4], [3, 4]],
}


def certificate(**more: Any) -> dict[str, Any]:
    """A certificate as `cl.audit.certificate` composes it."""
    made: dict[str, Any] = {
        "format": 1, "request": "5c01d2", "run": "3fa9", "strategy": "ease", "stream": "pets", "seed": 0,
        "received": "2026-01-02T03:04:05+00:00", "verified": "2026-01-02T04:04:05+00:00", "responsible": "officer",
        "reason": "art17", "method": "exact", "scope": "home", "selectors": ["subject", "sample", "sample"],
        "samples": 7, "train": 5, "test": 2, "commitment": "c" * 64, "emptied": {"classes": 0, "tasks": 0},
        "grade": "E0", "meaning": "bit-exact: the same bytes", "checks": {n: {"passed": True} for n in CHECKS},
        "manifest": {"before": "1" * 64, "after": "2" * 64, "oracle": "2" * 64},
        "components": {"tainted": 3, "rebuilt": 2, "reused": 9}, "purged": {"components": 3, "shards": 1, "pages": 0},
        "cost": {
            "predicted_seconds": 1.0, "seconds": 2.0, "steps": {"build": 2.0}, "full_retrain_seconds": 9.0,
            "oracle_seconds": 10.0, "blast_radius": {"components": 0.25}, "amplification": 3.0,
        },
        "exceptions": ["run 77 read the samples and was left as it is (scope: run)"],
        "not_covered": ["what the backbone was pretrained on"], "stale_runs": 1, "raw_data_needed": ["cats"],
        "graph": GRAPH, "ledger_head": "3" * 64, "public_key": "5" * 64, "signature": "4" * 128,
        "seed_commitment": "6" * 64, "software": {"release": "1", "sources": "7" * 64, "torch": "2", "timm": "1"},
    }  # fmt: skip
    return made | more


@pytest.fixture
def page(tmp_path: Path) -> str:
    return write_certificate(certificate(), tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    "said",
    [
        "people: 1, single samples: 2", "reason: art17", "5 of training, 2 of test", "every model in this storage",
        "had been made from the samples", "cats/adapter (adapter): made from them: built again without",
        "the same bytes", "25&nbsp;% of components", "9.0 s", "3 parts and intermediate results, 1 lists of images",
        "run 77 read the samples", "what the backbone was pretrained on", "officer", "read again of cats",
    ],
)  # fmt: skip
def test_it_says(page: str, said: str) -> None:
    assert said in page


def test_every_check_is_explained_and_a_failed_one_marked(tmp_path: Path) -> None:
    checks = {"V1": {"passed": True, "components": 4}, "V2": {"passed": False, "bytes_differ": 2}}
    page = write_certificate(certificate(checks=checks, grade="A"), tmp_path / "page.html").read_text()
    assert "4 parts of the model compared" in page and "2 contents differ" in page
    assert page.count("✓") == 1 and page.count("✗") == 1


def test_it_stands_alone_and_runs_nothing(page: str) -> None:
    assert "://" not in page and "<script" not in page and "default-src 'none'" in page


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    page = write_certificate(
        certificate(stream=evil, reason=evil, exceptions=[evil]), tmp_path / "page.html"
    ).read_text()
    assert "<img" not in page and "&lt;img" in page


def test_the_tainted_part_is_marked_in_the_picture(page: str) -> None:
    assert page.count('<circle class="rebuild"') == 2  # the dot and its place in the legend
    assert page.count('<path class="t"') == 2  # shard to adapter, adapter to scores
