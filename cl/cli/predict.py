"""`palimpsest predict`: what a finished run's model says of images that belong to no stream."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cl.cli.common import AsJson, Home, User, existing_home, find_run, print_json, progress

if TYPE_CHECKING:
    from torch import Tensor

    from cl.running.rerun import Replay

app = typer.Typer()

TOP = 5


@app.command(epilog="Example: palimpsest predict 3fa9 cat.png owl.jpg --json")
def predict(
    run: Annotated[str, typer.Argument(help="A run's id, or an unambiguous beginning of it.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    user: User = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Classify images with what a run has learnt. Nothing of them is stored."""
    from rich.markup import escape
    from rich.table import Column, Table

    from cl.cli.printing import out
    from cl.running.rerun import Replay

    place = existing_home(home)
    name = find_run(place, run)
    with progress(as_json):
        found = Replay(place, name, user)
        rows = _abstained(images) if found.abstains else _classified(found, images)
    if user is not None:
        rows = [{**row, "abstain": row["class"] is None} for row in rows]
    if as_json:
        print_json(rows)
        return
    table = Table(Column("image", overflow="fold"), Column("class", overflow="fold"), "score", "next best", box=None)
    for row in rows:
        others = ", ".join(f"{name} {score:.3f}" for name, score in row["top"][1:])
        score = "" if row["score"] is None else f"{row['score']:.3f}"
        table.add_row(escape(row["image"]), escape(row["class"] or "(abstains)"), score, escape(others))
    out.print(table)


def _classified(found: Replay, images: list[Path]) -> list[dict[str, Any]]:
    import numpy as np

    from cl.data.images import read_square
    from cl.data.samples import Samples

    size = next(shard for shard in found.stream.shards if len(shard)).images([0]).shape[-1]
    visitors = Samples.visiting(np.stack([read_square(path, size) for path in images]))
    scores = found.strategy.scores(found.model, visitors).open()["scores"]
    return [_row(path, row, found.model.classes) for path, row in zip(images, scores, strict=True)]


def _abstained(images: list[Path]) -> list[dict[str, Any]]:
    from cl.data.images import read_square

    for path in images:  # what is no image is refused, whoever asks
        read_square(path, 32)
    return [_abstention(path) for path in images]


def _abstention(path: Path) -> dict[str, Any]:
    return {"image": str(path), "class": None, "score": None, "top": []}


def _row(path: Path, scores: Tensor, classes: tuple[str, ...]) -> dict[str, Any]:
    best = scores.sort(descending=True, stable=True)  # of equal scores the first class, as in a run's predictions
    top = [[classes[column], float(score)] for score, column in zip(best.values, best.indices, strict=True)][:TOP]
    return {"image": str(path), "class": top[0][0], "score": top[0][1], "top": top}
