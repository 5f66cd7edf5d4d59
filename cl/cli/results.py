"""`palimpsest results` and `show`: what runs came to, read from the home. Neither loads torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cl.cli.common import AsJson, Home, existing_home, find_run, print_json
from cl.errors import BadInput, DeletionError, StoreError

if TYPE_CHECKING:
    from cl.home.ancestry import Ancestry

app = typer.Typer()


@app.command(epilog="Example: palimpsest results --json")
def results(home: Home = None, as_json: AsJson = False) -> None:
    """Every run so far, as a table."""
    from cl.cli.printing.runs import print_results
    from cl.home.results import Results

    place = existing_home(home)
    apart = _out_of_service(place)
    live = [one for one in Results(place).all() if one["run"] not in {row["run"] for row in apart}]
    if as_json:
        print_json([{**figures, "state": "live"} for figures in live] + apart)
        return
    print_results(live, apart)


def _out_of_service(home: Path) -> list[dict[str, Any]]:
    """Runs whose figures a deletion took away, or is about to."""
    from cl.home.layout import out_of_service

    found = out_of_service(home)
    if not found:
        return []
    from cl.home.runs import Runs
    from cl.home.store import Store

    runs = Runs(Store(home))
    requests = {run: runs.request(run) for run in found}
    return [
        {
            "run": run,
            "stream": request.stream.name,
            "strategy": request.strategy,
            "seed": request.seed,
            "state": found[run][0],
            "deletion": found[run][1],
        }
        for run, request in requests.items()
    ]


@app.command(epilog="Example: palimpsest show 3fa9 --growth")
def show(
    run: Annotated[str, typer.Argument(help="A run's id, or an unambiguous beginning of it.")],
    lineage: Annotated[str | None, typer.Option(help="Show what this component was made from.")] = None,
    dependents: Annotated[str | None, typer.Option(help="Show what would be tainted with this component.")] = None,
    growth: Annotated[
        bool, typer.Option("--growth", help="How the model grew: by layer and task, what was decided and why.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """One run: accuracy matrix, growth, components, manifest."""
    from cl.cli.printing.growth import print_growth
    from cl.cli.printing.runs import print_components, print_run, print_tree
    from cl.home.ancestry import Ancestry
    from cl.home.layout import stale_runs
    from cl.home.lineage import components
    from cl.home.results import Results

    if (lineage is not None) + (dependents is not None) + growth > 1:
        raise BadInput("--lineage, --dependents and --growth each print one thing; give one of them")
    place = existing_home(home)
    name = find_run(place, run)
    if name in stale_runs(place):
        raise DeletionError(
            f"run {name} is stale: its data were deleted; run it again, or forget execute --rebuild-all"
        )
    figures = dict(Results(place).find(name).figures)
    if growth:
        print_json(figures["growth"]) if as_json else print_growth(figures)
        return
    if lineage is not None or dependents is not None:
        top, rows, below = _ancestry(Ancestry(place, name), lineage, dependents or "")
        print_json(rows) if as_json else print_tree(top, rows, below)
        return
    figures["components"] = components(place, name)
    if as_json:
        print_json(figures)
        return
    print_run(figures)
    print_components(figures["components"])


def _ancestry(
    known: Ancestry, lineage: str | None, dependents: str
) -> tuple[str, list[dict[str, Any]], dict[str, list[str]]]:
    """The component that is asked about, a row for it and each of its relatives, and who stands below whom."""
    if lineage is None:
        rows = known.dependents(dependents)
        return known.called(dependents), rows, _readers(rows)
    rows = known.made_from(lineage)
    if not rows:
        raise StoreError(f"the record of '{lineage}' is missing or damaged; run the stream again to mend it")
    return rows[0]["name"], rows, {row["name"]: row["reads"] for row in rows}


def _readers(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What each component is read by directly, among `rows`."""
    readers: dict[str, list[str]] = {}
    for row in rows:
        for read in row["reads"]:
            readers.setdefault(read, []).append(row["name"])
    return readers
