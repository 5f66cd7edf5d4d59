"""Making a run again, in any process, from what its folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from cl.backbone import load_backbone
from cl.errors import BadInput, CorruptComponent
from cl.hyper import resolve
from cl.numerics import configure
from cl.online import adapted
from cl.progress import track
from cl.recipes import OBJECT, resolve_stream, strategy_of
from cl.runner import Request, Session, Source
from cl.runs import Runs
from cl.store import Store
from cl.strategy import Model
from cl.stream import Recipe


def replay(home: Path, request: Mapping[str, Any], source: Mapping[str, Any]) -> Session:
    """The run `request` on the store of `home`, ready to be driven again.

    Raises BadInput for a run made from bare Python objects, or whose backbone is another one now.
    """
    wanted = Request(**request)
    for what in ("stream", "backbone"):
        if source[what] is None:
            raise BadInput(f"the {what} of run {wanted.id} cannot be made again: {OBJECT}")
    whole = resolve_stream(Recipe(**source["stream"]), home=home)
    numerics = configure(source["device"], source["threads"])
    backbone = load_backbone(source["backbone"], numerics.device)
    if backbone.digest != wanted.backbone:
        raise BadInput(f"backbone '{backbone.name}' is not the one of run {wanted.id} any more; run again with it")
    method = strategy_of(wanted.strategy)
    hyper: Any = resolve(method.Hyper, method.presets, [], wanted.hyper)
    return Session(Store(home), backbone, numerics, wanted, Source(**source), whole, method, hyper)


class Replay:
    """A finished run again: its strategy, its stream, and its model after the last task. A stale run is built first.

    Raises BadInput for a run that cannot be made again, DeletionError for one that a deletion has taken out of service.
    """

    def __init__(self, home: Path, run: str) -> None:
        runs = Runs(Store(home))
        if runs.stale(run) is not None:
            replay(home, runs.request(run), runs.source(run)).run()
        runs.served(run)
        session = replay(home, runs.request(run), runs.source(run))
        self.stream = session.stream
        self.strategy = session.method(session.hyper, session.builder)
        self._builder = session.builder

    @cached_property
    def model(self) -> Model:
        """The model, its components taken from the store; one that is missing is built again."""
        while True:
            try:
                return self._learnt()
            except CorruptComponent:  # it has been set aside: the next attempt builds it
                continue

    def _learnt(self) -> Model:
        model, tasks = Model(), self.stream.tasks
        for position, task in enumerate(track(tasks, f"learning {self.stream.name} again")):
            model = self.strategy.extended(model, task, len(tasks) - position - 1)
        segments = self.stream.segments if tasks else ()
        label = f"{self.stream.name} at test time, again"
        return [model, *(step[-1] for step in adapted(self.strategy, self._builder, model, segments, label))][-1]
