"""What names a run, and what makes it again on this machine."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from typing import Any

from cl.data.stream import Stream
from cl.errors import BadInput, StoreError, shown
from cl.home.records import Recipe
from cl.home.runs import Runs
from cl.home.store import Store
from cl.learning.strategy import Strategy, strategy_of
from cl.models.vit import TimmBackbone
from cl.running.setup import Setup


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


def _source_before(runs: Runs, run: str) -> Recipe | None:
    """Where the stream of that run came from; None for a run that is new, or whose folder is damaged and made good."""
    with suppress(StoreError):
        return runs.source(run).stream if run in runs.ids() else None
    return None


def refuse_another(store: Store, setup: Setup) -> None:
    """Raises BadInput where the run's name is that of a run on another stream: one of the same name from another place,
    with nothing of the content that was read there."""
    runs, request, stream = Runs(store), setup.request, setup.whole
    before, now = _source_before(runs, request.id), setup.source.stream
    if before is None or now is None or before.place == now.place:
        return
    mine = (shard for _, readings in store.shards for shard in readings if shard.stream == stream.name)
    read = {(row.id, row.content) for shard in mine for row in shard.rows}
    if read and read.isdisjoint(
        pair for shard in stream.shards for pair in zip(shard.ids, shard.contents, strict=True)
    ):
        one, other = (next(iter(recipe.place.values()), recipe.name) for recipe in (now, before))
        raise BadInput(
            f"{shown(one)} and {shown(other)} are two streams of one name, '{stream.name}'; give one a name of its own "
            '(name = "..." in its file), or use another --home'
        )
