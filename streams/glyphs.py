"""Streams of rendered glyphs, from classes that the shipped backbone never saw.

`glyphs`: 50 of the reserved classes in 10 tasks of 5, drawn in the widest style; the test images are in a font family
that the class's training images do not use.

`recurring-glyphs` and `long-glyphs`: each task brings new classes in one of a few domains, which come back. A domain is
a rendering and a font family; it is recorded with the task, and a task's test images are drawn in it too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Literal

import numpy as np
from PIL import features
from torch import Tensor

from cl import ArrayPixels, Recipe, Samples, Seeds, Stream, Task
from cl.code import code_digest
from cl.data.augment import Crop
from cl.digests import digest_json
from cl.errors import BadInput
from streams.domains import recurring
from streams.glyph_classes import GlyphClass, load_classes
from streams.glyph_rendering import DOMAINS, FAMILIES, WILD, GlyphStyle, render
from streams.subjects import NOTE_RENDERED, synthetic_subjects

DRAWN = 16_384  # pictures kept in memory, 3 kB each


@dataclass(frozen=True)
class Drawing:
    """What determines one picture, beside the code and the fonts that draw it."""

    glyph: str
    face: str
    style: GlyphStyle


class GlyphPixels:
    """Pictures drawn on demand; each is a pure function of its id and its `Drawing`."""

    def __init__(self, drawings: Mapping[str, Drawing]) -> None:
        self._drawings = drawings
        self._draw = lru_cache(DRAWN)(self._fresh)

    def digest(self, sample: str) -> str:
        """Digest of everything that determines the pixels; drawing is put off until they are read."""
        return digest_json([sample, asdict(self._drawings[sample]), _renderer()])

    def read(self, samples: Sequence[str], crops: Sequence[Crop] | None = None) -> Tensor:
        return ArrayPixels(samples, np.stack([self._draw(sample) for sample in samples])).read(samples, crops)

    def _fresh(self, sample: str) -> np.ndarray:
        what = self._drawings[sample]
        generator = np.random.default_rng(Seeds("glyphs").integer("draw", sample))
        return render(what.glyph, what.face, what.style, generator)


def glyphs(tasks: int = 10, classes_per_task: int = 5, train: int = 40, test: int = 20, people: int = 40) -> Stream:
    """50 unseen glyph classes in 10 tasks of 5, tested in unseen fonts; rendered, with synthetic subjects."""
    _check_positive({"tasks": tasks, "classes_per_task": classes_per_task, "train": train, "test": test})
    chosen = _chosen(tasks * classes_per_task)
    groups = [chosen[start : start + classes_per_task] for start in range(0, len(chosen), classes_per_task)]
    plans = [_wild_task(f"task-{number:02d}", group, train, test) for number, group in enumerate(groups)]
    arguments = {"tasks": tasks, "classes_per_task": classes_per_task, "train": train, "test": test, "people": people}
    return _stream("glyphs", plans, people, arguments)


@dataclass(frozen=True)
class _TaskPlan:
    """A task before anything is drawn: what each picture shows, by sample id, for training and for testing."""

    name: str
    classes: tuple[str, ...]
    train: Mapping[str, Drawing]
    test: Mapping[str, Drawing]
    domain: str | None = None

    def drawn(self, pixels: GlyphPixels) -> Task:
        """The task, its pictures among those of `pixels`."""
        train, test = (
            Samples.of({sample: drawing.glyph for sample, drawing in shard.items()}, pixels)
            for shard in (self.train, self.test)
        )
        return Task(self.name, self.classes, train, test, self.domain)


def _stream(name: str, plans: Sequence[_TaskPlan], people: int, arguments: Mapping[str, int]) -> Stream:
    drawings = {
        sample: drawing for plan in plans for shard in (plan.train, plan.test) for sample, drawing in shard.items()
    }
    pixels = GlyphPixels(drawings)
    tasks = tuple(plan.drawn(pixels) for plan in plans)
    subjects = synthetic_subjects(drawings, people, name)
    return Stream(name, tasks, Recipe(name, arguments), subjects, notes=(NOTE_RENDERED,))


def _wild_task(name: str, group: Sequence[GlyphClass], train: int, test: int) -> _TaskPlan:
    """Classes in the widest style, tested in faces of a family that training does not show."""

    def shard(split: Literal["train", "test"], count: int) -> dict[str, Drawing]:
        faces = {glyph.name: glyph.split_faces()[split == "test"] for glyph in group}
        return {
            f"glyphs/{split}/{glyph}/{row:03d}": Drawing(glyph, own[row % len(own)], WILD)
            for glyph, own in faces.items()
            for row in range(count)
        }

    return _TaskPlan(name, tuple(glyph.name for glyph in group), shard("train", train), shard("test", test))


# Rendering and font family of each domain. Narrow renderings come before wide ones: a rendering within one already seen
# would be recorded as new, but not look it. Families of which most reserved classes have a face take turns.
_GLYPH_DOMAINS = {
    f"{style}, {family}": (style, family)
    for style, family in zip(
        ("outlined", "clean", "blurred", "inverted", "heavy", "coloured", "noisy", "textured", "tilted"),
        ("DejaVu Serif", "DejaVu Sans", "DejaVu Sans Mono") * 3,
        strict=True,
    )
}


def recurring_glyphs(
    tasks: int = 12, classes_per_task: int = 10, train: int = 24, test: int = 10, domains: int = 4, people: int = 40
) -> Stream:
    """120 unseen glyph classes in 12 tasks over 4 domains that come back with new classes; the domain is recorded."""
    return _in_domains("recurring-glyphs", tasks, classes_per_task, train, test, domains, people)


def long_glyphs(
    tasks: int = 40, classes_per_task: int = 6, train: int = 24, test: int = 10, domains: int = 9, people: int = 40
) -> Stream:
    """240 unseen glyph classes in 40 tasks over 9 domains, new ones ever more rarely: to see how a model grows."""
    return _in_domains("long-glyphs", tasks, classes_per_task, train, test, domains, people)


def _in_domains(
    name: str, tasks: int, classes_per_task: int, train: int, test: int, domains: int, people: int
) -> Stream:
    arguments = {
        "tasks": tasks,
        "classes_per_task": classes_per_task,
        "train": train,
        "test": test,
        "domains": domains,
        "people": people,
    }
    _check_positive(arguments)
    if domains > len(_GLYPH_DOMAINS):
        raise BadInput(f"{domains} domains asked for, but there are {len(_GLYPH_DOMAINS)}")
    order = recurring(tasks, list(_GLYPH_DOMAINS)[:domains])
    groups = _by_family([_GLYPH_DOMAINS[domain][1] for domain in order], classes_per_task)
    plans = [
        _domain_task(f"task-{number:02d}", name, group, domain, {"train": train, "test": test})
        for number, (group, domain) in enumerate(zip(groups, order, strict=True))
    ]
    return _stream(name, plans, people, arguments)


def _by_family(families: Sequence[str], each: int) -> list[list[GlyphClass]]:
    """For each task the next `each` reserved classes, in the order of their hashes, with a face of its family."""
    left = _chosen(len(load_classes("reserved")))
    groups = []
    for family in families:
        group = [glyph for glyph in left if family in glyph.families][:each]
        if len(group) < each:
            raise BadInput(f"too few reserved classes are left in {family}; ask for fewer tasks or classes")
        left = [glyph for glyph in left if glyph not in group]
        groups.append(group)
    return groups


def _domain_task(
    name: str, stream: str, group: Sequence[GlyphClass], domain: str, counts: Mapping[str, int]
) -> _TaskPlan:
    """Classes in one rendering and font family, tested in it too. counts: pictures a class, by split."""
    style, family = _GLYPH_DOMAINS[domain]
    faces = {glyph.name: [face for face in glyph.faces if face in FAMILIES[family]] for glyph in group}
    train, test = (
        {
            f"{stream}/{split}/{glyph}/{row:03d}": Drawing(glyph, own[row % 1000 % len(own)], DOMAINS[style])
            for glyph, own in faces.items()
            for row in range(count)
        }
        for split, count in counts.items()
    )
    return _TaskPlan(name, tuple(faces), train, test, domain)


def _check_positive(arguments: Mapping[str, int]) -> None:
    for name, value in arguments.items():
        if value < 1:
            raise BadInput(f"{name} must be at least 1, not {value}")


def _chosen(count: int) -> list[GlyphClass]:
    """The first `count` reserved classes by hash of their names."""
    reserved = load_classes("reserved")
    if count > len(reserved):
        raise BadInput(f"{count} classes asked for, but {len(reserved)} are reserved; ask for fewer tasks or classes")
    return sorted(reserved, key=lambda one: hashlib.sha256(one.name.encode()).digest())[:count]


@cache
def _renderer() -> list[str]:
    """Code and releases that decide how a drawing comes out."""
    freetype = features.version("freetype2") or "unknown"
    return [code_digest(render), version("pillow"), freetype, version("matplotlib")]
