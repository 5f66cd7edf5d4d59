"""Streams of unlabelled test batches under drifting conditions, made from any labelled stream.

The labelled stream's training images are the source split, one task of all classes; its test images are the clean test
set, and the pictures that come back under every condition. A picture's sample under a condition is `PICTURE|GN/5|r03`,
its segment `r03/GN/5`, its batch `r03/GN/5/b0017`. A picture is a subject: its deletion reaches all domains and rounds.

`drifting-digits` (MNIST scans) and `drifting-glyphs` (glyphs that the shipped backbone never saw) work out of the box.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cl.data.samples import Pixels, Samples, concat
from cl.data.stream import Recipe, Segment, Stream, Task
from cl.errors import BadInput, UnknownName
from cl.seeds import Seeds
from streams import schedules
from streams.corruptions import CIFAR_C, CODES, CorruptedPixels, Generator, check_severity, code_of, sample_of
from streams.digits import split_mnist_5k
from streams.glyphs import glyphs
from streams.schedules import CCC_CODES, SCHEDULES, TOP, Visit

DELTA = 0.1
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


def drifting(
    stream: Stream,
    schedule: str = "standard",
    corruptions: str | Sequence[str] = "all",
    severity: float = TOP,
    *,
    rounds: int | None = None,
    order: int | None = None,
    batch_size: int = 50,
    batches: int | None = None,
    seed: int = 0,
    delta: float | None = None,
    disjoint: bool = False,
    official_order: bool = False,
    rounds_alike: bool = False,
    generator: Generator = CIFAR_C,
    name: str | None = None,
    recipe: Recipe | None = None,
) -> Stream:
    """The labelled `stream` as source split, and its test images in segments under the conditions of a schedule.

    schedule: standard, orders10, gradual, rounds, mixed, correlated or ccc-mini. corruptions: names or codes, in this
    order; `all` are the usual fifteen. rounds: how often `rounds` (10) and `ccc-mini` (2) repeat. order: which of the
    ten, for `orders10`. batches: of a segment at most, None for all pictures (`ccc-mini`: 1). The others: see
    `Arrangement`. generator: what corrupts, `streams.imagenet_corruptions.IMAGENET_C` for pictures of 224 pixels.
    Raises BadInput or UnknownName.
    """
    codes = _codes(corruptions, CCC_CODES if schedule == "ccc-mini" else CODES)
    if delta is None and schedule == "correlated":
        delta = DELTA
    most = 1 if batches is None and schedule == "ccc-mini" else batches
    plan = Arrangement(batch_size, most, seed, official_order, rounds_alike, disjoint, delta)
    course = _course(schedule, codes, check_severity(severity), rounds, order, delta, seed)
    source = source_of(stream)
    pixels = CorruptedPixels(source.test.pixels, generator)
    labels = dict(zip(source.test.ids, source.test.labels, strict=True))
    segments = [segment_of(visit, plan, labels, codes, pixels) for visit in course]
    next(iter(segments[0].batches.values())).images([0])  # what cannot be corrupted is told now
    return assembled(
        name or f"drifting-{stream.name}",
        source,
        segments,
        stream.subjects,
        recipe,
        (*stream.notes, LIKE) if generator is CIFAR_C else stream.notes,
    )


def assembled(
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


def source_of(stream: Stream) -> Task:
    """All tasks of a stream as one. Raises BadInput where it has no test images."""
    train, test = concat([task.train for task in stream.tasks]), concat([task.test for task in stream.tasks])
    if not len(test):
        raise BadInput(f"stream '{stream.name}' has no test images, so nothing could drift; add some")
    return Task("source", stream.classes, train, test)


def _codes(corruptions: str | Sequence[str], usual: Sequence[str]) -> list[str]:
    if isinstance(corruptions, str):
        corruptions = list(usual) if corruptions == "all" else corruptions.replace(",", " ").split()
    codes = [code_of(name) for name in corruptions]
    twice = [code for code in codes if codes.count(code) > 1]
    if twice or not codes:
        raise BadInput(f"corruption {twice[0]} is named twice; name it once" if twice else "name a corruption, or all")
    return codes


def _course(
    schedule: str,
    codes: Sequence[str],
    severity: float,
    times: int | None,
    order: int | None,
    delta: float | None,
    seed: int,
) -> list[Visit]:
    if schedule not in SCHEDULES:
        raise UnknownName("schedule", schedule, SCHEDULES)
    own = None if severity == TOP else severity
    for name, value, where in (
        ("rounds", times, ("rounds", "ccc-mini")),
        ("order", order, ("orders10",)),
        ("delta", delta, ("correlated",)),
        ("severity", own, ("standard", "orders10", "rounds", "mixed", "correlated")),
    ):
        if value is not None and schedule not in where:
            raise BadInput(f"schedule '{schedule}' takes no {name}; leave it out, or choose {' or '.join(where)}")
    if times is not None and times < 1:
        raise BadInput(f"rounds must be at least 1, not {times}")
    match schedule:
        case "orders10":
            return schedules.orders10(order or 0, codes, severity)
        case "gradual":
            return schedules.gradual(codes)
        case "rounds":
            return schedules.rounds(times or 10, codes, severity)
        case "mixed":
            return schedules.mixed(codes, severity)
        case "ccc-mini":
            return schedules.ccc_mini(seed, times or 2, codes)
    return schedules.standard(codes, severity)  # also `correlated`: the order inside its segments is another


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


def _ready_made(labelled: Callable[[], Stream]) -> Callable[..., Stream]:
    """The factory of a drifting stream over `labelled()`, called and explained as that function is."""
    name = labelled.__name__.replace("_", "-")

    def factory(
        schedule: str = "rounds",
        corruptions: str = "all",
        severity: float = TOP,
        rounds: int | None = None,
        order: int | None = None,
        batch_size: int = 50,
        batches: int | None = None,
        seed: int = 0,
        delta: float | None = None,
        disjoint: bool = False,
        official_order: bool = False,
        rounds_alike: bool = False,
    ) -> Stream:
        arguments: dict[str, Any] = {
            "schedule": schedule, "corruptions": corruptions, "severity": severity, "rounds": rounds, "order": order,
            "batch_size": batch_size, "batches": batches, "seed": seed, "delta": delta, "disjoint": disjoint,
            "official_order": official_order, "rounds_alike": rounds_alike,
        }  # fmt: skip
        short = {"batches": FEW if batches is None and schedule != "ccc-mini" else batches}
        short |= {"rounds": 2 if rounds is None and schedule == "rounds" else rounds}
        # Their people are synthetic; here each picture is a subject.
        pictures = replace(labelled(), subjects={}, notes=())
        return drifting(pictures, **{**arguments, **short}, name=name, recipe=Recipe(name, arguments))

    factory.__doc__ = labelled.__doc__
    return factory


@_ready_made
def drifting_digits() -> Stream:
    """MNIST scans under 15 corruptions coming back at test time, 2 rounds of 4 batches of 50; source split of 4,000"""
    return split_mnist_5k()


@_ready_made
def drifting_glyphs() -> Stream:
    """50 unseen glyph classes under 15 corruptions that come back at test time, 2 rounds of 4 batches of 50"""
    return glyphs()
