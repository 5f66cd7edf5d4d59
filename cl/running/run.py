"""Running a strategy over a stream: the call behind `palimpsest run`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cl.components.builder import Builder
from cl.components.handles import Handle, Part, Read, shards_of
from cl.data.recipes import declared_stream
from cl.data.stream import Stream
from cl.errors import BadInput, DataDeleted
from cl.home.records import Request, RunSource
from cl.home.results import Result
from cl.home.store import Store, open_home
from cl.learning.hyper import resolve
from cl.learning.strategy import Strategy
from cl.models.loading import default_backbone, load_backbone
from cl.models.vit import TimmBackbone
from cl.numerics import configure
from cl.running.grants import Grants
from cl.running.options import Options
from cl.running.request import method_and_name, place_of, readable_by, recipe_of, refuse_another, values_of
from cl.running.session import session_on
from cl.running.setup import Setup
from cl.running.suppression import Suppression

MAX_SEED = 2**63  # what the results database can hold


def run(
    stream: str | Stream,
    strategy: str | type[Strategy],
    *,
    backbone: str | TimmBackbone | None = None,
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

    stream, strategy, backbone: names, or objects; stream and backbone may be TOML files. Without a backbone: the one
    that `PALIMPSEST_BACKBONE` names, else `glyph-vit`. presets, settings: hyperparameters by preset, then by name.
    data: where the files of a stream by name lie, if it has any. arguments: of a stream by name, such as `people`.
    user: run on what this user may read, and on nothing else. Raises PalimpsestError (a subclass) with one line for
    anything that cannot be used.
    """
    given = Options(backbone, seed, presets, settings or {}, home, device, threads, data, arguments or {}, user)
    return run_with(stream, strategy, given)


def run_with(stream: str | Stream, strategy: str | type[Strategy], options: Options) -> Result:
    """`run` with its options as one value."""
    setup = _setup(stream, strategy, options)
    refuse_another(Store(options.place), setup)
    return Result(session_on(options.place, setup).run())


def _setup(stream: str | Stream, strategy: str | type[Strategy], options: Options) -> Setup:
    if not 0 <= options.seed < MAX_SEED:
        raise BadInput(f"seed must be from 0 to {MAX_SEED - 1}, not {options.seed}")
    numerics = configure(options.device, options.threads)
    method, name = method_and_name(strategy)
    hyper: Any = resolve(method.Hyper, method.presets, list(options.presets), options.settings)
    declared = declared_stream(stream, options.data, options.place, options.arguments, options.user)
    everything = Grants(options.place).govern(declared)
    whole = readable_by(options.user, everything, method.isolates(hyper))
    whole.prepare()
    open_home(options.place)  # one that cannot be used is refused before anything is loaded
    named = default_backbone() if options.backbone is None else options.backbone
    backbone = load_backbone(named, numerics.device) if isinstance(named, str) else named
    request = Request(recipe_of(whole), name, values_of(hyper), backbone.digest, options.seed, options.user)
    source = RunSource(everything.recipe, place_of(named), numerics.device, options.threads, tuple(options.presets))
    return Setup(request, source, whole, method, hyper, backbone, numerics)


def assembled(
    strategy: str | type[Strategy],
    *,
    backbone: str | TimmBackbone | None = None,
    seed: int = 0,
    presets: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    home: str | Path | None = None,
    device: str = "auto",
    threads: int = 1,
) -> Strategy:
    """The strategy on a home's store, for loops that are not ours: `extended(model, task, remaining)` learns a task,
    `scores(model, samples)` scores. No figures are recorded. Arguments and errors are those of `run`."""
    backbone = default_backbone() if backbone is None else backbone
    numerics = configure(device, threads)
    method, _ = method_and_name(strategy)
    hyper: Any = resolve(method.Hyper, method.presets, list(presets), settings or {})
    network = load_backbone(backbone, numerics.device) if isinstance(backbone, str) else backbone
    store = Store(Options(home=home).place)
    suppression = Suppression(store.home)
    builder = _CarefulBuilder(store, network, numerics, seed, suppression=suppression)
    return method(hyper, builder, admits=suppression.rest)


@dataclass
class _CarefulBuilder(Builder):
    """A builder for a loop that is not ours, which may hand it what was deleted."""

    suppression: Suppression = field(kw_only=True)

    def component(
        self, name: str, build: Callable[..., Any], *reads: Read, controls: Sequence[Part] = (), **arguments: Any
    ) -> Handle:
        if any(self.suppression.meets(shard) for shard in shards_of(reads) if not shard.transient):
            raise DataDeleted(f"'{name}' reads samples that were deleted from {self.store.home}; leave them out")
        return super().component(name, build, *reads, controls=controls, **arguments)
