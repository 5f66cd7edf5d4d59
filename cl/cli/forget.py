"""`palimpsest forget` and `residue`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cl.cli.common import AsJson, Home, existing_home, help_if_alone, print_json, progress
from cl.errors import BadInput

if TYPE_CHECKING:
    from cl.deletion.forget_set import Selector
    from cl.deletion.plan import DeletionPlan

app = typer.Typer()
forget = typer.Typer(
    callback=help_if_alone,
    invoke_without_command=True,
    help="Delete samples from a run, exactly, and prove it.\n\n"
    "Begin with `palimpsest forget plan RUN --subject person-007`: it touches nothing.",
)
app.add_typer(forget, name="forget")

Run = Annotated[str, typer.Argument(help="A run's id, or an unambiguous beginning of it.")]
Request = Annotated[str, typer.Argument(help="A request's id; see palimpsest forget status.")]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="All samples of a task; may be repeated.")]
Classes = Annotated[list[str] | None, typer.Option("--class", help="All samples of a class; may be repeated.")]
Subjects = Annotated[list[str] | None, typer.Option("--subject", help="All samples of a person; may be repeated.")]
Ids = Annotated[list[str] | None, typer.Option("--sample", help="One sample by its id; may be repeated.")]
IdsFile = Annotated[Path | None, typer.Option("--ids-file", help="A text file, one sample id a line.")]
Keep = Annotated[
    list[str] | None,
    typer.Option("--keep", help="An identical copy that stays: its id, or STREAM:ID; may be repeated."),
]
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
    keep: Keep = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """What a deletion will touch, and what it will cost. Writes nothing."""
    from cl.cli.printing.deletion import print_plan
    from cl.deletion.forget_set import need_selectors
    from cl.deletion.plan import plan as make_plan
    from cl.running.reopening import open_run

    selectors = _selectors(task, class_, subject, sample, ids_file)
    need_selectors(selectors)
    with progress(quiet=True):
        found = make_plan(open_run(existing_home(home), run), selectors, scope, keep or [])
    if as_json:
        print_json(found.as_json())
        return
    print_plan(found)


@forget.command(epilog="Example: palimpsest forget execute 3fa9 --subject person-007 --reason art17 --yes")
def execute(
    run: Run,
    task: Tasks = None,
    class_: Classes = None,
    subject: Subjects = None,
    sample: Ids = None,
    ids_file: IdsFile = None,
    scope: ScopeOption = "home",
    keep: Keep = None,
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
    from cl.cli.printing.deletion import print_outcome, print_plan
    from cl.deletion.execution import execute as carry_out
    from cl.deletion.execution import rebuild_stale

    selectors = _selectors(task, class_, subject, sample, ids_file)

    def confirm(found: DeletionPlan) -> None:
        if yes:
            return
        if not sys.stdin.isatty():
            raise BadInput("nobody is here to say yes; look at palimpsest forget plan, then add --yes")
        print_plan(found)
        if not typer.confirm("Delete?", err=True):
            raise BadInput("nothing was deleted")

    place = existing_home(home)
    with progress(quiet=True):
        outcome = carry_out(
            place, run, selectors, scope=scope, method=method, reason=reason, keep=keep or [], confirm=confirm
        )
        if rebuild_all:
            rebuild_stale(place)
    if as_json:
        print_json(outcome.as_json())
        return
    print_outcome(outcome)


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
    """Compare with a run that never saw the samples. It is made cold in new processes; exit code 1 below E0."""
    from cl.audit.verification import verify as check
    from cl.cli.printing.deletion import print_checks

    ids = _lines(ids_file) if ids_file else None
    with progress(quiet=True):
        evidence = check(existing_home(home), request, lineage=lineage, ids=ids)
    if as_json:
        print_json(evidence.as_json())
    else:
        print_checks(evidence)
    if evidence.grade != "E0":
        raise typer.Exit(1)


@forget.command(epilog="Example: palimpsest forget certify 5c01d2 --out .")
def certify(
    request: Request,
    folder: Annotated[Path | None, typer.Option("--out", help="Copy certificate and page here too.")] = None,
    grade: Annotated[
        Literal["E0", "E1", "A"],
        typer.Option(help="The lowest grade to sign: A proves nothing exact, and the page says so first."),
    ] = "E1",
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Sign the certificate of a verified deletion, and write its page. What was deleted is forgotten for good."""
    from cl.audit.certificate import certify as sign
    from cl.audit.certificate import copy_to
    from cl.cli.printing import out
    from cl.home.ledger import writing

    place = existing_home(home)
    with writing(place):
        path = sign(place, request, grade)
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
    from cl.cli.printing.deletion import print_requests
    from cl.home.ledger import statuses

    found = [one.as_json() for one in statuses(existing_home(home), request)]
    if as_json:
        print_json(found[0] if request else found)
        return
    print_requests(found)


