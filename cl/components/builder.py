"""Building components: pure functions in, stored parts out, each under the digest of everything it read.

A build is a module-level function marked with `builds`. Its positional parameters are what it reads (opened parts,
shards); its keyword parameters are plain values from the configuration, or dataclasses of such. Four keyword names are
provided by the engine when the function asks for them, and only then enter its key where they matter:

    backbone    the frozen network             (its digest is in the key)
    seeds       randomness by name             (run seed and component name are in the key)
    checkpoint  where a long build may pause   (not in the key: resumed bytes equal straight ones)
    numerics    device and threads             (always in the key)
"""

from __future__ import annotations

import inspect
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from cl.code import code_digest, unkeyed
from cl.components.checkpoint import Checkpoint
from cl.components.handles import Handle, Part, Read, Reads, _identity, _leaves, _lineage, _opened, shards_of
from cl.data.samples import Samples
from cl.digests import canonical, digest_json
from cl.errors import BadInput, CorruptComponent, NonFinite
from cl.home.store import DURABLE, ROLES, Record, Store, Tensors, check_parts, describe_parts
from cl.models.backbone import Backbone
from cl.numerics import Numerics, fingerprint
from cl.seeds import Seeds

PROVIDED = ("backbone", "seeds", "checkpoint", "numerics")
TRAINED = frozenset({"adapter", "head", "router", "descriptor", "state"})
MEMO_BYTES = 64 << 20

Function = TypeVar("Function", bound=Callable[..., Any])

_builds: dict[str, list[Callable[..., Any]]] = {}


@unkeyed("the roles count where a build names them")
def builds(role: str | None = None, /, **parts: str) -> Callable[[Function], Function]:
    """Mark a build function: `@builds("prototype")` for one part, `@builds(a="adapter", h="head")` for several."""
    roles = {"": role} if role is not None else parts
    wrong = [name for name in roles.values() if name not in ROLES]
    if wrong or not roles:
        raise BadInput(f"unknown role {wrong}; roles are {', '.join(ROLES)}")

    def mark(function: Function) -> Function:
        function.roles = roles  # type: ignore[attr-defined]
        _builds.setdefault(function.__qualname__, []).append(function)
        return function

    return mark


def builds_named(name: str) -> list[Callable[..., Any]]:
    """The builds of that name in the modules that are loaded."""
    return list(_builds.get(name, ()))


def _place(build: Callable[..., Any]) -> str:
    return f"{build.__module__}.{build.__qualname__}"


@dataclass(slots=True)
class Use:
    """One call of `component`: what it cost when built, and whether it was built now."""

    name: str
    key: str
    phase: str
    built: bool
    seconds: float
    passes: int
    samples: int


