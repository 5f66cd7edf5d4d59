"""Making a finished run's model again, in any process, from what its folder holds."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from cl.backbone import load_backbone
from cl.build import Builder
from cl.errors import BadInput, CorruptComponent, StoreError
from cl.hyper import resolve
from cl.numerics import configure
from cl.progress import track
from cl.recipes import OBJECT, resolve_stream, strategy_of
from cl.store import Store
from cl.strategy import Model
from cl.stream import Recipe


class Replay:
    """A finished run again: its strategy, its stream, and its model after the last task.

    Raises BadInput for a run made from bare Python objects, or whose backbone is another one now.
    """

    def __init__(self, home: Path, run: str) -> None:
        request = _read(home, run, "request.json", "stream", "strategy", "hyper", "backbone", "seed")
        source = _read(home, run, "source.json", "stream", "backbone", "device", "threads")
        for what in ("stream", "backbone"):
            if source[what] is None:
                raise BadInput(f"the {what} of run {run} cannot be made again: {OBJECT}")
        self.stream = resolve_stream(Recipe(**source["stream"]), home=home)
        numerics = configure(source["device"], source["threads"])
        backbone = load_backbone(source["backbone"], numerics.device)
        if backbone.digest != request["backbone"]:
            raise BadInput(f"backbone '{backbone.name}' is not the one of run {run} any more; run again with this one")
        method = strategy_of(request["strategy"])
        hyper: Any = resolve(method.Hyper, method.presets, [], request["hyper"])
        self.strategy = method(hyper, Builder(Store(home), backbone, numerics, request["seed"]))

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
        return model


def _read(home: Path, run: str, name: str, *names: str) -> dict[str, Any]:
    path = home / "runs" / run / name
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        return {name: content[name] for name in names}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be read; run it again") from error
