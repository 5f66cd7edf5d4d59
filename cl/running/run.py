"""Running a strategy over a stream: the call behind `palimpsest run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cl.components.builder import Builder
from cl.data.recipes import resolve_stream
from cl.data.stream import Stream
from cl.errors import BadInput
from cl.home.layout import default_home
from cl.home.results import Result
from cl.home.store import Store
from cl.learning.hyper import resolve
from cl.learning.strategy import Strategy
from cl.models.loading import load_backbone
from cl.models.vit import TimmBackbone
from cl.numerics import configure
from cl.running.grants import Grants
from cl.running.request import Request, Source, method_and_name, place_of, readable, recipe_of, replayable, values_of
from cl.running.session import Session

MAX_SEED = 2**63  # what the results database can hold


def run(
    stream: str | Stream,
    strategy: str | type[Strategy],
    *,
    backbone: str | TimmBackbone = "glyph-vit",
    seed: int = 0,
    presets: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    home: str | Path | None = None,
    device: str = "auto",
    threads: int = 1,
    data: str | Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    user: str | None = None,
) -> Result:
    """Run `strategy` over `stream` and return its figures; what the home's store holds is not built again.

    stream, strategy, backbone: names, or objects; stream and backbone may be TOML files. presets, settings:
    hyperparameters by preset, then by name. data: where the files of a stream by name lie, if it has any. arguments: of
    a stream by name, such as `people`. user: run on what this user may read, and on nothing else. Raises
    PalimpsestError (a subclass) with one line for anything that cannot be used.
    """
    if not 0 <= seed < MAX_SEED:
        raise BadInput(f"seed must be from 0 to {MAX_SEED - 1}, not {seed}")
    numerics = configure(device, threads)
    method, name = method_and_name(strategy)
    hyper: Any = resolve(method.Hyper, method.presets, list(presets), settings or {})
    place = Path(home) if home is not None else default_home()
    everything = Grants(place).govern(resolve_stream(stream, data, place, arguments))
    whole = readable(everything, user, method.isolates(hyper))
    whole.prepare()
    store = Store(place)
    network = load_backbone(backbone, numerics.device) if isinstance(backbone, str) else backbone
    request = Request(recipe_of(whole), name, values_of(hyper), network.digest, seed, user)
    source = Source(replayable(everything), place_of(backbone), numerics.device, threads, tuple(presets))
    return Result(Session(store, network, numerics, request, source, whole, method, hyper).run())


def assembled(
    strategy: str | type[Strategy],
    *,
    backbone: str | TimmBackbone = "glyph-vit",
    seed: int = 0,
    presets: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    home: str | Path | None = None,
    device: str = "auto",
    threads: int = 1,
) -> Strategy:
    """The strategy on a home's store, for loops that are not ours: `extended(model, task, remaining)` learns a task,
    `scores(model, samples)` scores. No figures are recorded. Arguments and errors are those of `run`."""
    numerics = configure(device, threads)
    method, _ = method_and_name(strategy)
    hyper: Any = resolve(method.Hyper, method.presets, list(presets), settings or {})
    network = load_backbone(backbone, numerics.device) if isinstance(backbone, str) else backbone
    store = Store(Path(home) if home is not None else default_home())
    return method(hyper, Builder(store, network, numerics, seed))
