"""The adapters that a model has, and how far a task has come with adding to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cl import Handle, Part, Samples
from cl.components.handles import Read


@dataclass(frozen=True)
class Adapters:
    """The first task's adapter (of every block) and router columns, and the additions of each block, oldest first."""

    first: Handle
    additions: Mapping[int, tuple[Handle, ...]]

    def reads(self, prefix: Handle | None = None, below: int | None = None) -> dict[str, Read]:
        """What a build reads (`AdapterReads`), with the additions of all blocks, or of those below `below`."""
        kept = [block for block in sorted(self.additions) if below is None or block < below]
        return {
            "adapter": self.first["adapter"],
            "columns": self.first["columns"],
            "grown": {str(block): [[one["adapter"], one["column"]] for one in self.additions[block]] for block in kept},
            "prefix": prefix,
        }

    def with_addition(self, block: int, addition: Handle) -> Adapters:
        """These, and one adapter more in `block`."""
        return replace(self, additions={**self.additions, block: (*self.additions.get(block, ()), addition)})


@dataclass(frozen=True)
class Expansion:
    """A task halfway: the adapters and head rows as its additions so far left them, and the entries that it made.

    prefix: the stream of its images at the first block that may grow. It is there before any decision and reads none.
    """

    adapters: Adapters
    head: Part
    prefix: Handle | None
    entries: Mapping[str, Handle] = field(default_factory=dict)
    additions: int = 0

    def noting(self, name: str, handle: Handle) -> Expansion:
        """The same, and one entry more."""
        return replace(self, entries={**self.entries, name: handle})

    def with_addition(self, block: int, addition: Handle) -> Expansion:
        """The same, and one adapter more in `block`, trained with the head's rows."""
        adapters = self.adapters.with_addition(block, addition)
        return replace(self, adapters=adapters, head=addition["head"], additions=self.additions + 1)

    def reads(self, images: Samples, below: int | None = None) -> dict[str, Read]:
        """What a build over the task's `images` reads of the adapters; the prefix where no augmentation stands in
        front."""
        return self.adapters.reads(self.prefix if images.augment == "none" else None, below)


@dataclass(frozen=True)
class Pass:
    """A pass of the scan over a task's images.

    turn: its number, by which random crops are drawn. order: of the images; None where all make one batch. before: what
    it had visited when an addition broke it off.
    """

    turn: int
    order: Handle | None
    before: Part | None = None
