"""Streams of unlabelled test batches under drifting conditions, made from any labelled stream.

The labelled stream's training images are the source split, one task of all classes; its test images are the clean test
set, and the pictures that come back under every condition. A picture's sample under a condition is `PICTURE|GN/5|r03`,
its segment `r03/GN/5`, its batch `r03/GN/5/b0017`. A picture is a subject: its deletion reaches all domains and rounds.

`drifting-digits` (MNIST scans) and `drifting-glyphs` (glyphs that the shipped backbone never saw) work out of the box.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from cl import Recipe, Samples, Seeds, Segment, Stream, Task
from cl.data.samples import Pixels, concat
from cl.errors import BadInput, UnknownName
from streams import schedules
from streams.corruptions import CIFAR_C, CODES, CorruptedPixels, Generator, check_severity, code_of, sample_of
from streams.digits import split_mnist_5k
from streams.glyphs import glyphs
from streams.schedules import CCC_CODES, SCHEDULES, TOP, Visit

DELTA = 0.1
ROUNDS = "rounds"
FEW = 4  # batches that the ready-made streams take of a domain
LIKE = "its pictures are like CIFAR-10-C, not of it: corrupted here with that set's parameters, frost from noise"


@dataclass(frozen=True)
class Arrangement:
    """How a visit's pictures become batches.

    batches: how many at most, None for all pictures. official_order: by name, as published codes do, not by hash.
    rounds_alike: every round has the order (and, with `batches`, the pictures) of the first. disjoint: no picture is
    seen under two corruptions. delta: concentration of the Dirichlet process that sorts a segment by class.
    """

    batch_size: int = 50
    batches: int | None = None
    seed: int = 0
    official_order: bool = False
    rounds_alike: bool = False
    disjoint: bool = False
    delta: float | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "batches"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadInput(f"{name} must be at least 1, not {value}")
        if self.delta is not None and not 0 < self.delta < float("inf"):
            raise BadInput(f"delta must be above 0, not {self.delta:g}; 0.01 to 0.1 is usual")


@dataclass(frozen=True)
class Drift:
    """What comes at test time, and how it is dealt out.

    schedule: standard, orders10, gradual, rounds, mixed, correlated or ccc-mini. corruptions: names or codes, in this
    order; `all` are the usual fifteen. rounds: how often `rounds` (10) and `ccc-mini` (2) repeat. order: which of the
    ten, for `orders10`. batches: of a segment at most, None for all pictures (`ccc-mini`: 1). The others: see
    `Arrangement`.
    """

    schedule: str = "standard"
    corruptions: str | Sequence[str] = "all"
    severity: float = TOP
    rounds: int | None = None
    order: int | None = None
    batch_size: int = 50
    batches: int | None = None
    seed: int = 0
    delta: float | None = None
    disjoint: bool = False
    official_order: bool = False
    rounds_alike: bool = False

    @property
    def codes(self) -> list[str]:
        """The corruptions, by code. Raises BadInput where there is none or one twice, UnknownName."""
        names = self.corruptions
        if isinstance(names, str):
            usual = CCC_CODES if self.schedule == "ccc-mini" else CODES
            names = list(usual) if names == "all" else names.replace(",", " ").split()
        codes = [code_of(name) for name in names]
        twice = [code for code in codes if codes.count(code) > 1]
        if not codes:
            raise BadInput("name a corruption, or all")
        if twice:
            raise BadInput(f"corruption {twice[0]} is named twice; name it once")
        return codes

    @property
    def arrangement(self) -> Arrangement:
        """How a visit's pictures become batches. Raises BadInput."""
        most = 1 if self.batches is None and self.schedule == "ccc-mini" else self.batches
        delta = DELTA if self.delta is None and self.schedule == "correlated" else self.delta
        return Arrangement(
            self.batch_size, most, self.seed, self.official_order, self.rounds_alike, self.disjoint, delta
        )

    def visits(self, codes: Sequence[str]) -> list[Visit]:
        """The visits to domains, in order. Raises BadInput or UnknownName."""
        severity = check_severity(self.severity)
        self._check()
        match self.schedule:
            case "orders10":
                return schedules.orders10(self.order or 0, codes, severity)
            case "gradual":
                return schedules.gradual(codes)
            case "rounds":
                return schedules.rounds(self.rounds or 10, codes, severity)
            case "mixed":
                return schedules.mixed(codes, severity)
            case "ccc-mini":
                return schedules.ccc_mini(self.seed, self.rounds or 2, codes)
        return schedules.standard(codes, severity)  # also `correlated`: the order inside its segments is another

    def _check(self) -> None:
        """Raises BadInput for an argument that the schedule does not take, UnknownName for a schedule."""
        if self.schedule not in SCHEDULES:
            raise UnknownName("schedule", self.schedule, SCHEDULES)
        severity = None if self.severity == TOP else self.severity
        for name, value, where in (
            ("rounds", self.rounds, ("rounds", "ccc-mini")),
            ("order", self.order, ("orders10",)),
            ("delta", self.delta, ("correlated",)),
            ("severity", severity, ("standard", "orders10", "rounds", "mixed", "correlated")),
        ):
            if value is not None and self.schedule not in where:
                mend = f"leave it out, or choose {' or '.join(where)}"
                raise BadInput(f"schedule '{self.schedule}' takes no {name}; {mend}")
        if self.rounds is not None and self.rounds < 1:
            raise BadInput(f"rounds must be at least 1, not {self.rounds}")


