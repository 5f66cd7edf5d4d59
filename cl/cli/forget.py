"""`palimpsest forget`, `ledger` and `residue`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from cl.cli.common import AsJson, Home, out, print_json, progress
from cl.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cl.deletion.forget_set import Selector
    from cl.deletion.plan import DeletionPlan, Step
    from cl.deletion.steps import Outcome

ID_WIDTH = 12  # of a request's or run's id

app = typer.Typer()
forget = typer.Typer(
    no_args_is_help=True,
    help="Delete samples from a run, exactly, and prove it.\n\n"
    "Begin with `palimpsest forget plan RUN --subject person-007`: it touches nothing.",
)
ledger = typer.Typer(no_args_is_help=True, help="The signed record of every deletion.")
app.add_typer(forget, name="forget")
app.add_typer(ledger, name="ledger")

Run = Annotated[str, typer.Argument(help="A run's id, or an unambiguous beginning of it.")]
Request = Annotated[str, typer.Argument(help="A request's id; see palimpsest forget status.")]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="All samples of a task; may be repeated.")]
Classes = Annotated[list[str] | None, typer.Option("--class", help="All samples of a class; may be repeated.")]
Subjects = Annotated[list[str] | None, typer.Option("--subject", help="All samples of a person; may be repeated.")]
Ids = Annotated[list[str] | None, typer.Option("--sample", help="One sample by its id; may be repeated.")]
IdsFile = Annotated[Path | None, typer.Option("--ids-file", help="A text file, one sample id a line.")]
ScopeOption = Annotated[
    Literal["home", "run"], typer.Option(help="All runs of the home that read the data, or this one alone.")
]


@forget.command(epilog="Example: palimpsest forget plan 3fa9 --subject person-007 --class three")
def plan(
    run: Run,
    task: Tasks = None,
    class_: Classes = None,
    subject: Subjects = None,
    sample: Ids = None,
    ids_file: IdsFile = None,
    scope: ScopeOption = "home",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """What a deletion will touch, and what it will cost. Writes nothing."""
    from cl.deletion.forget_set import need_selectors
    from cl.deletion.plan import plan as make_plan
    from cl.running.reopening import open_run

    selectors = _selectors(task, class_, subject, sample, ids_file)
    need_selectors(selectors)
    with progress(quiet=True):
        found = make_plan(open_run(_home(home), run), selectors, scope)
    if as_json:
        print_json(found.as_json())
        return
    _print_plan(found)


@forget.command(epilog="Example: palimpsest forget execute 3fa9 --subject person-007 --reason art17 --yes")
def execute(
    run: Run,
    task: Tasks = None,
    class_: Classes = None,
    subject: Subjects = None,
    sample: Ids = None,
    ids_file: IdsFile = None,
    scope: ScopeOption = "home",
    method: Annotated[
        Literal["exact", "drop", "retrain"],
        typer.Option(help="exact, or a baseline measured on a copy: drop the task's parts, or retrain everything."),
    ] = "exact",
    reason: Annotated[str, typer.Option(help="A code for the ledger; never a name.")] = "unspecified",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needed where nobody can answer.")] = False,
    rebuild_all: Annotated[
        bool, typer.Option("--rebuild-all", help="Build stale runs again now, not on next use.")
    ] = False,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Delete, and print the request's id. Begun again after a crash, it goes on where it stopped."""
    from cl.deletion.execution import execute as carry_out
    from cl.deletion.execution import rebuild_stale

    selectors = _selectors(task, class_, subject, sample, ids_file)

    def confirm(found: DeletionPlan) -> None:
        if yes:
            return
        if not sys.stdin.isatty():
            raise BadInput("nobody is here to say yes; look at palimpsest forget plan, then add --yes")
        _print_plan(found)
        if not typer.confirm("Delete?", err=True):
            raise BadInput("nothing was deleted")

    with progress(quiet=True):
        outcome = carry_out(_home(home), run, selectors, scope=scope, method=method, reason=reason, confirm=confirm)
        if rebuild_all:
            rebuild_stale(_home(home))
    if as_json:
        print_json(outcome.as_json())
        return
    _print_outcome(outcome)


