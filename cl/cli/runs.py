"""`palimpsest run`, `compare`, `results` and `show`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from cl import registry
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
    find_run,
    out,
    percent,
    print_json,
    progress,
    settings_of,
    warn,
)
from cl.errors import BadInput, DeletionError, StoreError

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
    """Run one strategy over one stream. What the store holds already is not built again."""
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
    _print_run(dict(result.figures))


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
    """Run several strategies over several seeds, side by side, and write one page that opens in a browser.

    A preset or setting may be meant for one strategy, or for the stream: --preset ease.official, --set joint.when=last,
    --set stream.people=30. A plain name goes to all that have it.
    """
    from cl.home.layout import default_home
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
    from cl.home.results import Result

    if as_json:
        runs = [Result(one).as_json() for one in figures]
        print_json({"stream": stream, "runs": runs, "rows": rows, "page": str(page)})
        return
    _print_rows(rows)
    out.print(f"page: {page}", soft_wrap=True)


@app.command(epilog="Example: palimpsest results --json")
def results(home: Home = None, as_json: AsJson = False) -> None:
    """Every run so far, as a table."""
    from cl.home.layout import default_home
    from cl.home.results import Results

    place = home if home is not None else default_home()
    apart = _out_of_service(place)
    live = [one for one in Results(place).all() if one["run"] not in {row["run"] for row in apart}]
    if as_json:
        print_json([{**figures, "state": "live"} for figures in live] + apart)
        return
    run = Column("run", no_wrap=True)
    table = Table(run, "stream", "strategy", "seed", "average", "incremental", "forgetting", "created", box=None)
    for one in live:
        figures = (one["average_accuracy"], one["average_incremental_accuracy"], one["forgetting"])
        name = f"{one['strategy']} as {one['user']}" if one.get("user") else one["strategy"]
        row = (one["run"], escape(one["stream"]), escape(name), str(one["seed"]))
        table.add_row(*row, *map(percent, figures), one["created"][:16])
    for one in apart:
        table.add_row(one["run"], escape(one["stream"]), escape(one["strategy"]), str(one["seed"]), one["state"])
    out.print(table)


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
    """One run: accuracy matrix, growth, components with what they read, manifest."""
    from cl.cli.growth import print_growth
    from cl.home.ancestry import Ancestry
    from cl.home.layout import default_home, stale_runs
    from cl.home.lineage import components
    from cl.home.results import Results

    if (lineage is not None) + (dependents is not None) + growth > 1:
        raise BadInput("--lineage, --dependents and --growth each print one thing; give one of them")
    place = home if home is not None else default_home()
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
        known = Ancestry(place, figures["run"])
        rows = known.made_from(lineage) if lineage is not None else known.dependents(dependents or "")
        if lineage is not None and not rows:
            raise StoreError(f"the record of '{lineage}' is missing or damaged; run the stream again to mend it")
        if as_json:
            print_json(rows)
        elif lineage is not None:
            _print_tree(rows[0]["name"], rows, {row["name"]: row["reads"] for row in rows})
        else:
            _print_tree(known.called(dependents or ""), rows, _readers(rows))
        return
    figures["components"] = components(place, figures["run"])
    if as_json:
        print_json(figures)
        return
    _print_run(figures)
    _print_components(figures["components"])


def _print_run(figures: dict[str, Any]) -> None:
    title = f"[bold]{escape(figures['strategy'])}[/bold] on {escape(figures['stream'])}"
    whose = f", as {escape(figures['user'])}" if figures.get("user") else ""
    out.print(f"{title}{whose}, seed {figures['seed']}, run {figures['run']}", highlight=False)
    names = [escape(task["id"]) for task in figures["tasks"]]
    table = Table("after task", "seen", *names, "adapters", "parameters", box=None)
    total = 0
    for t, row in enumerate(figures["accuracy"]):
        total += figures["parameters_added"][t]
        table.add_row(
            names[t],
            percent(figures["curve"][t]),
            *map(percent, row),
            str(figures["adapters"][t]),
            f"{total:,}",
        )
    out.print(table)
    shown = ("average_accuracy", "average_incremental_accuracy", "forgetting", "backward_transfer")
    out.print(", ".join(f"{name.replace('_', ' ')} {percent(figures[name])}" for name in shown), highlight=False)
    if "online" in figures:
        _print_online(figures["online"])
    out.print(_confusion(figures), highlight=False)
    seconds = ", ".join(f"{phase} {value:.1f} s" for phase, value in figures["seconds"].items())
    out.print(f"built {figures['components_built']}, reused {figures['components_reused']}; {seconds}", highlight=False)
    out.print(f"manifest {figures['manifest'][:16]}", highlight=False)


def _print_online(online: dict[str, Any]) -> None:
    """What happened at test time: error by segment, then the summary."""
    table = Table("segment", "domain", "images", "online error", box=None)
    for one in online["test_time"]["segments"]:
        table.add_row(escape(one["id"]), escape(one["domain"]), str(one["images"]), percent(one["error"]))
    out.print(table)
    before, after = percent(online["source_error_before"]), percent(online["source_error_after"])
    line = f"mean online error {percent(online['mean_error'])}, on the source {before} before and {after} after"
    out.print(f"{line}, {online['updates']} updates", highlight=False)


def _confusion(figures: dict[str, Any]) -> str:
    """Where the last model's loss comes from: the wrong task, or the wrong class within the right one."""
    from cl.metrics import average_accuracy

    known, task = (average_accuracy(figures[name] or [[None]]) for name in ("known_task_accuracy", "task_correct"))
    return f"accuracy with known task {percent(known)}, task correct {percent(task)}"