def drifting(
    stream: Stream,
    drift: Drift | None = None,
    *,
    generator: Generator = CIFAR_C,
    name: str | None = None,
    recipe: Recipe | None = None,
) -> Stream:
    """The labelled `stream` as source split, and its test images in segments as `drift` says (default: `Drift()`).

    generator: what corrupts, `streams.imagenet_corruptions.IMAGENET_C` for pictures of 224 pixels. Raises BadInput or
    UnknownName.
    """
    drift = drift or Drift()
    codes, plan = drift.codes, drift.arrangement
    course = drift.visits(codes)
    source = source_task(stream)
    pixels = CorruptedPixels(source.test.pixels, generator)
    labels = dict(zip(source.test.ids, source.test.labels, strict=True))
    segments = [segment_of(visit, plan, labels, codes, pixels) for visit in course]
    next(iter(segments[0].batches.values())).images([0])  # what cannot be corrupted is told now
    notes = (*stream.notes, LIKE) if generator is CIFAR_C else stream.notes
    return test_time_stream(name or f"drifting-{stream.name}", source, segments, stream.subjects, recipe, notes)


def test_time_stream(
    name: str,
    source: Task,
    segments: Sequence[Segment],
    people: Mapping[str, str],
    recipe: Recipe | None,
    notes: tuple[str, ...],
) -> Stream:
    """A stream at test time. A sample's subject is the person of its picture, or else the picture."""
    clean = {sample: people.get(sample, sample) for shard in (source.train, source.test) for sample in shard.ids}
    seen = (sample for segment in segments for batch in segment.batches.values() for sample in batch.ids)
    pictures = {sample: sample.rsplit("|", 2)[0] for sample in seen}
    subjects = {sample: people.get(picture, picture) for sample, picture in pictures.items()}
    return Stream(name, (source,), recipe, {**clean, **subjects}, notes=notes, segments=tuple(segments))


def source_task(stream: Stream) -> Task:
    """All tasks of a stream as one. Raises BadInput where it has no test images."""
    train, test = concat([task.train for task in stream.tasks]), concat([task.test for task in stream.tasks])
    if not len(test):
        raise BadInput(f"stream '{stream.name}' has no test images, so nothing could drift; add some")
    return Task("source", stream.classes, train, test)


# From a visit to batches: slots of one order, declared before anything is deleted.


def segment_of(
    visit: Visit, plan: Arrangement, labels: Mapping[str, str], codes: Sequence[str], pixels: Pixels
) -> Segment:
    """The segment of a visit. labels: picture -> class name. codes: the corruptions that `disjoint` shares pictures
    among. Raises BadInput where there is no picture."""
    ranked = sorted(
        one for condition in visit.conditions for one in _ranked(visit, condition, plan, labels, codes)
    )  # of each condition's they are in order already
    if plan.delta is not None:
        ranked = _by_class(ranked, visit, plan, labels, plan.delta)
    if not ranked:
        raise BadInput(f"segment {visit.segment} has no pictures; there are only {len(labels)}, leave disjoint out")
    batches = {}
    for number, start in enumerate(range(0, len(ranked), plan.batch_size)):
        slot = ranked[start : start + plan.batch_size]
        held = {sample_of(picture, condition, visit.number): labels[picture] for _, picture, condition in slot}
        batches[f"{visit.segment}/b{number:04d}"] = Samples.of(held, pixels)
    return Segment(visit.segment, visit.domain, batches)


