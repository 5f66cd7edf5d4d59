"""What lies in the folder of a run: what names it, what makes it again, what it built and from which samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cl.digests import digest_json
from cl.documents import Document

RUN_ID = 12  # hexadecimal digits of the request's digest


@dataclass(frozen=True)
class Recipe:
    """How to make a stream again in another process: a registry name, `module:factory` or TOML file, and arguments.

    declared: what a TOML file says of the stream that stays true while the stream grows. place: where its files lie on
    this machine (`file`: the TOML file, or `data`: a folder); needed to make it again, but no part of the run's name.

    A run is named by what was declared, never by what its images hold: a name made of content would tell for good
    whether a deleted image was among them.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    declared: Mapping[str, Any] = field(default_factory=dict)
    place: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        named = {"name": self.name, "arguments": dict(self.arguments)}
        return {**named, "declared": dict(self.declared)} if self.declared else named


@dataclass(frozen=True)
class Request(Document):
    """What names a run: the same request has the same id."""

    stream: Recipe
    strategy: str
    hyper: Mapping[str, Any]
    backbone: str
    seed: int
    user: str | None = None

    @property
    def id(self) -> str:
        """The first digits of the request's digest."""
        named = {
            "stream": self.stream.as_json(),
            "strategy": self.strategy,
            "hyper": dict(self.hyper),
            "backbone": self.backbone,
            "seed": self.seed,
            "user": self.user,
        }
        return digest_json(named)[:RUN_ID]


@dataclass(frozen=True)
class RunSource(Document):
    """What makes a run again on this machine. None of it is part of the run's name: the same content at another place
    is the same run. stream, backbone: None for an object."""

    stream: Recipe | None
    backbone: str | None
    device: str
    threads: int
    presets: tuple[str, ...] = ()


@dataclass(frozen=True)
class LearntTask:
    """One row of a model's table of tasks."""

    id: str
    classes: tuple[str, ...]
    domain: str | None


@dataclass(frozen=True)
class Entry:
    """One entry of a model. key: of the component. parts: part -> content digest."""

    name: str
    key: str
    parts: Mapping[str, str]


@dataclass(frozen=True)
class Reference:
    """A component that a run used, and what it called it; one name may stand for several."""

    name: str
    key: str


@dataclass(frozen=True)
class Manifest(Document):
    """What a run came to. entries, tasks: its model, in the model's order. image_size: height and width of what it was
    shown, None where there was nothing. components: durable parts and predictions, name -> content digest. digest: over
    all of them. uses: every component that the run used, by name."""

    entries: tuple[Entry, ...]
    tasks: tuple[LearntTask, ...]
    image_size: int | None
    components: Mapping[str, str]
    digest: str
    uses: tuple[Reference, ...]

    @property
    def keys(self) -> set[str]:
        """Keys of all components that the run used."""
        return {use.key for use in self.uses}

    @property
    def names(self) -> set[str]:
        """What they are called, in the model or where they were built."""
        return {use.name for use in self.uses} | {entry.name for entry in self.entries}


@dataclass(frozen=True)
class ResolvedSample:
    """One sample of a resolved stream. subject: the person, if one is known. access: its labels."""

    id: str
    label: str
    subject: str | None
    access: tuple[str, ...]


@dataclass(frozen=True)
class ResolvedTask:
    """A task and its samples. capacity: how many training images it was declared to hold."""

    id: str
    classes: tuple[str, ...]
    domain: str | None
    capacity: int | None
    train: tuple[ResolvedSample, ...]
    test: tuple[ResolvedSample, ...]


@dataclass(frozen=True)
class ResolvedSegment:
    """A segment and its samples, by batch. declared: every batch that it was made with."""

    id: str
    domain: str
    declared: tuple[str, ...]
    batches: Mapping[str, tuple[ResolvedSample, ...]]

    @property
    def rows(self) -> Iterator[ResolvedSample]:
        """Every sample, batch by batch."""
        for batch in self.batches.values():
            yield from batch


@dataclass(frozen=True)
class Resolution(Document):
    """A stream down to its samples, as a run read it."""

    stream: str
    tasks: tuple[ResolvedTask, ...]
    segments: tuple[ResolvedSegment, ...]

    @property
    def rows(self) -> Iterator[ResolvedSample]:
        """Every sample."""
        for task in self.tasks:
            yield from (*task.train, *task.test)
        for segment in self.segments:
            yield from segment.rows

    @property
    def ids(self) -> set[str]:
        """Every sample's id."""
        return {row.id for row in self.rows}

    @property
    def places(self) -> tuple[str, ...]:
        """Ids of tasks, then of segments."""
        return (*(task.id for task in self.tasks), *(segment.id for segment in self.segments))
