"""A finished run's model, opened from its manifest.

A model is a mapping from names to components, and the manifest lists both: nothing is learnt again, no stream is
resolved, no training image is needed, and nothing is written. A user's model (`as_user`) is the exception: which
entries that user's view has only the strategy can say, so it is driven on the view, which trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cl.components.handles import Handle
from cl.components.in_memory import InMemory
from cl.data.samples import Samples
from cl.data.visitors import squares
from cl.errors import BadInput, DeletionError, shown
from cl.home.layout import default_home, require_home
from cl.home.records import Entry, Request, RunSource
from cl.home.runs import Generation, Runs
from cl.home.store import Store
from cl.learning.hyper import resolve
from cl.learning.strategy import Model, PastTask, Strategy, strategy_of
from cl.models.backbone import embed
from cl.models.vit import TimmBackbone
from cl.numerics import Numerics, configure, device_kind
from cl.running.reopening import View, command, own_backbone, refresh

ANY_SIZE = 32  # of images that nobody looks at, since whoever asks may read nothing


@dataclass(frozen=True)
class Classifier:
    """A finished run's model. Images are given as paths, Pillow images, uint8 arrays `([n, ]height, width[, 3])` or
    uint8 tensors `([n, ]3, height, width)`, or as lists of such; one image stands for a list of one. The largest
    central square of each is resized to `image_size`, that of the run's stream. Nothing of them is stored.

    run: its whole id. user: whose view of the run this is, None for all of it. warnings: what whoever uses the model
    should know, a line each. Whoever may read nothing gets a model without classes, which abstains.

    Raises BadInput for what is no image, StoreError where a part of the model is missing or damaged, DeletionError
    from the moment a deletion takes the run out of service or changes it: then open it again.
    """

    run: str
    user: str | None
    model: Model
    strategy: Strategy
    backbone: TimmBackbone
    image_size: int
    warnings: tuple[str, ...]
    _service: Service
    _check: Callable[[], None]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names: the columns of `scores` and `predict_proba`."""
        return self.model.classes

    @property
    def tasks(self) -> tuple[PastTask, ...]:
        """The tasks learnt, oldest first: `id`, `classes`, `domain`."""
        return self.model.tasks

    @property
    def components(self) -> dict[str, str]:
        """What the model consists of: name -> content digest, as in the manifest."""
        return {name: part.digest for name, part in self.model.parts}

    @property
    def abstains(self) -> bool:
        """Whether there is nothing to answer with: the user may read nothing, or all data were deleted."""
        return not self.model.tasks

    def predict(self, images: Any) -> list[str | None]:
        """The class of the highest score of each image, of equal ones the first; None where the model abstains."""
        scores = self.scores(images)
        return [None] * len(scores) if self.abstains else [self.classes[column] for column in scores.argmax(1)]

    def predict_proba(self, images: Any) -> Tensor:
        """The softmax of the scores, float64 `(n, classes)`. Rows sum to one; that calibrates nothing."""
        return torch.softmax(self.scores(images).double(), 1)

    def scores(self, images: Any) -> Tensor:
        """The strategy's own scores `(n, classes)`, the higher the better: the bits that these images together get in a
        run. Other neighbours may change the last digits."""
        visitors = self._visitors(images)
        if self.abstains:
            return torch.empty(len(visitors), 0)
        return self.strategy.scores(self.model, visitors).open()["scores"]

    def embed(self, images: Any) -> Tensor:
        """Features `(n, dim)` of the frozen backbone, float32, before any adapter: the same for every run on it."""
        return embed(self.backbone, self._visitors(images))

    def as_user(self, name: str) -> Classifier:
        """The model as `name` may read it now, from what the store holds, until something of it is deleted or revoked.
        The run's stream is read for it.

        Raises BadInput, saying which command trains it, where the store lacks a trained part of the view.
        """
        return self._service.opened_as(name)

    def _visitors(self, images: Any) -> Samples:
        self._check()
        return Samples.visiting(squares(images, self.image_size))


@dataclass(frozen=True)
class Service:
    """The run behind an open model, and how it was opened."""

    runs: Runs
    home: Path
    run: str
    device: str
    backbone: str | TimmBackbone | None

    def check(self, generation: Generation) -> None:
        """Raises DeletionError unless that generation of the run is live."""
        if self.runs.in_service(self.run) != generation:
            raise DeletionError(f"run {self.run} has changed since it was opened; open it again")

    def opened_as(self, user: str) -> Classifier:
        return open(self.run, self.home, self.device, self.backbone, user)


