"""What names a run, and what makes it again on this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cl.data.stream import Recipe, Stream
from cl.digests import digest_json
from cl.home.runs import RUN_ID
from cl.learning.strategy import Strategy, strategy_of
from cl.models.vit import TimmBackbone


@dataclass(frozen=True)
class Request:
    """What names a run: the same request has the same id."""

    stream: Mapping[str, Any]
    strategy: str
    hyper: Mapping[str, Any]
    backbone: str
    seed: int
    user: str | None = None

    @property
    def id(self) -> str:
        """The first digits of the request's digest."""
        return digest_json(asdict(self))[:RUN_ID]


@dataclass(frozen=True)
class Source:
    """What makes a run again on this machine. None of it is part of the run's name: the same content at another place
    is the same run. stream: recipe and place, None for an object; backbone: None for an object."""

    stream: Mapping[str, Any] | None
    backbone: str | None
    device: str
    threads: int
    presets: Sequence[str] = ()


def readable(stream: Stream, user: str | None, isolated: bool) -> Stream:
    """What a run of `user` is given of the stream; None: whoever may read everything. Who may read nothing is given
    nothing, also where the strategy does not isolate."""
    if user is None:
        return stream
    view = stream.view(user)
    return view if isolated or not view.tasks else stream.tested_by(user)


def method_and_name(strategy: str | type[Strategy]) -> tuple[type[Strategy], str]:
    if isinstance(strategy, str):
        return strategy_of(strategy), strategy
    return strategy, f"{strategy.__module__}:{strategy.__qualname__}"


def replayable(stream: Stream) -> dict[str, Any] | None:
    recipe = stream.recipe
    return None if recipe is None else {**recipe.as_json(), "place": dict(recipe.place)}


def place_of(backbone: str | TimmBackbone) -> str | None:
    if not isinstance(backbone, str):
        return None
    return os.path.abspath(backbone) if backbone.endswith(".toml") else backbone


def recipe_of(stream: Stream) -> dict[str, Any]:
    if stream.recipe is not None:
        return stream.recipe.as_json()
    tasks = [[task.id, len(task.classes), len(task.train), len(task.test)] for task in stream.tasks]
    return Recipe("object", {"stream": stream.name, "tasks": tasks}).as_json()


def values_of(hyper: Any) -> dict[str, Any]:
    return {name: getattr(hyper, name) for name in type(hyper).__dataclass_fields__}