def _print_components(rows: list[dict[str, Any]]) -> None:
    table = Table("component", "role", "parameters", "seconds", "reads", box=None)
    for row in rows:
        reads = escape(", ".join(row["reads"]))
        table.add_row(escape(row["name"]), row["role"], f"{row['numel']:,}", f"{row['seconds']:.2f}", reads)
    out.print(table)


def _readers(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What each component is read by directly, among `rows`."""
    readers: dict[str, list[str]] = {}
    for row in rows:
        for read in row["reads"]:
            readers.setdefault(read, []).append(row["name"])
    return readers


def _print_tree(top: str, rows: list[dict[str, Any]], below: Mapping[str, list[str]]) -> None:
    """The component `top` and, indented, what is `below` each; what came before is not unfolded again."""
    from rich.tree import Tree

    roles = {row["name"]: row["role"] for row in rows}
    root, shown = Tree(top, hide_root=True), set[str]()
    todo = [(root, top)]
    while todo:
        branch, name = todo.pop()
        notes = [roles[name]] if name in roles else []
        if name in shown and name in below:
            notes.append("see above")
        leaf = branch.add(f"{name} ({', '.join(notes)})" if notes else name)
        if name not in shown:
            shown.add(name)
            todo += [(leaf, other) for other in reversed(below.get(name, []))]
    out.print(root, highlight=False, markup=False)


def _print_rows(rows: list[dict[str, Any]]) -> None:
    names = ["average_accuracy", "average_incremental_accuracy", "forgetting"]
    if any(row["metrics"]["mean_error"]["n"] for row in rows):
        names = ["mean_error", "source_error_before", "source_error_after"]
    costs = ("passes an image", "ms an image")
    heads = ["strategy", *(name.replace("_", " ") for name in names), *costs, "seeds"]
    # Between words a heading may break, but no word of it is cut.
    table = Table(*(Column(head, min_width=max(map(len, head.split()))) for head in heads), box=None)
    for row in rows:
        found = [row["metrics"][name] for name in names]
        spread = [
            percent(one["mean"]) + (f" ± {100 * one['std']:.2f}" if one["std"] is not None else "") for one in found
        ]
        passes, seconds = (row["metrics"][name]["mean"] for name in ("passes_per_image", "seconds_per_image"))
        cost = [
            "-" if passes is None else f"{passes:.2f}",
            "-" if seconds is None else f"{1000 * seconds:.2f}",
        ]
        table.add_row(row["strategy"], *spread, *cost, str(found[0]["n"]))
    out.print(table)


def _related(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures with what needs another run: intransigence, where joint training ran after each task of the same seed."""
    from cl.metrics import intransigence

    joint = {one["seed"]: one["accuracy"] for one in figures if one["strategy"] == "joint"}
    return [
        {**one, "intransigence": intransigence(one["accuracy"], joint[one["seed"]])} if one["seed"] in joint else one
        for one in figures
    ]
