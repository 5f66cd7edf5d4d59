"""Settings by name, shared out to what they are meant for: a strategy's hyperparameters, a stream's arguments.

A plain name goes to everything that has it; `joint.when` to the strategy `joint` alone, `stream.people` to the stream.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cl.errors import UnknownName

STREAM = "stream"  # the scope of the stream's arguments

Known = Mapping[str, Collection[str]]  # scope -> the names that it has


def shared_out(settings: Mapping[str, Any], known: Known) -> dict[str, dict[str, Any]]:
    """Scope -> the settings that are meant for it, by plain name; what names its scope wins over a plain name.

    Raises UnknownName for a scope or name that is not there.
    """
    check_known("hyperparameter", settings, known)
    pairs = {scope: meant_for(scope, settings, names) for scope, names in known.items()}
    return {
        scope: {plain: settings[full] for full, plain in sorted(found, key=lambda pair: "." in pair[0])}
        for scope, found in pairs.items()
    }


def check_known(kind: str, names: Iterable[str], known: Known) -> None:
    """Raises UnknownName for a name of `kind` that no scope has."""
    for name in names:
        owner, dot, key = name.partition(".")
        if dot and owner not in known:
            raise UnknownName("strategy", owner, [scope for scope in known if scope != STREAM])
        if not (key in known[owner] if dot else any(name in one for one in known.values())):
            named = "argument of the stream" if dot and owner == STREAM else kind
            raise UnknownName(named, key or name, known[owner] if dot else set().union(*known.values()))


def meant_for(scope: str, names: Iterable[str], known: Collection[str]) -> list[tuple[str, str]]:
    """(name as given, plain name) of what is meant for `scope`, which has the names `known`."""
    pairs = [(name, name.removeprefix(f"{scope}.")) for name in names]
    return [(full, plain) for full, plain in pairs if plain in known]
