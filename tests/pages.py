"""Plausible figures of runs, and the pages made of them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np

from reports import write_comparison

Figures = dict[str, Any]


def figures(strategy: str = "ease", seed: int = 0, tasks: int = 3, **changes: Any) -> Figures:
    """A run as it is recorded, with plausible figures that differ by strategy and seed."""
    draw = random.Random(f"{strategy} {seed}")
    matrix = [[draw.uniform(0.5, 0.9) if i <= t else None for i in range(tasks)] for t in range(tasks)]
    curve = [float(np.mean([value for value in row if value is not None])) for row in matrix]
    return {
        "run": f"{strategy}-{seed}", "stream": "digits", "strategy": strategy, "seed": seed, "backbone": "tiny",
        "presets": ["quick"], "hyper": {"epochs": 2, "lr": 0.03},
        "tasks": [{"id": f"t{t}", "classes": [f"{t}a", f"{t}b"]} for t in range(tasks)],
        "classes_per_task": [2] * tasks, "accuracy": matrix, "curve": curve,
        "average_accuracy": curve[-1], "average_incremental_accuracy": float(np.mean(curve)),
        "forgetting": draw.uniform(0, 0.2), "backward_transfer": -draw.uniform(0, 0.2),
        "forward_transfer": None, "intransigence": None,
        "adapters": list(range(1, tasks + 1)), "parameters_added": [1000 + seed] * tasks,
        "components_built": 5, "components_reused": 2, "forward_passes": {"train": 10}, "seconds": {"train": 1.5},
        "peak_memory_bytes": 2**30, "manifest": f"{seed:064x}", "components": {"t0/adapter": "ab" * 32},
        "cost": {
            "train": {"seconds": 3.0 + seed, "samples": 40, "passes": 200},
            "evaluate": {"seconds": 1.0, "samples": 20, "passes": 20},
        },
        "created": "2026-01-02T03:04:05+00:00", **changes,
    }  # fmt: skip


def page(tmp_path: Path, runs: list[Figures], **more: Any) -> str:
    return write_comparison(runs, tmp_path / "page.html", title="A title", **more).read_text(encoding="utf-8")
