"""What a run is made of, before it meets the store of a home."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cl.components.builder import Builder
from cl.data.policy import Atom
from cl.data.stream import Stream
from cl.home.records import Request, RunSource
from cl.home.store import Store
from cl.learning.strategy import Strategy
from cl.models.vit import TimmBackbone
from cl.numerics import Numerics


@dataclass(frozen=True)
class Setup:
    """A run as it was asked for. whole: all that its user may read."""

    request: Request
    source: RunSource
    whole: Stream
    method: type[Strategy]
    hyper: Any
    backbone: TimmBackbone
    numerics: Numerics

    def builder(self, store: Store) -> Builder:
        """What builds the run's components, or takes them from `store`."""
        return Builder(store, self.backbone, self.numerics, self.request.seed)

    def strategy(self, builder: Builder) -> Strategy:
        """The run's strategy, knowing what the run's user may read."""
        return self.method(self.hyper, builder, self._reads)

    def _reads(self, atom: Atom) -> bool:
        return self.request.user is None or self.whole.policy.reads(self.request.user, atom)