Ranked = tuple[bytes, str, str]  # rank, picture, condition


def _ranked(
    visit: Visit, condition: str, plan: Arrangement, labels: Mapping[str, str], codes: Sequence[str]
) -> list[Ranked]:
    """The pictures that a visit shows under one condition, in their order."""
    mine = list(labels)
    if plan.disjoint:
        place = codes.index(condition.partition("/")[0])
        mine = [name for name in mine if int.from_bytes(_hash(plan.seed, "disjoint", name)) % len(codes) == place]
    most = None if plan.batches is None else plan.batches * plan.batch_size
    where = _where(visit, plan)
    several = len(visit.conditions) > 1

    def rank(picture: str) -> bytes:
        name = f"{picture}|{condition}" if several else picture
        return name.encode("utf-8", "surrogatepass") if plan.official_order else _hash(plan.seed, where, name)

    return sorted((rank(picture), picture, condition) for picture in mine)[:most]


def _where(visit: Visit, plan: Arrangement) -> str:
    """What names the visit in every hash."""
    return visit.domain if plan.rounds_alike else visit.segment


def _hash(*names: object) -> bytes:
    return hashlib.sha256("|".join(map(str, names)).encode("utf-8", "surrogatepass")).digest()


def _by_class(
    ranked: Sequence[Ranked], visit: Visit, plan: Arrangement, labels: Mapping[str, str], delta: float
) -> list[Ranked]:
    """Sorted by a Dirichlet process over the classes: each class spreads over as many stretches of time as there are
    classes, in shares drawn from Dirichlet(delta); within a stretch, class after class."""
    classes = sorted({labels[picture] for _, picture, _ in ranked})
    stretches: list[list[Ranked]] = [[] for _ in classes]
    for name in classes:
        mine = [one for one in ranked if labels[one[1]] == name]
        seed = Seeds(f"correlated|{plan.seed}").integer("shares", _where(visit, plan), name)
        shares = np.random.default_rng(seed).dirichlet([delta] * len(classes))
        ends = np.rint(np.cumsum(shares) * len(mine)).astype(int).tolist()
        for stretch, start, end in zip(stretches, [0, *ends], ends, strict=False):
            stretch += mine[start:end]
    return [one for stretch in stretches for one in stretch]


# Streams that work out of the box.


class _ReadyMade:
    """The factory of a drifting stream over `labelled()`, called and explained as that function is. Its arguments are
    those of `Drift`, by default a short stream of two rounds."""

    def __init__(self, labelled: Callable[[], Stream]) -> None:
        self._labelled, self.name, self.__doc__ = labelled, labelled.__name__.replace("_", "-"), labelled.__doc__

    def __call__(self, **options: Any) -> Stream:
        drift = Drift(**{"schedule": ROUNDS, **options})
        short = drift
        if drift.batches is None and drift.schedule != "ccc-mini":
            short = replace(short, batches=FEW)
        if drift.rounds is None and drift.schedule == ROUNDS:
            short = replace(short, rounds=2)
        # Their people are synthetic; here each picture is a subject.
        pictures = replace(self._labelled(), subjects={}, notes=())
        return drifting(pictures, short, name=self.name, recipe=Recipe(self.name, asdict(drift)))

    @property
    def __signature__(self) -> inspect.Signature:
        """Those arguments; `corruptions` are text, as on the command line."""
        own = inspect.signature(Drift, eval_str=True)
        schedule = own.parameters["schedule"].replace(default=ROUNDS)
        corruptions = own.parameters["corruptions"].replace(annotation=str)
        changed = {**own.parameters, "schedule": schedule, "corruptions": corruptions}
        return own.replace(parameters=list(changed.values()), return_annotation=Stream)


@_ReadyMade
def drifting_digits() -> Stream:
    """MNIST scans under 15 corruptions coming back at test time, 2 rounds of 4 batches of 50; source split of 4,000"""
    return split_mnist_5k()


@_ReadyMade
def drifting_glyphs() -> Stream:
    """50 unseen glyph classes under 15 corruptions that come back at test time, 2 rounds of 4 batches of 50"""
    return glyphs()
