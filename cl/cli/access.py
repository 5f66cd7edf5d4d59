"""`palimpsest access`: who may read what of a run's stream, and changing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cl.cli.common import AsJson, Home, existing_home, print_json, warn
from cl.errors import BadInput

if TYPE_CHECKING:
    from cl.data.stream import Stream

app = typer.Typer()


@app.command(epilog="Example: palimpsest access 3fa9 --revoke bob=ward-b")
def access(
    run: Annotated[str, typer.Argument(help="A run's id, or an unambiguous beginning of it.")],
    grant: Annotated[list[str] | None, typer.Option(help="Give a label, as USER=LABEL; may be repeated.")] = None,
    revoke: Annotated[list[str] | None, typer.Option(help="Take a label, as USER=LABEL; may be repeated.")] = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Who reads what of a run's stream: users against sets of labels. Changes hold at once, for all runs of it."""
    from cl.cli.printing.access import print_matrix
    from cl.data.recipes import OBJECT, declared_stream
    from cl.home.ledger import ACCESS, Ledger
    from cl.home.runs import Runs
    from cl.home.store import Store
    from cl.running.grants import Grants

    place = existing_home(home)
    store = Store(place)
    runs = Runs(store)
    name = runs.find(run)
    recipe = runs.source(name).stream
    if recipe is None:
        raise BadInput(f"the stream of run {name} cannot be made again: {OBJECT}")
    stream = declared_stream(recipe, home=place)  # faults and all: a missing file must not put off a revocation
    grants = Grants(place)
    wanted = [(*_pair(text), given) for given, texts in ((True, grant), (False, revoke)) for text in texts or []]
    if wanted:
        Ledger(place).verify()  # before anything changes: what cannot be recorded must not hold
        grants.change(store, stream, wanted)
    for user, label, given in wanted:
        Ledger(place).append(ACCESS, "", {"run": name, "user": user, "label": label, "granted": given})
    matrix = _matrix(name, grants.govern(stream))
    warn({"warnings": stream.unusable})
    if as_json:
        print_json(matrix)
    else:
        print_matrix(matrix)


def _pair(text: str) -> tuple[str, str]:
    user, equals, label = text.partition("=")
    if not (user and equals and label):
        raise BadInput(f"'{text}' names no user and label; write it as USER=LABEL")
    return user, label


def _matrix(run: str, stream: Stream) -> dict[str, Any]:
    from cl.running.grants import atoms

    found = atoms(stream)
    policy = stream.policy
    return {
        "run": run,
        "policy": policy.mode,
        "atoms": [{"labels": list(atom), "samples": count} for atom, count in found.items()],
        "users": [
            {"user": user, "labels": sorted(labels), "reads": [policy.reads(user, atom) for atom in found]}
            for user, labels in sorted(policy.users.items())
        ],
    }
