"""Driving a finished run again, in any process, from what its folder holds."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cl.components.builder import TRAINED, Builder, Plan
from cl.components.handles import Handle
from cl.data.policy import Policy
from cl.data.recipes import OBJECT, declared_stream, resolve_stream
from cl.data.stream import Recipe, Stream
from cl.errors import AccessRevoked, BadInput, CorruptComponent, DataDeleted, DeletionError, shown
from cl.home.records import Request, RunSource
from cl.home.runs import Runs
from cl.home.store import Store
from cl.learning.hyper import resolve
from cl.learning.strategy import Model, strategy_of
from cl.models.loading import load_backbone
from cl.models.vit import TimmBackbone
from cl.numerics import Numerics, configure, device_kind
from cl.progress import track
from cl.running.grants import Grants
from cl.running.online import adaptations
from cl.running.request import readable_by
from cl.running.session import Session, as_resolved, session_on
from cl.running.setup import Setup
from cl.running.suppression import Suppression


def open_run(home: Path, run: str) -> Session:
    """The run whose id begins with `run`, ready to be driven again. Raises BadInput where it cannot be made again."""
    runs = Runs(Store(home))
    found = runs.find(run)
    return reopen(home, runs.request(found), runs.source(found))


def open_run_as_resolved(home: Path, run: str) -> Session:
    """The same on what its live generation has read: what was added to its source since waits for the next run."""
    runs = Runs(Store(home))
    setup = setup_of(home, runs.request(run), runs.source(run))
    return session_on(home, setup, as_resolved(setup.whole, runs.resolution(run)))


def reopen(home: Path, request: Request, source: RunSource) -> Session:
    """The run `request` on the store of `home`, ready to be driven again. Errors are those of `setup_of`."""
    return session_on(home, setup_of(home, request, source))


def setup_of(
    home: Path,
    request: Request,
    source: RunSource,
    policy: Policy | None = None,
    backbone: str | TimmBackbone | None = None,
) -> Setup:
    """What the run `request` is made of.

    home: where file digests and the home's own word on access lie. policy: who may read what, where that word does not
    count. backbone: the run's, where its source does not name it, or not as it is called here. Raises BadInput for a
    run made from bare Python objects, or whose backbone is another one now.
    """
    if source.stream is None:
        raise BadInput(f"the stream of run {request.id} cannot be made again: {OBJECT}")
    stream = _stream_of(source.stream, home, request.user)
    now = stream.recipe
    if now is not None and now.as_json() != request.stream.as_json():
        raise BadInput(
            f"{shown(source.stream.place.get('file', now.name))} does not describe the stream of run {request.id} any "
            "more; put back the file that was there, or run again"
        )
    everything = Grants(home).govern(stream) if policy is None else replace(stream, policy=policy)
    numerics = configure(source.device, source.threads)
    network = own_backbone(request, backbone or source.backbone, numerics)
    method = strategy_of(request.strategy)
    hyper: Any = resolve(method.Hyper, method.presets, [], request.hyper)
    whole = readable_by(request.user, everything, method.isolates(hyper))
    whole.check()
    return Setup(request, source, whole, method, hyper, network, numerics)


def own_backbone(request: Request, backbone: str | TimmBackbone | None, numerics: Numerics) -> TimmBackbone:
    """The backbone of a run, loaded where it is a name. Raises BadInput for another one than it was."""
    if backbone is None:
        raise BadInput(f"the backbone of run {request.id} cannot be made again: {OBJECT}")
    found = load_backbone(backbone, numerics.device) if isinstance(backbone, str) else backbone
    if found.digest != request.backbone:
        why = "other weights, or another release of timm"
        raise BadInput(
            f"backbone '{found.name}' is not the one of run {request.id} any more ({why}); run again with it"
        )
    return found


def refresh(home: Path, run: str) -> None:
    """Build the run again without data that were deleted, if it is stale or was put back from before the deletion.
    Raises DeletionError for a run that a deletion has taken out of service."""
    store = Store(home)
    runs = Runs(store)
    if runs.stale(run) is None:
        runs.in_service(run)
        if not Suppression(home).reaches(store, run):
            return
    reopen(home, runs.request(run), runs.source(run)).run()


def _stream_of(recipe: Recipe, home: Path, user: str | None) -> Stream:
    """The stream of a recipe; for a user with its faults, until the view is taken."""
    return resolve_stream(recipe, home=home) if user is None else declared_stream(recipe, home=home, user=user)


class View:
    """A finished run as `user` may read it now, if that takes no training: its strategy, stream, and model after the
    last task.

    source, backbone: as of `setup_of`. Nothing of it depends on what the user may not read: not on whether the run is
    stale or a deletion has taken it out of service, unless that is of what the user reads. Raises BadInput for a run
    that cannot be made again, or is another user's, DeletionError where the view itself is out of service.
    """

    def __init__(
        self,
        home: Path,
        request: Request,
        source: RunSource,
        user: str,
        backbone: str | TimmBackbone | None = None,
    ) -> None:
        run = request.id
        if request.user not in (None, user):
            raise BadInput(f"run {run} is another user's view; give a run of the whole stream, or one made --as {user}")
        setup = setup_of(home, replace(request, user=user), source, backbone=backbone)
        setup.whole.prepare()
        session = session_on(home, setup, make_builder=measuring_builder)
        self._suppression, self._run = Suppression(home), run
        stopped = Runs(session.store).quarantined(run)
        if stopped is not None and self._suppression.deleted_by(stopped, setup.whole):
            raise DeletionError(f"what user '{shown(user)}' may read of run {run} is out of service; ask again later")
        # What was deleted from this run alone is not in the views of it either.
        self.stream = session.stream.without(self._suppression.of(session.whole, run).ids)
        self.strategy, self.backbone = session.strategy(), setup.backbone
        self._builder = session.builder

    def check(self) -> None:
        """Raises DeletionError where something of the view was deleted or revoked since it was taken."""
        with suppress(DataDeleted, AccessRevoked):
            self._builder.store.guard()
            if not self._suppression.of(self.stream, self._run).ids:
                return
        raise DeletionError(f"run {self._run} has changed since it was opened; open it again")

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
    trains = command(setup.request, setup.source, store.home)
    refusal = f"what {setup.request.user} may read was not trained on yet; do so with: {trains}"
    return MeasuringBuilder(store, setup.backbone, setup.numerics, setup.request.seed, refusal=refusal)


def command(request: Request, source: RunSource, home: Path) -> str:
    """The command that makes the run on `home`, where stream and backbone have names."""
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
    method = strategy_of(request.strategy)
    defaults: Any = resolve(method.Hyper, method.presets, [], {})
    for name, value in request.hyper.items():
        if value != getattr(defaults, name):
            words += ["--set", f"{name}={value}"]
    return shlex.join(words)