def open(
    run: str,
    home: str | Path | None = None,
    device: str = "auto",
    backbone: str | TimmBackbone | None = None,
    user: str | None = None,
) -> Classifier:
    """The model of the finished run whose id begins with `run`.

    device: auto (the run's own, or the CPU where there is none of it), cpu or cuda. backbone: the run's backbone, where
    it was an object or its file lies elsewhere here. user: as of `as_user`. A stale run is built again first, which
    takes its data; a view of another's run is not, and does not depend on whether that is stale. Raises BadInput,
    StoreError, DeletionError or UnknownName, in one line that says what to do.
    """
    place = Path(home) if home is not None else default_home()
    require_home(place)
    runs = Runs(Store(place))
    name = runs.find(run)
    request = runs.request(name)
    viewer = request.user if user is None else user  # "" is a user, whom nobody knows
    service = Service(runs, place, name, device, backbone)
    opened = _whole(service, request) if viewer is None else _seen_by(viewer, service, request)
    return Classifier(name, viewer, *opened)


# Fields of a classifier, from `model` on.
Opened = tuple[Model, Strategy, TimmBackbone, int, tuple[str, ...], Service, Callable[[], None]]


def _whole(service: Service, request: Request) -> Opened:
    """The model that the run came to, from its manifest."""
    refresh(service.home, service.run)
    generation = service.runs.in_service(service.run)
    store, source = Store(service.home), service.runs.source(service.run)
    manifest = service.runs.served(service.run)
    numerics = configure(_device(service, source), source.threads)
    backbone = own_backbone(request, _backbone(service, source), numerics)
    builder = InMemory(store, backbone, numerics, request.seed)
    method = strategy_of(request.strategy)
    hyper: Any = resolve(method.Hyper, method.presets, [], request.hyper)
    entries = Entries(manifest.entries, builder, _mend(service.home, request, source))
    tasks = tuple(PastTask(task.id, task.classes, task.domain) for task in manifest.tasks)
    size, told = manifest.image_size or ANY_SIZE, _warnings(request.id, entries, numerics)
    check = partial(service.check, generation)
    return Model(entries, tasks), method(hyper, builder), backbone, size, told, service, check


def _seen_by(user: str, service: Service, request: Request) -> Opened:
    """The model of the user's view, from the strategy."""
    if request.user == user and service.runs.quarantined(service.run) is None:
        refresh(service.home, service.run)
    source = service.runs.source(service.run)
    here = replace(source, device=_device(service, source))
    found = View(service.home, request, here, user, _backbone(service, source))
    size = found.stream.image_size or ANY_SIZE
    return found.model, found.strategy, found.backbone, size, (), service, found.check


def _backbone(service: Service, source: RunSource) -> str | TimmBackbone | None:
    """The backbone as it was given, or as the run's own folder calls it. Raises BadInput for a file that is gone."""
    found = service.backbone or source.backbone
    if isinstance(found, str) and found.endswith(".toml") and not Path(found).is_file():
        raise BadInput(f"backbone {shown(found)} of run {service.run} is not there; say with --backbone where it is")
    return found


def _device(service: Service, source: RunSource) -> str:
    """The device to run on: as asked for, else the run's own, or the CPU where there is none of it."""
    asked = service.device if service.device != "auto" or source.device == "cuda" else source.device
    return device_kind(asked)


class Entries(Mapping[str, Handle]):
    """A model's entries, each opened when it is first asked for. mend: what helps where one is missing or damaged."""

    def __init__(self, listed: Sequence[Entry], builder: InMemory, mend: str) -> None:
        self._listed, self._builder, self._mend = {entry.name: entry for entry in listed}, builder, mend
        self._opened: dict[str, Handle] = {}

    def __getitem__(self, name: str) -> Handle:
        if name not in self._opened:
            entry = self._listed[name]
            self._opened[name] = self._builder.entry(entry, self._mend)
        return self._opened[name]

    def __contains__(self, name: object) -> bool:
        return name in self._listed

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


def _mend(home: Path, request: Request, source: RunSource) -> str:
    named = source.stream is not None and source.backbone is not None
    return f"build it again with: {command(request, source, home)}" if named else "run it again, on the same objects"


def _warnings(run: str, entries: Entries, numerics: Numerics) -> tuple[str, ...]:
    """Bits are promised for one class of numerics alone. The components are what they are under any, so another one is
    no reason to refuse."""
    made = next((handle.record.numerics for handle in entries.values()), None)
    now = numerics.as_json()
    if made is None or made == now:
        return ()
    other = ", ".join(f"{name} {value}, not {now.get(name)}" for name, value in made.items() if value != now.get(name))
    return (f"run {run} was made with {other}; scores may differ from its own in the last digits",)