@forget.command(epilog="Example: palimpsest forget verify 5c01d2 --lineage")
def verify(
    request: Request,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="V5 too: nothing outside the closure follows the data.")
    ] = False,
    ids_file: IdsFile = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Compare with a run that never saw the samples, made cold in new processes. Exit code 1 below E0."""
    from cl.audit.verification import verify as check

    ids = _lines(ids_file) if ids_file else None
    with progress(quiet=True):
        evidence = check(_home(home), request, lineage=lineage, ids=ids)
    if as_json:
        print_json(evidence.as_json())
    else:
        _print_checks(evidence.checks.as_json())
        out.print(f"grade [bold]{evidence.grade}[/bold], manifest {evidence.manifest_after[:16]}", highlight=False)
    if evidence.grade != "E0":
        raise typer.Exit(1)


@forget.command(epilog="Example: palimpsest forget certify 5c01d2 --out .")
def certify(
    request: Request,
    folder: Annotated[Path | None, typer.Option("--out", help="Copy certificate and page here too.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Sign the certificate of a verified deletion and write its page; what was deleted is forgotten for good."""
    from cl.audit.certificate import certify as sign
    from cl.audit.certificate import copy_to
    from cl.deletion.ledger import writing

    place = _home(home)
    with writing(place):
        path = sign(place, request)
    made = copy_to(path, folder) if folder else [path, path.with_suffix(".html")]
    if as_json:
        print_json({"certificate": str(made[0]), "page": str(made[1])})
        return
    for one in made:
        out.print(str(one), soft_wrap=True, highlight=False)


