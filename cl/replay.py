"""Making a finished run's model again, in any process, from what its folder holds."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cl import registry
from cl.backbone import load_backbone
from cl.build import Builder
from cl.errors import BadInput, StoreError
from cl.hyper import resolve
from cl.numerics import configure
from cl.progress import track
from cl.store import Store
from cl.strategy import Model, Strategy
from cl.stream import Stream

OBJECT = "it was made from Python objects without a name; run it by names, or from importable code"


@dataclass(frozen=True)
class Replayed:
    """A run's strategy, its stream, and its model after the last task."""

    strategy: Strategy
    stream: Stream
    model: Model


def replay(home: Path, run: str) -> Replayed:
    """The run's model, its components taken from the store (one that is missing is built again).

    Raises BadInput for a run made from bare Python objects, or whose backbone is another one now.
    """
    request, machine = _read(home, run, "request.json"), _read(home, run, "replay.json")
    if machine["backbone"] is None:
        raise BadInput(f"the backbone of run {run} cannot be loaded again: {OBJECT}")
    numerics = configure(machine["device"], machine["threads"])
    backbone = load_backbone(machine["backbone"], numerics.device)
    if backbone.digest != request["backbone"]:
        raise BadInput(f"backbone '{backbone.name}' is not the one of run {run} any more; run again with this one")
    method = strategy_of(request["strategy"])
    hyper: Any = resolve(method.Hyper, method.presets, [], request["hyper"])
    strategy = method(hyper, Builder(Store(home), backbone, numerics, request["seed"]))
    stream = stream_of(request["stream"])
    model, tasks = Model(), stream.tasks
    for position, task in enumerate(track(tasks, f"replaying {request['strategy']} on {stream.name}")):
        model = strategy.extended(model, task, len(tasks) - position - 1)
    return Replayed(strategy, stream, model)


def stream_of(recipe: Mapping[str, Any]) -> Stream:
    """The stream of a recipe: {"name": registry name or `module:factory`, "arguments": its keyword arguments}."""
    name = recipe["name"]
    if name == "object":
        raise BadInput(f"the stream of this run cannot be made again: {OBJECT}")
    factory: Callable[..., Stream] = _imported(name) if ":" in name else registry.streams.get(name)
    return factory(**recipe["arguments"])


def strategy_of(name: str) -> type[Strategy]:
    """The strategy of a registry name or of `module:Class`."""
    found: type[Strategy] = _imported(name) if ":" in name else registry.strategies.get(name)
    return found


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(f"{place} cannot be imported ({error}): {OBJECT}") from error


def _read(home: Path, run: str, name: str) -> dict[str, Any]:
    path = home / "runs" / run / name
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read; run it again") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path} is damaged; run it again")
    return content
