"""`palimpsest run` and `compare`: doing what a strategy does over a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cl.cli.common import (
    AsJson,
    BackboneName,
    Data,
    Device,
    Home,
    Presets,
    Sets,
    StreamName,
    Threads,
    User,
    print_json,
    progress,
    settings_of,
    warn,
)
from cl.errors import BadInput

app = typer.Typer()


@app.command(epilog="Example: palimpsest run split-mnist-5k ease --preset quick --set bottleneck=8 --seed 1")
def run(
    stream: StreamName,
    strategy: Annotated[str, typer.Argument(help="A strategy's name; see palimpsest list strategies.")],
    backbone: BackboneName = None,
    seed: Annotated[int, typer.Option(help="The run's seed.")] = 0,
    preset: Presets = None,
    set_: Sets = None,
    device: Device = "auto",
    threads: Threads = 1,
    data: Data = None,
    user: User = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """One strategy over one stream. What the store holds already is not built again."""
    from cl.cli.printing.runs import print_run
    from cl.data.recipes import arguments_of
    from cl.learning.strategy import strategy_of
    from cl.running.run import run as run_stream
    from cl.running.settings import STREAM, shared_out

    hyper: Any = strategy_of(strategy).Hyper
    sets = shared_out(settings_of(set_), {strategy: hyper.__dataclass_fields__, STREAM: arguments_of(stream)})
    with progress(as_json):
        result = run_stream(
            stream,
            strategy,
            backbone=backbone,
            seed=seed,
            presets=preset or [],
            settings=sets[strategy],
            arguments=sets[STREAM],
            home=home,
            device=device,
            threads=threads,
            data=data,
            user=user,
        )
    warn(result.figures)
    if as_json:
        print_json(result.as_json())
        return
    print_run(result.figures)


@app.command(
    epilog="Example: palimpsest compare glyphs ease simplecil joint --seeds 3 --set joint.when=last --out page.html"
)
def compare(
    stream: StreamName,
    strategies: Annotated[list[str], typer.Argument(help="Two strategies or more.")],
    seeds: Annotated[int, typer.Option(help="Seeds 0 to N-1 for each strategy.")] = 1,
    jobs: Annotated[int | None, typer.Option(help="Runs side by side [default: the cores; 1 on cuda].")] = None,
    page: Annotated[Path, typer.Option("--out", help="Where the page goes.")] = Path("comparison.html"),
    link: Annotated[list[str] | None, typer.Option(help="A link on the page: TEXT=ADDRESS; may be repeated.")] = None,
    backbone: BackboneName = None,
    preset: Presets = None,
    set_: Sets = None,
    device: Device = "auto",
    threads: Threads = 1,
    data: Data = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Several strategies over several seeds, and one page of figures.

    A preset or setting may be meant for one strategy, or for the stream: --preset ease.official, --set joint.when=last,
    --set stream.people=30. A plain name goes to all that have it.
    """
    from cl import registry
    from cl.cli.printing import out
    from cl.cli.printing.runs import print_rows
    from cl.home.layout import default_home
    from cl.home.results import Result
    from cl.running.compare import cells, default_jobs, get_ready, run_cells
    from cl.running.options import Options

    if page.is_dir():
        raise BadInput(f"--out {page} is a folder; name a file in it")
    place = home if home is not None else default_home()
    options = Options(
        backbone,
        presets=preset or [],
        settings=settings_of(set_),
        home=str(place),
        device=device,
        threads=threads,
        data=data,
    )
    links = settings_of(link)
    if jobs != 1:
        get_ready()
    grid = cells(stream, strategies, seeds, options)
    report = registry.reports.get("comparison")
    with progress(as_json):
        figures = run_cells(grid, jobs if jobs is not None else default_jobs(device))
    for one in figures:
        warn(one)
    figures = _related(figures)
    rows = report.aggregate(figures)
    title = f"{', '.join(strategies)} on {stream}"
    report.write_comparison(figures, page, title=title, notes=figures[0]["notes"], links=list(links.items()))
    if as_json:
        runs = [Result(one).as_json() for one in figures]
        print_json({"stream": stream, "runs": runs, "rows": rows, "page": str(page)})
        return
    print_rows(rows)
    out.print(f"page: {page}", soft_wrap=True)


def _related(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures with what needs another run: intransigence, where joint training ran after each task of the same seed."""
    from cl.metrics import intransigence

    joint = {one["seed"]: one["accuracy"] for one in figures if one["strategy"] == "joint"}
    return [
        {**one, "intransigence": intransigence(one["accuracy"], joint[one["seed"]])} if one["seed"] in joint else one
        for one in figures
    ]
