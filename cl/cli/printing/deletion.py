"""Plans, outcomes, checks, requests and ledger records, as text and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from cl.cli.printing import out

if TYPE_CHECKING:
    from cl.audit.verification import Evidence
    from cl.deletion.plan import DeletionPlan, Step
    from cl.deletion.steps import Outcome
    from cl.home.chain import LedgerRecord

ID_WIDTH = 12  # of a request's or run's id


def print_plan(found: DeletionPlan) -> None:
    """What is forgotten, what becomes of every component, and the cost."""
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


def print_outcome(outcome: Outcome) -> None:
    """What a deletion did, and what comes next."""
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


def print_checks(evidence: Evidence) -> None:
    """A row a check, then the grade."""
    table = Table("check", "passed", "numbers", box=None)
    for name, check in sorted(evidence.checks.as_json().items()):
        numbers = ", ".join(f"{key} {value}" for key, value in check.items() if key != "passed" and value != [])
        table.add_row(name, "yes" if check["passed"] else "[bold]no[/bold]", numbers)
    out.print(table)
    out.print(f"grade [bold]{evidence.grade}[/bold], manifest {evidence.manifest_after[:16]}", highlight=False)


def print_requests(found: Sequence[Mapping[str, Any]]) -> None:
    """A row a request, with its state."""
    table = Table(box=None)
    for name in ("request", "state", "run", "method", "scope", "samples", "grade", "received"):
        table.add_column(name, min_width=ID_WIDTH if name in ("request", "run") else None)  # ids are for copying
    for one in found:
        table.add_row(*[str(one[name] if one[name] is not None else "") for name in one])
    out.print(table)


def print_records(records: Sequence[LedgerRecord]) -> None:
    """A row a record of the ledger."""
    table = Table("seq", "time", "actor", "type", "request", "hash", box=None)
    for one in records:
        step = one.body.get("step")
        name = f"{one.type} ({step})" if step and one.type.startswith("step") else one.type
        table.add_row(str(one.seq), one.time, one.actor, name, one.request, one.hash[:12])
    out.print(table)
