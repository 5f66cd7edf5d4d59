"""A home's own word on who may read what: grants and revocations beside those of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cl.data.policy import Atom, Policy
from cl.digests import digest_json
from cl.documents import Document, read_document
from cl.errors import BadInput, UnknownName, shown

if TYPE_CHECKING:
    from cl.data.stream import Stream
    from cl.home.store import Store

Change = tuple[str, str, bool]  # user, label, whether it is given or taken
Changes = Mapping[str, Mapping[str, bool]]  # user -> label -> whether it was given or taken last


@dataclass(frozen=True)
class AccessChanges(Document):
    """What was granted and revoked for one stream."""

    users: Changes = field(default_factory=dict)


def atoms(stream: Stream) -> dict[Atom, int]:
    """Every set of labels in the stream, sorted, with its number of samples."""
    found: dict[Atom, int] = {}
    for sample in stream.ids:
        atom = tuple(sorted(stream.access.get(sample, ())))
        found[atom] = found.get(atom, 0) + 1
    return dict(sorted(found.items()))


class Grants:
    """`access/` of a home: what was granted and revoked since the streams declared their policies.

    A stream is known by name and arguments, so that a change holds for every run of it.
    """

    def __init__(self, home: Path) -> None:
        self._folder = home / "access"

    def govern(self, stream: Stream) -> Stream:
        """The stream under its policy as it is now."""
        changes = self._load(stream)
        return replace(stream, policy=_changed(stream.policy, changes)) if changes else stream

    def revoked(self, view: Stream, user: str, samples: Iterable[str]) -> set[str]:
        """Of these samples of a view those that `user` may not read any more. view: as it was governed when taken."""
        return self.govern(view).policy.hidden(user, view.access, samples)

    def change(self, store: Store, stream: Stream, wanted: Sequence[Change]) -> None:
        """Give labels to users, or take them away, from now on: all that is wanted, or nothing. Raises BadInput where
        one of them changes nothing."""
        told = (*stream.access.values(), *(fault.labels for fault in stream.faults))
        known = {one for labels in told for one in labels}
        with store.locked(exclusive=True):  # of two changes at the same time none may undo the other
            changes = dict(self._load(stream))
            for user, label, grant in wanted:
                if label not in known:
                    raise UnknownName("access label", label, known)
                _check(_changed(stream.policy, changes), user, label, grant)
                changes[user] = {**changes.get(user, {}), label: grant}
            store.write(self._path(stream), AccessChanges(changes).to_json())

    def _load(self, stream: Stream) -> Changes:
        path = self._path(stream)
        if not path.exists():
            return {}
        mend = "put it back, or remove it and grant anew"  # the declared policy may be wider than the one that held
        return read_document(path, AccessChanges, str(path), mend).users

    def _path(self, stream: Stream) -> Path:
        recipe = stream.recipe
        named = [recipe.name, dict(recipe.arguments)] if recipe is not None else [stream.name, {}]
        return self._folder / f"{digest_json(named)[:24]}.json"


def _changed(policy: Policy, changes: Changes) -> Policy:
    users = {user: set(labels) for user, labels in policy.users.items()}
    for user, labels in changes.items():
        held = users.setdefault(user, set())
        held |= {label for label, granted in labels.items() if granted}
        held -= {label for label, granted in labels.items() if not granted}
    return replace(policy, users={user: tuple(sorted(labels)) for user, labels in users.items()})


def _check(policy: Policy, user: str, label: str, grant: bool) -> None:
    if not user:
        raise BadInput(f"whose label is '{shown(label)}'? write it as USER=LABEL")
    if not grant and user not in policy.users:
        raise UnknownName("user", user, policy.users)
    if (label in policy.users.get(user, ())) == grant:
        told = "holds '{}' already" if grant else "does not hold '{}'"
        raise BadInput(f"user '{shown(user)}' {told.format(shown(label))}; palimpsest access shows who holds what")
