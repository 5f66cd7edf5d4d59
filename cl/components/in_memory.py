"""A builder for a finished model: it opens what is stored, makes the rest in memory, and writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cl.components.builder import Builder
from cl.components.handles import Handle, Part, Read, _leaves
from cl.data.samples import Samples
from cl.errors import CorruptComponent, StoreError
from cl.home.records import Entry
from cl.home.store import Record, Tensors


@dataclass
class InMemory(Builder):
    """Of the store it reads what `entry` names and nothing else: what is not of the live model is never found.

    What was made of the model alone is remembered as long as the builder; what was made of images never is.
    """

    _made: dict[str, Handle] = field(default_factory=dict)

    def component(
        self, name: str, build: Callable[..., Any], *reads: Read, controls: Sequence[Part] = (), **arguments: Any
    ) -> Handle:
        plan = self._plan(name, build, reads, controls, arguments)
        if any(leaf.transient for leaf in _leaves(reads)):
            return self._build(plan, store=False)
        if plan.key not in self._made:
            made = self._build(plan, store=False)
            self._made[plan.key] = Handle(made.record, lambda _, part: made.open(part))
        return self._made[plan.key]

    def build_together(
        self,
        name: str,
        build: Callable[..., Any],
        at_once: Callable[..., Sequence[Any]],
        several: Sequence[tuple[Part | Handle | Samples, ...]],
        controls: Sequence[Part] = (),
        **arguments: Any,
    ) -> None:
        """Nothing is kept of what visits, so `component` builds each when it is asked for."""

    def entry(self, entry: Entry, mend: str) -> Handle:
        """The stored component behind an entry of a manifest.

        Raises StoreError, now or when a part is opened, where it is missing, damaged or another one; `mend` is what
        helps then.
        """
        broken = f"'{entry.name}' is missing or damaged in the store; {mend}"
        try:
            record = self.store.record(entry.key)
        except (OSError, CorruptComponent) as error:
            raise StoreError(broken) from error
        if {part: what["digest"] for part, what in record.parts.items()} != dict(entry.parts):
            raise StoreError(broken)

        def opened(found: Record, part: str) -> Tensors:
            try:
                return self._open(found, part)
            except CorruptComponent as error:
                raise StoreError(broken) from error

        return Handle(record, opened)

    def _code(self, build: Callable[..., Any]) -> str:
        """In one process a name stands for one code, and reading the sources would take longer than a prediction."""
        return f"{build.__module__}.{build.__qualname__}"

    def _load(self, record: Record, part: str) -> Tensors:
        return self.store.load(record, part)