@dataclass
class Builder:
    """Turns (name, build, reads, arguments) into a handle: from the store if it is there, else by building it."""

    store: Store
    backbone: Backbone
    numerics: Numerics
    seed: int
    uses: list[Use] = field(default_factory=list)
    phase: str = "setup"
    place: str = ""
    on_build: Callable[[str, str], None] | None = None
    _memo: OrderedDict[tuple[str, str], Tensors] = field(default_factory=OrderedDict)
    _memo_bytes: int = 0

    def component(
        self, name: str, build: Callable[..., Any], *reads: Read, controls: Sequence[Part] = (), **arguments: Any
    ) -> Handle:
        """The component `name` made by `build(*reads, **arguments)`.

        controls: decisions that led here; they enter key and lineage, not the call. Raises BadInput for an argument
        that is not plain JSON, NonFinite where a build returns NaN in a part that must not have one.
        """
        plan = self._plan(name, build, reads, controls, arguments)
        if any(leaf.transient for leaf in _leaves(reads)):
            return self._build(plan, store=False)
        record = self.store.find(plan.key)
        if record is not None and _tells(record, plan) and self.store.sound(record):
            return self._reuse(plan, record)
        with self.store.building(plan.key):
            record = self.store.find(plan.key)
            if record is not None:
                return self._reuse(plan, self._told(record, plan))
            return self._build(plan, store=True)

    def build_together(
        self,
        name: str,
        build: Callable[..., Any],
        at_once: Callable[..., Sequence[Any]],
        several: Sequence[tuple[Part | Handle | Samples, ...]],
        controls: Sequence[Part] = (),
        **arguments: Any,
    ) -> None:
        """Build what is missing of the components `name` = `build(*reads, **arguments)`, for each `reads` in `several`.

        at_once: gives, for a list of opened reads and the same arguments, the list of what `build` gives for each: the
        same bits, in one go. `build` calls it too, so that its code is in their keys.
        """
        plans = {plan.key: plan for reads in several for plan in [self._plan(name, build, reads, controls, arguments)]}
        if any(leaf.transient for reads in several for leaf in _leaves(reads)):
            return  # nothing is kept of these, so `component` builds them when they are asked for
        with self.store.building(*(key for key in plans if self.store.find(key) is None)):
            missing = [plan for key, plan in plans.items() if self.store.find(key) is None]
            if len(missing) < 2:
                return
            start, passes = time.perf_counter(), self.backbone.passes
            calls = [[_opened(read) for read in plan.reads] for plan in missing]
            results = at_once(calls, backbone=self.backbone, **arguments)
            share = 1 / len(missing)
            cost = share * (time.perf_counter() - start), share * (self.backbone.passes - passes)
            for plan, result in zip(missing, results, strict=True):
                self._build(replace(plan, build=_giving(result)), store=True, before=cost)

    @contextmanager
    def in_phase(self, phase: str) -> Iterator[None]:
        """Account for what happens inside under `phase`."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Call what is built inside `place/name`. Seeds and keys know the plain name alone."""
        before, self.place = self.place, f"{place}/"
        try:
            yield
        finally:
            self.place = before

    def warn(self, line: str) -> None:
        """Add a line to the run's warnings, unless it is there."""
        if line not in self.store.warnings:
            self.store.warnings.append(line)

    def _plan(
        self,
        name: str,
        build: Callable[..., Any],
        reads: Sequence[Read],
        controls: Sequence[Part],
        arguments: dict[str, Any],
    ) -> Plan:
        roles = getattr(build, "roles", None)
        if roles is None:
            raise BadInput(f"{_place(build)} is not a build; mark it with @builds(role)")
        wanted = [p for p in inspect.signature(build).parameters if p in PROVIDED]
        code = self._code(build)
        identity = {
            "build": build.__qualname__,  # its name, not its place: it may move to another file
            "code": code,
            "arguments": _plain(arguments),
            "backbone": self.backbone.digest if "backbone" in wanted else None,
            "reads": [_identity(read) for read in reads],
            "controls": [part.digest for part in controls],
            "seed": f"{self.seed}|{name}" if "seeds" in wanted else None,
            "numerics": self.numerics.as_json(),
        }
        try:
            key = digest_json(identity)
        except (TypeError, ValueError) as error:
            raise BadInput(f"argument of {_place(build)} is not plain JSON: {error}") from error
        return Plan(
            f"{self.place}{name}",
            key,
            build,
            _place(build),
            roles,
            tuple(reads),
            tuple(controls),
            arguments,
            tuple(wanted),
            identity,
        )

    def _code(self, build: Callable[..., Any]) -> str:
        return code_digest(build)

    def _build(self, plan: Plan, store: bool, before: tuple[float, float] = (0.0, 0.0)) -> Handle:
        """before: seconds and passes that went into it already."""
        if self.on_build is not None:
            self.on_build(plan.name, plan.key)
        checkpoint = Checkpoint(self._paused(plan) if store else None, self.store.write)
        provided = {
            "backbone": self.backbone,
            "seeds": Seeds(plan.identity["seed"] or ""),
            "checkpoint": checkpoint,
            "numerics": self.numerics,
        }
        opened = [_opened(read) for read in plan.reads]
        start, passes = time.perf_counter(), self.backbone.passes
        try:
            result = plan.build(*opened, **plan.arguments, **{name: provided[name] for name in plan.wanted})
        except NonFinite as error:
            raise NonFinite(f"'{plan.name}': {error}") from error
        seconds = time.perf_counter() - start
        parts = {"": result} if "" in plan.roles else result
        check_parts(plan.origin, parts, plan.roles)
        _check_finite(plan, parts)
        reads = _reads(plan) if store else ()  # what is not kept needs no lineage
        record = self._record(plan, reads, parts, before[0] + seconds, round(before[1] + self.backbone.passes - passes))
        if not store:
            return Handle(record, lambda _, part: parts[part], transient=True)
        self.store.commit(record, parts, [shard.described for shard in shards_of(plan.reads)])
        checkpoint.clear()
        self._log(plan, record, built=True)
        return Handle(record, self._open)

    def _reuse(self, plan: Plan, record: Record) -> Handle:
        for shard in shards_of(plan.reads):
            self.store.shards.remember(shard.described)
        if "checkpoint" in plan.wanted:  # a process killed between commit and clearing leaves one behind
            self._paused(plan).unlink(missing_ok=True)
        self.store.used(record)
        self._log(plan, record, built=False)
        return Handle(record, self._open)

    def _paused(self, plan: Plan) -> Path:
        return self.store.home / "checkpoints" / f"{plan.key}.safetensors"

    def _told(self, record: Record, plan: Plan) -> Record:
        """The record with this way of reaching it added: equal bytes may come from parents of several keys, and a
        deletion must follow each of them."""
        if _tells(record, plan):
            return record
        reads = (*record.reads, *(read for read in _reads(plan) if read not in record.reads))
        self.store.amend(record, reads)
        return replace(record, reads=reads)

    def _open(self, record: Record, part: str) -> Tensors:
        place = record.key, part
        if place not in self._memo:
            self._memo[place] = self._load(record, part)
            self._memo_bytes += record.parts[part]["bytes"]
        self._memo.move_to_end(place)
        found = self._memo[place]
        while self._memo_bytes > MEMO_BYTES and len(self._memo) > 1:
            _, dropped = self._memo.popitem(last=False)
            self._memo_bytes -= sum(t.numel() * t.element_size() for t in dropped.values())
        return found

    def _load(self, record: Record, part: str) -> Tensors:
        try:
            return self.store.load(record, part)
        except CorruptComponent as error:
            self.store.evict(record.key, f"{error}; it is built again")
            raise

    def _record(self, plan: Plan, reads: Reads, parts: Mapping[str, Tensors], seconds: float, passes: int) -> Record:
        identity = plan.identity
        return Record(
            key=plan.key,
            build=plan.origin,
            parts=describe_parts(parts, plan.roles),
            reads=reads,
            arguments=json.loads(canonical(identity["arguments"])),
            numerics=identity["numerics"],
            seed=identity["seed"],
            backbone=identity["backbone"],
            code=identity["code"],
            seconds=seconds,
            passes=passes,
            samples=sum(len(shard) for shard in shards_of(plan.reads)),
            fingerprint=fingerprint(),
        )

    def _log(self, plan: Plan, record: Record, built: bool) -> None:
        use = Use(plan.name, record.key, self._phase(plan), built, record.seconds, record.passes, record.samples)
        self.uses.append(use)

    def _phase(self, plan: Plan) -> str:
        """While learning, what is trained and what is only measured are accounted for apart."""
        if self.phase != "learn":
            return self.phase
        return "train" if TRAINED.intersection(plan.roles.values()) else "statistics"


