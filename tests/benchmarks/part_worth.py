"""What each part of MOS and SSIAT is worth, and what it costs to forget one sample.

For every reading: accuracy, and, once one training image of the middle task has gone, which share of the components is
other than before and which share of the training passes is made again. Beside it, for MOS how far the last adapter ends
from the first, block by block, as a share of how far the first one's training went; for SSIAT how far old class means
end from the true ones, as a share of how far they would if none was moved. Rates and lengths are the methods'
defaults; at those, adapters on this small backbone move little.

    part_worth.py [HOME [TASKS [ROW...]]]

Rows share the store in HOME (else one that is thrown away): what two readings have in common is trained once, and a
table that was cut off goes on where it was. ROW: only those whose name has one of these words in it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cl
from cl.components.builder import TRAINED, Builder
from cl.components.handles import Part
from cl.data.stream import Stream, Task
from cl.home.results import Result
from cl.home.runs import Runs
from cl.home.store import Record, Store
from cl.learning.hyper import resolve
from cl.learning.strategy import Model
from cl.models.loading import load_backbone
from cl.numerics import configure
from cl.parts.prototypes import class_means
from strategies.mos import Mos
from strategies.ssiat import Ssiat
from streams.glyphs import glyphs

ROWS: dict[str, Mapping[str, Any]] = {
    "mos": {},
    "mos: 13 pulls a step (released)": {"merge": "step13"},
    "mos: one pull at the end (option)": {"merge": "task_end"},
    "mos: official": Mos.presets["official"],
    "mos: no merge (not paper)": {"merge": "none"},
    "mos: evaluated with A_0 (not paper)": {"eval_pull": "first"},
    "mos: no ensemble (option)": {"ensemble": False},
    "mos: no alignment (not paper)": {"align_epochs": 0},
    "mos: no orthogonality (not paper)": {"reg": 0.0},
    "mos: 1 anchor (not paper)": {"merge": "anchor", "init": "anchor"},
    "mos: 2 free (not paper)": {"merge": "none", "init": "fresh"},
    "mos: 3 batch orth (not paper)": {"orth": "batch"},
    "mos: 4 fresh head (not paper)": {"head": "fresh"},
    "mos: 1+3+4 (not paper)": {"merge": "anchor", "init": "anchor", "orth": "batch", "head": "fresh"},
    "mos: 2+3+4 (not paper)": {"merge": "none", "init": "fresh", "orth": "batch", "head": "fresh"},
    "mos: 5 one adapter (not paper)": {"one_adapter": True, "orth": "batch", "head": "fresh"},
    "ssiat": {},
    "ssiat: official": Ssiat.presets["official"],
    "ssiat: no shift (not paper)": {"shift": "none"},
    "ssiat: mean shift (not paper)": {"shift": "mean"},
    "ssiat: fitted sigma (not paper)": {"sigma": "auto"},
    "ssiat: no decay (not paper)": {"decay": "none"},
    "ssiat: no stage 3 (not paper)": {"align_epochs": 0},
    "ssiat: fresh head (not paper)": {"ca_init": "fresh"},
    "ssiat: lda (not paper)": {"head": "lda"},
    "ssiat: restart 3 (not paper)": {"restart": 3},
    "ssiat: first session only (not paper)": {"adapt": "first", "ca_init": "fresh"},
    "ssiat: no adapter (not paper)": {"adapt": "none", "ca_init": "fresh"},
}  # fmt: skip


def used(home: Path, result: Result) -> dict[str, Record]:
    """Every component that the run is made of, by key."""
    store = Store(home)
    keys = Runs(store).served(result.figures["run"]).keys
    return {key: record for key in keys if (record := store.find(key)) is not None}


def trained(records: Mapping[str, Record]) -> int:
    """Images that training put through the backbone."""
    return sum(
        record.passes
        for record in records.values()
        if TRAINED.intersection(part["role"] for part in record.parts.values())
    )


def row(home: Path, name: str, stream: Stream, settings: Mapping[str, Any]) -> str:
    """One line of the table, in percent."""
    strategy = name.partition(":")[0]
    middle = stream.tasks[len(stream.tasks) // 2].train.ids[:1]
    rest = cl.run(stream.without(middle), strategy, settings=settings, home=home)
    after = used(home, rest)
    whole = cl.run(stream, strategy, settings=settings, home=home)
    before = used(home, whole)
    new = {key: record for key, record in after.items() if key not in before}
    figures = whole.figures
    numbers = [
        100 * figures["average_incremental_accuracy"],
        100 * figures["average_accuracy"],
        100 * len(new) / len(after),
        100 * trained(new) / max(1, trained(after)),
    ]
    relative = figures["blocks"].get("distances", {}).get("relative", [])
    beside = " ".join(f"{100 * value:.2f}" for value in relative[-1]) if len(relative) > 1 else "-"
    if strategy == "ssiat" and not {"adapt", "restart"}.intersection(settings):
        beside = f"means {100 * error_of_moved_means(home, stream, settings):.1f}"
    return f"{name:38} " + " ".join(f"{value:12.2f}" for value in numbers) + f"   {beside}"


def error_of_moved_means(home: Path, stream: Stream, settings: Mapping[str, Any]) -> float:
    """Distance of SSIAT's old means from the true ones under the last adapter, over that of means never moved."""
    strategy, adapter, moved = _learnt(home, stream, settings)
    kept = _learnt(home, stream, {**settings, "shift": "none"})[2]
    true = torch.cat([_true_means(strategy, adapter, past) for past in stream.tasks[:-1]])
    far, further = ((means[: len(true)] - true).norm(dim=1).mean() for means in (moved, kept))
    return float(far / further)


def _true_means(strategy: Ssiat, adapter: Part, past: Task) -> Tensor:
    features = strategy.features(past.train, adapter, strategy.hyper.scale).open()
    return class_means(past.train, features, classes=list(past.classes))["mean"]


def _learnt(home: Path, stream: Stream, settings: Mapping[str, Any]) -> tuple[Ssiat, Part, Tensor]:
    """SSIAT after the stream, from the store; the last adapter; the means of all classes as it keeps them."""
    hyper = resolve(Ssiat.Hyper, {}, [], settings)
    strategy, model = Ssiat(hyper, Builder(Store(home), load_backbone(), configure("cpu"), 0)), Model()
    for task in stream.tasks:
        model = strategy.extended(model, task, 0)
    chain = stream.tasks[0].id
    means = model[f"{chain}/means"].parts
    return strategy, model[f"{chain}/tuned"]["adapter"], (means.get("mean") or means[""]).open()["mean"]


def main() -> None:
    """Print one line a reading; seed 0."""
    given = dict(enumerate(sys.argv[1:]))
    words = sys.argv[3:]
    titles = ("incremental", "final", "other parts", "trained anew")
    print(
        f"{'':38} "
        + " ".join(f"{title:>12}" for title in titles)
        + "   last adapter from first, by block; or old means"
    )
    with tempfile.TemporaryDirectory() as scratch:
        home, stream = Path(given.get(0, scratch)), glyphs(tasks=int(given.get(1, 5)))
        for name, settings in ROWS.items():
            if not words or any(word in name for word in words):
                print(row(home, name, stream, settings), flush=True)


if __name__ == "__main__":
    main()
