"""What SEMA's threshold does: one run for each value of it, on a stream whose tasks' domains are known.

Prints a line for each threshold and draws the same as one figure: expansions, precision and recall against the stream's
domains, accuracy, parameters. 0 always grows and `inf` never does. What the home holds already is not run again.

    python -m tests.benchmarks.expansion_threshold HOME FIGURE.svg [SETTING=VALUE ...]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cl

STREAM = "recurring-glyphs"
THRESHOLDS = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, "inf")
Row = dict[str, float | None]
PANELS = {
    "expanding tasks": ("tasks",),
    "adapters added": ("added",),
    "against the domains": ("precision", "recall"),
    "average accuracy": ("accuracy",),
    "thousand parameters": ("thousands",),
}


def measured(threshold: float | str, home: Path, settings: Mapping[str, Any]) -> Row:
    """The figures of one run."""
    figures = cl.run(STREAM, "sema", settings={**settings, "threshold": threshold}, home=home).figures
    growth = figures["growth"]
    return {
        "tasks": len(growth["expansions"]),
        "added": sum(growth["adapters_added"][1:]),
        "precision": growth["truth"]["precision"],
        "recall": growth["truth"]["recall"],
        "accuracy": figures["average_accuracy"],
        "incremental": figures["average_incremental_accuracy"],
        "forgetting": figures["forgetting"],
        "thousands": growth["parameters"][-1] / 1000,
    }


def draw(rows: Sequence[Row], path: Path) -> None:
    """One panel below the other over the thresholds, in the order of THRESHOLDS."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 1.5 * len(PANELS)), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(len(PANELS), sharex=True), PANELS.items(), strict=True):
        for name in names:
            values = [float("nan") if row[name] is None else row[name] for row in rows]
            axes.plot(range(len(rows)), values, "o-", label=name)
        axes.set_title(title, fontsize=9, loc="left")
        axes.grid(True, axis="y", alpha=0.3)
        if len(names) > 1:
            axes.legend(fontsize=8, frameon=False)
    axes.set_xticks(range(len(rows)), [str(one) for one in THRESHOLDS])
    axes.set_xlabel("threshold")
    figure.savefig(path)


def main() -> None:
    """Run, print and draw."""
    home, path = Path(sys.argv[1]), Path(sys.argv[2])
    settings = dict(one.split("=", 1) for one in sys.argv[3:])
    rows = []
    for threshold in THRESHOLDS:
        rows.append(measured(threshold, home, settings))
        told = ", ".join(f"{name} {'–' if value is None else round(value, 4)}" for name, value in rows[-1].items())
        print(f"{STREAM}, threshold {threshold}: {told}", flush=True)
    draw(rows, path)


if __name__ == "__main__":
    main()