@dataclass(frozen=True)
class Plan:
    """One call of `component`, with its key and everything that entered it (`identity`). origin: where the build's
    code lies, for people."""

    name: str
    key: str
    build: Callable[..., Any]
    origin: str
    roles: Mapping[str, str]
    reads: tuple[Read, ...]
    controls: tuple[Part, ...]
    arguments: dict[str, Any]
    wanted: tuple[str, ...]
    identity: dict[str, Any]


def _check_finite(plan: Plan, parts: Mapping[str, Tensors]) -> None:
    for part, tensors in parts.items():
        for name, value in tensors.items():
            lasting = plan.roles[part] in DURABLE or plan.roles[part] == "prediction"
            if lasting and value.is_floating_point() and not torch.isfinite(value).all():
                raise NonFinite(
                    f"'{plan.name}' has a NaN or infinite value in {name}; lower the learning rate (--set lr=...)"
                )


def _giving(result: Any) -> Callable[..., Any]:
    return lambda *_, **__: result


def _reads(plan: Plan) -> Reads:
    return tuple([*_lineage(plan.reads, "data", plan.key), *_lineage(plan.controls, "control", plan.key)])


def _tells(record: Record, plan: Plan) -> bool:
    """Whether the record names everything that this plan reads."""
    reads = _reads(plan)
    if reads == record.reads:
        return True
    told = {frozenset(read.items()) for read in record.reads}
    return all(frozenset(read.items()) in told for read in reads)


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in arguments.items()
    }