@forget.command(epilog="Example: palimpsest forget readmit 5c01d2")
def readmit(request: Request, home: Home = None, as_json: AsJson = False) -> None:
    """Lift the suppression: the data may come again, at the next run."""
    from cl.cli.printing import out
    from cl.deletion.keeping_out import readmit as lift

    count = lift(existing_home(home), request)
    if as_json:
        print_json({"request": request, "samples": count})
        return
    out.print(f"{count} samples may come again; palimpsest run builds with them", highlight=False)


@forget.command(epilog="Example: palimpsest forget receipt 5c01d2 --subject person-007 --out receipt.json")
def receipt(
    request: Request,
    subject: Annotated[str | None, typer.Option("--subject", help="The person who gets it.")] = None,
    out_file: Annotated[Path | None, typer.Option("--out", help="Write it here.")] = None,
    check: Annotated[Path | None, typer.Option("--check", help="A receipt that somebody shows: is it true?")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """What lets a person show later that her images were meant. To be had until the request is certified."""
    from cl.cli.printing import out
    from cl.deletion.receipts import check_receipt, read_receipt, receipt_for, written
    from cl.home.ledger import Ledger
    from cl.home.writing import write_atomic

    place = existing_home(home)
    if check is not None:
        shown = read_receipt(check)
        check_receipt(shown, Ledger(place).known(request))
        found = {"request": request, "subject": shown.subject, "samples": len(shown.samples), "holds": True}
        print_json(found) if as_json else out.print(f"the receipt holds: {len(shown.samples)} samples", highlight=False)
        return
    if subject is None:
        raise BadInput("say who gets it (--subject), or give one to check (--check)")
    made = receipt_for(place, request, subject)
    if out_file is None:
        sys.stdout.write(written(made) + "\n")
        return
    write_atomic(out_file, (written(made) + "\n").encode(), mode=0o600)
    print_json({"receipt": str(out_file)}) if as_json else out.print(str(out_file), soft_wrap=True, highlight=False)


@forget.command(epilog="Example: palimpsest forget admit 5c01d2")
def admit(request: Request, home: Home = None, as_json: AsJson = False) -> None:
    """Let in what comes later of the person that was forgotten. What was deleted stays out."""
    from cl.cli.printing import out
    from cl.deletion.keeping_out import admit as let_in

    let_in(existing_home(home), request)
    if as_json:
        print_json({"request": request, "admitted": True})
        return
    out.print("later samples of that person come in at the next run", highlight=False)


@forget.command(epilog="Example: palimpsest forget reapply 5c01d2 --ids-file ids.txt")
def reapply(
    request: Request,
    ids_file: Annotated[Path, typer.Option("--ids-file", help="The ids that were deleted, one a line.")],
    run: Annotated[str | None, typer.Option(help="A run that read them, where the ledger is lost too.")] = None,
    subject: Subjects = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Keep deleted samples out again, where the list of them or its key was lost."""
    from cl.cli.printing import out
    from cl.deletion.keeping_out import reapply as keep_out

    left = keep_out(existing_home(home), request, _lines(ids_file), run=run, subjects=subject or [])
    if as_json:
        print_json({"request": request, "requests_left": left})
        return
    out.print(f"kept out again; {left} more requests are to be told" if left else "kept out again", highlight=False)


@app.command(epilog="Example: palimpsest residue 5c01d2 --ids-file ids.txt")
def residue(request: Request, ids_file: IdsFile = None, home: Home = None, as_json: AsJson = False) -> None:
    """Search the home for what is left of deleted samples. Exit code 1 if there is anything."""
    from cl.audit.verification import case_of, residue_of
    from cl.cli.printing import out
    from cl.running.reopening import open_run

    place = existing_home(home)
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
