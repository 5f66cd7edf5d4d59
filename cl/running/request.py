"""What names a run, and what makes it again on this machine."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from cl.data.stream import Stream
from cl.home.records import Recipe
from cl.learning.strategy import Strategy, strategy_of
from cl.models.vit import TimmBackbone


def readable_by(user: str | None, stream: Stream, isolated: bool) -> Stream:
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


def place_of(backbone: str | TimmBackbone) -> str | None:
    if not isinstance(backbone, str):
        return None
    return os.path.abspath(backbone) if backbone.endswith(".toml") else backbone


def recipe_of(stream: Stream) -> Recipe:
    """What names the stream, wherever it lies."""
    if stream.recipe is not None:
        return replace(stream.recipe, place={})
    tasks = [[task.id, len(task.classes), len(task.train), len(task.test)] for task in stream.tasks]
    return Recipe("object", {"stream": stream.name, "tasks": tasks})


def values_of(hyper: Any) -> dict[str, Any]:
    return {name: getattr(hyper, name) for name in type(hyper).__dataclass_fields__}