@forget.command(epilog="Example: palimpsest forget status --json")
def status(
    request: Annotated[str | None, typer.Argument(help="One request; all of them if left out.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Every request and what has become of it, read from the ledger."""
    from cl.deletion.ledger import statuses

    found = [one.as_json() for one in statuses(_home(home), request)]
    if as_json:
        print_json(found[0] if request else found)
        return
    table = Table(box=None)
    for name in ("request", "state", "run", "method", "scope", "samples", "grade", "received"):
        table.add_column(name, min_width=ID_WIDTH if name in ("request", "run") else None)  # ids are for copying
    for one in found:
        table.add_row(*[str(one[name] if one[name] is not None else "") for name in one])
    out.print(table)


@forget.command(epilog="Example: palimpsest forget readmit 5c01d2")
def readmit(request: Request, home: Home = None, as_json: AsJson = False) -> None:
    """Lift the suppression: the data may come again, at the next run."""
    from cl.deletion.execution import readmit as lift

    count = lift(_home(home), request)
    if as_json:
        print_json({"request": request, "samples": count})
        return
    out.print(f"{count} samples may come again; palimpsest run builds with them", highlight=False)


@ledger.command("verify", epilog="Example: palimpsest ledger verify")
def verify_ledger(home: Home = None, as_json: AsJson = False) -> None:
    """Check chain, signatures and the heads that certificates name."""
    from cl.audit.certificate import anchors
    from cl.deletion.ledger import Ledger

    place = _home(home)
    heads = anchors(place)
    records = Ledger(place).verify(heads)
    if as_json:
        print_json({"records": len(records), "anchors": len(heads), "head": Ledger(place).head})
        return
    out.print(f"{len(records)} records, {len(heads)} certificates: the ledger holds", highlight=False)


@ledger.command("show", epilog="Example: palimpsest ledger show --json")
def show_ledger(home: Home = None, as_json: AsJson = False) -> None:
    """Every record, oldest first."""
    from cl.deletion.ledger import Ledger

    records = Ledger(_home(home)).records()
    if as_json:
        print_json([one.as_json() for one in records])
        return
    table = Table("seq", "time", "actor", "type", "request", "hash", box=None)
    for one in records:
        step = one.body.get("step")
        name = f"{one.type} ({step})" if step and one.type.startswith("step") else one.type
        table.add_row(str(one.seq), one.time, one.actor, name, one.request, one.hash[:12])
    out.print(table)


@app.command(epilog="Example: palimpsest residue 5c01d2 --ids-file ids.txt")
def residue(request: Request, ids_file: IdsFile = None, home: Home = None, as_json: AsJson = False) -> None:
    """Search the home for what is left of deleted samples. Exit code 1 if there is anything."""
    from cl.audit.verification import case_of, residue_of
    from cl.running.reopening import open_run

    place = _home(home)
    case = case_of(place, request, _lines(ids_file) if ids_file else None)
    hits = residue_of(place, open_run(place, case.run), case)
    if as_json:
        print_json({"request": request, "hits": [hit.__dict__ for hit in hits]})
    else:
        for hit in hits:
            out.print(f"{hit.kind} in {hit.path}: {hit.count}", highlight=False, soft_wrap=True)
        out.print(f"{len(hits)} files with residue" if hits else "nothing is left", highlight=False)
    if hits:
        raise typer.Exit(1)


def _home(home: Path | None) -> Path:
    from cl.home.layout import default_home

    return home if home is not None else default_home()


def _selectors(
    tasks: list[str] | None,
    classes: list[str] | None,
    subjects: list[str] | None,
    samples: list[str] | None,
    ids_file: Path | None,
) -> list[Selector]:
    from cl.deletion.forget_set import Selector

    return [
        *(Selector("task", name) for name in tasks or []),
        *(Selector("class", name) for name in classes or []),
        *(Selector("subject", name) for name in subjects or []),
        *(Selector("sample", name) for name in [*(samples or []), *(_lines(ids_file) if ids_file else [])]),
    ]


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not text in UTF-8; write one sample id a line") from error


def _print_plan(found: DeletionPlan) -> None:
    forget_set = found.forget
    out.print(
        f"forget [bold]{len(forget_set.samples)}[/bold] samples of run {found.run}: {forget_set.train} of training, "
        f"{forget_set.test} of test, in {len(found.tainted_shards)} shards",
        highlight=False,
    )
    notes = [
        ("classes emptied", ", ".join(forget_set.classes_emptied)),
        ("tasks emptied", ", ".join(forget_set.tasks_emptied)),
        ("equal content under another id, not selected", ", ".join(f"{b} (as {a})" for a, b in forget_set.twins)),
        ("images read again of tasks", ", ".join(found.raw_data_needed)),
        ("other runs that read the data", ", ".join(found.other_runs)),
        ("changed since the run, so that nothing can be reused", ", ".join(found.changed)),
        ("mind", "; ".join(forget_set.warnings)),
    ]
    for title, text in notes:
        if text:
            out.print(f"{title}: {text}", highlight=False, soft_wrap=True)
    table = Table("component", "roles", "action", "grade", "because", box=None)
    for step, count in _grouped(found.steps):
        name = f"{step.name} ({count})" if count > 1 else step.name
        table.add_row(name, ", ".join(step.roles), step.action, step.grade, " ".join(step.path))
    out.print(table)
    blast = ", ".join(f"{100 * value:.0f} % of {name}" for name, value in found.blast_radius.items())
    out.print(f"tainted: {blast}; build {found.build}, reuse {found.reuse}", highlight=False)
    out.print(
        f"predicted {found.predicted_seconds:.1f} s; full retraining {found.full_retrain_seconds:.1f} s; "
        f"{found.amplification:.1f} image visits for each forgotten sample",
        highlight=False,
    )


def _grouped(steps: Sequence[Step]) -> list[tuple[Step, int]]:
    """One row for components of one name and fate, such as the many features; one reason stands for all."""
    groups: dict[tuple[str, str], list[Step]] = {}
    for step in sorted(steps, key=lambda one: one.roles == ("cache",)):
        groups.setdefault((step.name, step.action), []).append(step)
    return [(group[0], len(group)) for group in groups.values()]


def _print_outcome(outcome: Outcome) -> None:
    out.print(f"request [bold]{outcome.request}[/bold]: {outcome.state}", highlight=False)
    out.print(
        f"forgot {outcome.forgotten} samples; {outcome.tainted} tainted components, {outcome.rebuilt} built again, "
        f"{outcome.reused} reused, {outcome.purged} purged",
        highlight=False,
        soft_wrap=True,
    )
    out.print(
        f"{outcome.seconds:.1f} s (predicted {outcome.predicted_seconds:.1f} s, full retraining "
        f"{outcome.full_retrain_seconds:.1f} s)",
        highlight=False,
    )
    if outcome.state == "purged":  # not where there was nothing to delete
        out.print(f"next: palimpsest forget verify {outcome.request}", highlight=False)


def _print_checks(checks: dict[str, dict[str, Any]]) -> None:
    table = Table("check", "passed", "numbers", box=None)
    for name in sorted(checks):
        numbers = ", ".join(f"{key} {value}" for key, value in checks[name].items() if key != "passed" and value != [])
        table.add_row(name, "yes" if checks[name]["passed"] else "[bold]no[/bold]", numbers)
    out.print(table)
