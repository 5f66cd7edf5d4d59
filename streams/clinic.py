"""Real digits with access control: `clinic-digits`, three wards that write down different digits.

The images are the 5,000 MNIST scans of `split-mnist-5k` in its five tasks. Which person wrote one down, and in which
ward, is synthetic: drawn by stable hash of the sample's id, so that nothing depends on which other samples there are.
Of each pair of digits ward-a mostly has the first, ward-b mostly the second, ward-c some of both. A person belongs to
one ward; a few people of ward-a have been moved to ward-b, and their images carry the labels of both.
"""

from __future__ import annotations

import hashlib

from cl import Policy, Recipe, Stream
from cl.errors import BadInput
from streams.digits import mnist_pairs

WARDS = ("ward-a", "ward-b", "ward-c")
# Share of each ward in the images of a pair's first and second digit.
MIX = {0: (0.8, 0.1, 0.1), 1: (0.1, 0.8, 0.1)}
MOVED = 5  # every fifth person of ward-a was moved to ward-b
USERS = {"alice": ("ward-a",), "bob": ("ward-a", "ward-b"), "carol": WARDS, "dave": ()}
NOTE = "subjects and wards are synthetic: assigned to the real images by stable hash, the share of each ward by digit"
CAPACITY = 400  # images that a task may hold of one set of labels


def clinic_digits(people: int = 20) -> Stream:
    """5,000 real MNIST scans, 5 tasks of 2 digits, in three wards with access labels; people are synthetic."""
    if people < 1:
        raise BadInput(f"people must be at least 1 a ward, not {people}")
    tasks = mnist_pairs(CAPACITY)
    subjects, access = {}, {}
    for task in tasks:
        for shard in (task.train, task.test):
            for sample, label in zip(shard.ids, shard.labels, strict=True):
                ward = _ward(sample, task.classes.index(label))
                person = int(_unit(f"person|{sample}") * people)
                subjects[sample] = f"{WARDS[ward]}-person-{person:03d}"
                access[sample] = _labels(ward, person)
    recipe = Recipe("clinic-digits", {"people": people})
    return Stream("clinic-digits", tasks, recipe, subjects, access, notes=(NOTE,), policy=Policy("any", USERS))


def _ward(sample: str, digit: int) -> int:
    """The ward of an image of a pair's first or second digit."""
    point, shares = _unit(f"ward|{sample}"), MIX[digit]
    return 0 if point < shares[0] else 1 if point < shares[0] + shares[1] else 2


def _labels(ward: int, person: int) -> tuple[str, ...]:
    """The labels of a person's images."""
    moved = ward == 0 and person % MOVED == MOVED - 1
    return WARDS[:2] if moved else (WARDS[ward],)


def _unit(text: str) -> float:
    """A number in [0, 1), a pure function of `text`."""
    return int.from_bytes(hashlib.sha256(f"clinic|{text}".encode()).digest()[:8], "big") / 2**64
