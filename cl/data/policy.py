"""Who may read what: access labels on samples, users who hold labels, and a home's grants and revocations.

An atom is the set of samples with the same labels. Under the policy `any` a user reads an atom with at least one label
that the user holds, under `all` only with every one of them. Samples without labels are in nobody's view. A user whom
no policy names holds nothing, exactly as one who was given nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    pass


Atom = tuple[str, ...]


@dataclass(frozen=True)
class Policy:
    """mode: any | all. users: user -> labels that the user holds."""

    mode: Literal["any", "all"] = "any"
    users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def reads(self, user: str, labels: Collection[str]) -> bool:
        """Whether `user` may read samples with exactly these labels."""
        held = set(self.users.get(user, ()))
        return bool(labels) and (held.issuperset(labels) if self.mode == "all" else not held.isdisjoint(labels))

    def hidden(self, user: str, access: Mapping[str, Collection[str]], samples: Iterable[str]) -> set[str]:
        """Of these samples those that `user` may not read. access: sample -> its labels."""
        return {sample for sample in samples if not self.reads(user, access.get(sample, ()))}

    def only(self, user: str) -> Policy:
        """What the policy says of one user: all that a view of that user may depend on."""
        return Policy(self.mode, {user: self.users.get(user, ())})

    def as_json(self) -> dict[str, Any]:
        return {"mode": self.mode, "users": {user: list(labels) for user, labels in sorted(self.users.items())}}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Policy:
        return cls(content["mode"], {user: tuple(labels) for user, labels in content["users"].items()})


def atom_name(atom: Iterable[str]) -> str:
    """A stable name of a set of labels, without slashes, which part component names; `+` for no label."""
    return "+".join(quote(label, safe="") for label in sorted(atom)) or "+"


def atom_of(name: str) -> Atom:
    """The labels that `atom_name` made a name of."""
    return tuple(unquote(label) for label in name.split("+") if label)
