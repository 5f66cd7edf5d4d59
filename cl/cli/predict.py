"""`palimpsest predict`: what a finished run's model says of images that belong to no stream."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cl.cli.common import AsJson, Home, User, existing_home, print_json, progress, warn

if TYPE_CHECKING:
    from torch import Tensor

app = typer.Typer()

TOP = 5


@app.command(epilog="Example: palimpsest predict 3fa9 cat.png owl.jpg --json")
def predict(
    run: Annotated[str, typer.Argument(help="A run's id, or an unambiguous beginning of it.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    user: User = None,
    device: Annotated[str, typer.Option(help="auto (the run's own, if it is there), cpu or cuda.")] = "auto",
    backbone: Annotated[
        str | None, typer.Option(help="The run's backbone, where its file lies elsewhere on this machine.")
    ] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Classify images with what a run has learnt. Nothing of them is stored, and no training image is needed."""
    from rich.markup import escape
    from rich.table import Column, Table

    from cl.cli.printing import out
    from cl.running.classifier import open as open_model

    place = existing_home(home)
    with progress(as_json):
        model = open_model(run, place, device, backbone, user)
        warn({"warnings": model.warnings})
        scores = model.scores(images)
    rows = [_row(path, row, model.classes) for path, row in zip(images, scores, strict=True)]
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


def _row(path: Path, scores: Tensor, classes: tuple[str, ...]) -> dict[str, Any]:
    best = scores.sort(descending=True, stable=True)  # of equal scores the first class, as in a run's predictions
    top = [[classes[column], float(score)] for score, column in zip(best.values, best.indices, strict=True)][:TOP]
    name, score = top[0] if top else (None, None)
    return {"image": str(path), "class": name, "score": score, "top": top}
