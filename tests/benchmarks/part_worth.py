"""What each part of MOS and SSIAT is worth, and what it costs to forget one sample.

For every preset that changes the method: accuracy, how far the adapters end from the first, and, once one training
image of the middle task has gone, which share of the components is built again and which share of the images is
trained on again. Each preset has a home of its own, so that none finds another's components.

    part_worth.py [tasks [epochs [seeds]]]

The adapters' learning rates are far above the published ones: at those, adapters on glyphs hardly leave their
beginning, and every reading predicts the same. MOS's head keeps its published rate.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from statistics import fmean
from typing import Any

import cl
from cl.stream import Stream
from streams.glyphs import glyphs

TRAINING = {
    "mos": {"lr": 2.0, "head_rate": 0.0025, "batch_size": 16},
    "ssiat": {"lr": 0.5, "batch_size": 16},
}
MOS: dict[str, dict[str, Any]] = {
    "mos": {},
    "13 pulls a step": {"merge": "step13"},
    "one pull at the end": {"merge": "task_end"},
    "no merge": {"merge": "none"},
    "official": {"merge": "step13", "init": "mbar", "eval_pull": "official", "stats_pull": "official",
                 "proto_dropout": True},
    "evaluated with A_0": {"eval_pull": "first"},
    "no ensemble": {"ensemble": False},
    "no alignment": {"align_epochs": 0},
    "(1) anchor": {"merge": "anchor", "init": "anchor"},
    "(2) free": {"merge": "none", "init": "fresh"},
    "(3) batch orth": {"orth": "batch"},
    "(4) fresh head": {"head": "fresh"},
    "(1+3+4)": {"merge": "anchor", "init": "anchor", "orth": "batch", "head": "fresh"},
    "(2+3+4)": {"merge": "none", "init": "fresh", "orth": "batch", "head": "fresh"},
    "(5) one adapter": {"one_adapter": True, "orth": "batch", "head": "fresh"},
}  # fmt: skip
SSIAT: dict[str, dict[str, Any]] = {
    "ssiat": {},
    "official": {"pairing": "official", "decay": "official"},
    "no shift": {"shift": "none"},
    "mean shift": {"shift": "mean"},
    "fitted shift": {"sigma": "auto"},
    "no decay": {"decay": "none"},
    "no stage 3": {"align_epochs": 0},
    "fresh head": {"ca_init": "fresh"},
    "lda": {"head": "lda"},
    "restart 3": {"restart": 3},
    "first session only": {"adapt": "first", "ca_init": "fresh"},
    "no adapter": {"adapt": "none", "ca_init": "fresh"},
}


def worth(strategy: str, stream: Stream, settings: Mapping[str, Any], seed: int) -> list[float]:
    """Average incremental and final accuracy, largest relative distance, share built again, share trained again."""
    middle = stream.tasks[len(stream.tasks) // 2].train.ids[:1]
    with tempfile.TemporaryDirectory() as home:
        whole = cl.run(stream, strategy, seed=seed, settings=settings, home=home).figures
        rest = cl.run(stream.without(middle), strategy, seed=seed, settings=settings, home=home).figures
    distances = whole["blocks"].get("distances", {}).get("relative", [[float("nan")]])
    return [
        100 * whole["average_incremental_accuracy"],
        100 * whole["average_accuracy"],
        100 * max(map(max, distances)),
        100 * rest["components_built"] / whole["components_built"],
        100 * rest["forward_passes"]["train"] / max(1, whole["forward_passes"]["train"]),
    ]


def main() -> None:
    """Print one row a preset, in percent, means over the seeds."""
    given = [int(value) for value in sys.argv[1:]]
    tasks, epochs, seeds = [*given, *(5, 10, 1)[len(given) :]]
    stream = glyphs(tasks=tasks, train=20)
    print(f"{'':28} incremental  final  distance  built again  trained again")
    for strategy, readings in {"mos": MOS, "ssiat": SSIAT}.items():
        for name, change in readings.items():
            length = {"epochs": epochs} if strategy == "mos" else {"epochs": epochs, "first_epochs": epochs}
            rows = [worth(strategy, stream, {**TRAINING[strategy], **length, **change}, seed) for seed in range(seeds)]
            means = [fmean(column) for column in zip(*rows, strict=True)]
            incremental, final, distance, built, trained = means
            print(
                f"{strategy:6}{name:22} {incremental:11.2f} {final:6.2f} {distance:9.2f} {built:12.0f} {trained:14.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
