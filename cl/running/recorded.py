"""What a finished run came to, for a comparison whose images cannot be read any more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cl.errors import PalimpsestError
from cl.home.records import Recipe
from cl.home.results import Results
from cl.home.runs import Runs
from cl.home.store import Store
from cl.learning.hyper import resolve
from cl.learning.strategy import strategy_of
from cl.models.loading import default_backbone
from cl.running.options import Options
from cl.running.request import place_of, values_of


def recorded(stream: str, strategy: str, options: Options, why: str) -> dict[str, Any] | None:
    """The figures of the run that was asked for so before, with a warning that says `why` it is not run again; None
    where there is none in service."""
    for run in _asked_so_before(stream, strategy, options):
        figures = dict(Results(options.place).find(run).figures)
        told = f"not run again, figures as they were recorded: {why}"
        return {**figures, "warnings": [*figures["warnings"], told]}
    return None


def _asked_so_before(stream: str, strategy: str, options: Options) -> Iterator[str]:
    if not options.place.is_dir():
        return
    runs = Runs(Store(options.place))
    method = strategy_of(strategy)
    hyper = values_of(resolve(method.Hyper, method.presets, list(options.presets), options.settings))
    backbone = place_of(default_backbone() if options.backbone is None else options.backbone)
    for run in runs.ids():
        try:
            request, source = runs.request(run), runs.source(run)
            runs.in_service(run)
        except PalimpsestError:
            continue
        asked = (request.strategy, dict(request.hyper), request.seed, request.user, source.backbone)
        if asked == (strategy, hyper, options.seed, options.user, backbone) and _is(source.stream, stream, options):
            yield run


def _is(recipe: Recipe | None, stream: str, options: Options) -> bool:
    if recipe is None:
        return False
    if stream.endswith(".toml"):
        return recipe.place.get("file") == os.path.abspath(stream)
    data = None if options.data is None else os.path.abspath(Path(options.data))
    return (recipe.name, recipe.place.get("data")) == (stream, data)
