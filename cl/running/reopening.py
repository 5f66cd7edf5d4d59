"""Opening a finished run, in any process, from what its folder holds."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cl.components.builder import TRAINED, Builder, Plan
from cl.components.handles import Handle
from cl.data.policy import Policy
from cl.data.recipes import OBJECT, resolve_stream
from cl.data.stream import Recipe, Stream
from cl.errors import BadInput, CorruptComponent
from cl.home.records import Request, RunSource
from cl.home.runs import Runs
from cl.home.store import Store
from cl.learning.hyper import resolve
from cl.learning.strategy import Model, strategy_of
from cl.models.loading import load_backbone
from cl.numerics import configure, device_kind
from cl.progress import reporting, track
from cl.running.grants import Grants
from cl.running.online import adaptations
from cl.running.request import readable_by
from cl.running.session import Session, session_on
from cl.running.setup import Setup
from cl.running.suppression import Suppression


def open_run(home: Path, run: str) -> Session:
    """The run whose id begins with `run`, ready to be driven again. Raises BadInput where it cannot be made again."""
    runs = Runs(Store(home))
    found = runs.find(run)
    return reopen(home, runs.request(found), runs.source(found))


def reopen(home: Path, request: Request, source: RunSource) -> Session:
    """The run `request` on the store of `home`, ready to be driven again. Errors are those of `setup_of`."""
    return session_on(home, setup_of(home, request, source))


def setup_of(home: Path, request: Request, source: RunSource, policy: Policy | None = None) -> Setup:
    """What the run `request` is made of.

    home: where file digests and the home's own word on access lie. policy: who may read what, where that word does not
    count. Raises BadInput for a run made from bare Python objects, or
    whose backbone is another one now.
    """
    if source.stream is None or source.backbone is None:
        what = "stream" if source.stream is None else "backbone"
        raise BadInput(f"the {what} of run {request.id} cannot be made again: {OBJECT}")
    stream = _stream_of(source.stream, home, request.user)
    everything = Grants(home).govern(stream) if policy is None else replace(stream, policy=policy)
    numerics = configure(source.device, source.threads)
    backbone = load_backbone(source.backbone, numerics.device)
    if backbone.digest != request.backbone:
        raise BadInput(f"backbone '{backbone.name}' is not the one of run {request.id} any more; run again with it")
    method = strategy_of(request.strategy)
    hyper: Any = resolve(method.Hyper, method.presets, [], request.hyper)
    whole = readable_by(request.user, everything, method.isolates(hyper))
    return Setup(request, source, whole, method, hyper, backbone, numerics)


def _stream_of(recipe: Recipe, home: Path, user: str | None) -> Stream:
    """The stream of a recipe. What is wrong with it may name files that not every user may know of."""
    try:
        return resolve_stream(recipe, home=home)
    except BadInput as error:
        if user is None:
            raise
        raise BadInput("the run's stream cannot be read now; palimpsest access tells whoever keeps it why") from error


class Reopened:
    """A finished run: its strategy, its stream, and its model after the last task. A stale run is built first.

    user: the same for what this user may read now, if that takes no training. Raises BadInput for a run that cannot be
    made again, or is another user's; DeletionError for one that a deletion has taken out of service.
    """

    def __init__(self, home: Path, run: str, user: str | None = None) -> None:
        runs = Runs(Store(home))
        if runs.stale(run) is not None:
            with reporting(_silent) if user is not None else nullcontext():  # its tasks are not for every user to see
                reopen(home, runs.request(run), runs.source(run)).run()
        runs.served(run)
        request, source = runs.request(run), runs.source(run)
        if user is not None and request.user not in (None, user):
            raise BadInput(f"run {run} is another user's view; give a run of the whole stream, or one made --as {user}")
        viewer = request.user if user is None else user  # "" is a user, whom nobody knows
        setup = setup_of(home, replace(request, user=viewer), source)
        session = session_on(home, setup, make_builder=Setup.builder if viewer is None else measuring_builder)
        # What was deleted from this run alone is not in the views of it either.
        self.stream = session.stream.without(Suppression(home).of(session.whole, run))
        # Whoever may read nothing gets no answer, however the strategy came by one.
        self.abstains = viewer is not None and not session.whole.view(viewer).tasks
        self.strategy = session.strategy()
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
        return [model, *(one.model for one in adaptations(self.strategy, self._builder, model, segments, label))][-1]


def _silent(label: str, done: int, total: int) -> None:
    pass


@dataclass
class MeasuringBuilder(Builder):
    """A builder that measures, but trains nothing."""

    refusal: str = ""

    def _build(self, plan: Plan, store: bool, before: tuple[float, float] = (0.0, 0.0)) -> Handle:
        if not TRAINED.isdisjoint(plan.roles.values()):
            raise BadInput(self.refusal)
        return super()._build(plan, store, before)


def measuring_builder(setup: Setup, store: Store) -> Builder:
    """The builder for a user's view: what takes training is refused with the command that does it."""
    refusal = f"what {setup.request.user} may read was not trained on yet; do so with: {command(setup, store.home)}"
    return MeasuringBuilder(store, setup.backbone, setup.numerics, setup.request.seed, refusal=refusal)


def command(setup: Setup, home: Path) -> str:
    """The command that makes the run on `home`."""
    request, source = setup.request, setup.source
    assert source.stream is not None and source.backbone is not None
    place = source.stream.place
    words = ["palimpsest", "run", place.get("file", source.stream.name), request.strategy]
    words += ["--data", place["data"]] if "data" in place else []
    for name, value in source.stream.arguments.items():
        words += ["--set", f"stream.{name}={value}"]
    words += ["--as", request.user] if request.user is not None else []
    words += ["--backbone", source.backbone, "--seed", str(request.seed), "--home", str(home)]
    words += ["--device", source.device] if source.device != device_kind("auto") else []
    words += ["--threads", str(source.threads)] if source.threads != 1 else []
    defaults: Any = resolve(setup.method.Hyper, setup.method.presets, [], {})
    for name, value in request.hyper.items():
        if value != getattr(defaults, name):
            words += ["--set", f"{name}={value}"]
    return shlex.join(words)
