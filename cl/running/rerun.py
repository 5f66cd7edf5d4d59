"""Making a run again, in any process, from what its folder holds."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
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
from cl.home.runs import Runs
from cl.home.store import Store
from cl.learning.hyper import resolve
from cl.learning.strategy import Model, strategy_of
from cl.models.loading import load_backbone
from cl.models.vit import TimmBackbone
from cl.numerics import Numerics, configure, device_kind
from cl.progress import reporting, track
from cl.running.grants import Grants
from cl.running.online import adapted
from cl.running.request import Request, Source, readable
from cl.running.session import Session
from cl.running.suppression import Suppression


def open_run(home: Path, run: str) -> Session:
    """The run whose id begins with `run`, ready to be driven again. Raises BadInput where it cannot be replayed."""
    runs = Runs(Store(home))
    found = runs.find(run)
    return replay(home, runs.request(found), runs.source(found))


def replay(
    home: Path,
    request: Mapping[str, Any],
    source: Mapping[str, Any],
    policy: Policy | None = None,
    backbone: str | TimmBackbone | None = None,
) -> Session:
    """The run `request` on the store of `home`, ready to be driven again.

    policy: who may read what, where the home's own word does not count. backbone: the run's, where its source does not
    name it, or not as it is called here. Raises BadInput for a run made from bare Python objects, or whose backbone is
    another one now.
    """
    wanted = Request(**request)
    if source["stream"] is None:
        raise BadInput(f"the stream of run {wanted.id} cannot be made again: {OBJECT}")
    found = _found(source["stream"], home, wanted.user)
    everything = Grants(home).govern(found) if policy is None else replace(found, policy=policy)
    numerics = configure(source["device"], source["threads"])
    network = own_backbone(wanted, backbone or source["backbone"], numerics)
    method = strategy_of(wanted.strategy)
    hyper: Any = resolve(method.Hyper, method.presets, [], wanted.hyper)
    whole = readable(everything, wanted.user, method.isolates(hyper))
    return Session(Store(home), network, numerics, wanted, Source(**source), whole, method, hyper)


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


def refresh(home: Path, run: str, told: bool) -> None:
    """Build the run again without data that were deleted, if it is stale or was put back from before the deletion.

    told: whether whoever asks may see the progress: the names of its tasks are not for every user. Raises DeletionError
    for a run that a deletion has taken out of service.
    """
    store = Store(home)
    runs = Runs(store)
    if runs.stale(run) is None:
        runs.in_service(run)
        if not Suppression(home).reaches(store, run):
            return
    with nullcontext() if told else reporting(_silent):
        replay(home, runs.request(run), runs.source(run)).run()


def _silent(label: str, done: int, total: int) -> None:
    pass


def _found(recipe: Mapping[str, Any], home: Path, user: str | None) -> Stream:
    """The stream of a recipe. What is wrong with it may name files that not every user may know of."""
    try:
        return resolve_stream(Recipe(**recipe), home=home)
    except BadInput as error:
        if user is None:
            raise
        raise BadInput("the run's stream cannot be read now; palimpsest access tells whoever keeps it why") from error


class View:
    """A finished run as `user` may read it now, if that takes no training: its strategy, stream, and model after the
    last task.

    source, backbone: as of `replay`. Raises BadInput for a run that cannot be made again, or is another user's.
    """

    def __init__(
        self,
        home: Path,
        request: Mapping[str, Any],
        source: Mapping[str, Any],
        user: str,
        backbone: str | TimmBackbone | None = None,
    ) -> None:
        run = Request(**request).id
        if request["user"] not in (None, user):
            raise BadInput(f"run {run} is another user's view; give a run of the whole stream, or one made --as {user}")
        session = replay(home, {**request, "user": user}, source, backbone=backbone)
        session.builder = Frugal(
            session.store,
            session.backbone,
            session.numerics,
            session.request.seed,
            refusal=f"what {user} may read was not trained on yet; do so with: "
            + command(home, session.request, session.source),
        )
        # What was deleted from this run alone is not in the views of it either.
        self.stream = session.stream.without(session.suppression.of(session.whole, run))
        self.strategy, self.backbone = session.strategy(), session.backbone
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


@dataclass
class Frugal(Builder):
    """A builder that measures, but trains nothing."""

    refusal: str = ""

    def _build(self, plan: Plan, store: bool, before: tuple[float, float] = (0.0, 0.0)) -> Handle:
        if not TRAINED.isdisjoint(plan.roles.values()):
            raise BadInput(self.refusal)
        return super()._build(plan, store, before)


def command(home: Path, request: Request, source: Source) -> str:
    """The command that makes the run, where stream and backbone have names."""
    assert source.stream is not None and source.backbone is not None
    place = source.stream["place"]
    words = ["palimpsest", "run", place.get("file", source.stream["name"]), request.strategy]
    words += ["--data", place["data"]] if "data" in place else []
    for name, value in source.stream["arguments"].items():
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
