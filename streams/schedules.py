"""Schedules of drifting streams: which conditions come in which order, as pure functions of their arguments.

A *visit* is one stay in a domain. Its number says how often the domain was visited before, so that the ids of segments,
`r03/GN/5`, are the same whatever else the stream holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, pairwise

from cl.errors import BadInput
from cl.seeds import Seeds
from streams.corruptions import CODES, spelled

TOP = 5  # the severity at which published streams stay

# The ten orders of CoTTA (CVPR 2022), the same for CIFAR and ImageNet.
ORDERS = tuple(
    tuple(order.split())
    for order in (
        "BR PX GN MB ZB GB IN JP DB EL SN FR SW FG CO",
        "JP SN ZB FR CO FG DB EL GN BR GB IN PX SW MB",
        "CO DB GN SN SW FR GB ZB EL JP PX BR IN MB FG",
        "SN FG GB PX SW EL BR IN DB FR CO GN MB JP ZB",
        "PX GB ZB SW FG IN BR MB FR JP GN SN CO DB EL",
        "MB SW FG SN DB CO ZB BR FR EL GB GN PX JP IN",
        "FR IN JP CO ZB GB PX SW DB MB BR EL SN FG GN",
        "GB ZB IN FG SW JP GN FR SN BR CO MB PX DB EL",
        "DB MB ZB SN GN GB JP FG CO PX FR SW BR EL IN",
        "CO GN DB ZB FR GB JP FG PX EL SN IN SW MB BR",
    )
)
CCC_CODES = ("GN", "MB", "FR", "CO", "PX", "JP")  # six for ccc-mini: noise, blur, weather, digital; never brightness
PAIRS, STEP = 15, 0.25
SCHEDULES = ("standard", "orders10", "gradual", "rounds", "mixed", "correlated", "ccc-mini")


@dataclass(frozen=True)
class Visit:
    """domain: what the evaluator calls it. number: visits of it before. conditions: what its pictures are seen through;
    where there are several, each picture is there once for each."""

    domain: str
    number: int
    conditions: tuple[str, ...]

    @property
    def segment(self) -> str:
        """The id of its segment."""
        return f"r{self.number:02d}/{self.domain}"


def visits(domains: Sequence[str]) -> list[Visit]:
    """Visits of these conditions in this order."""
    seen: Counter[str] = Counter()
    made = []
    for domain in domains:
        made.append(Visit(domain, seen[domain], (domain,)))
        seen[domain] += 1
    return made


def standard(codes: Sequence[str] = CODES, severity: float = TOP) -> list[Visit]:
    """Each corruption once, at one severity."""
    return visits([spelled(code, severity) for code in codes])


def orders10(order: int, codes: Sequence[str] = CODES, severity: float = TOP) -> list[Visit]:
    """`standard` in one of the ten published orders, 0 to 9. Raises BadInput for another, or an extra corruption."""
    if not 0 <= order < len(ORDERS):
        raise BadInput(f"order must be 0 to {len(ORDERS) - 1}, not {order}")
    extra = [code for code in codes if code not in CODES]
    if extra:
        raise BadInput(f"the ten orders are of the fifteen usual corruptions; leave {extra[0]} out")
    return standard([code for code in ORDERS[order] if code in codes], severity)


def gradual(codes: Sequence[str] = CODES) -> list[Visit]:
    """Severities 5 4 3 2 1 of the first corruption, then 1 2 3 4 5 4 3 2 1 of each (CoTTA)."""
    falling = list(range(TOP, 0, -1))
    swelling = [*reversed(falling), *falling[1:]]
    return visits(
        [spelled(code, severity) for place, code in enumerate(codes) for severity in (swelling if place else falling)]
    )


def rounds(times: int, codes: Sequence[str] = CODES, severity: float = TOP) -> list[Visit]:
    """`standard` again and again."""
    return visits([spelled(code, severity) for code in codes] * times)


def mixed(codes: Sequence[str] = CODES, severity: float = TOP) -> list[Visit]:
    """All conditions shuffled into one segment."""
    return [Visit("mixed", 0, tuple(spelled(code, severity) for code in codes))]


def ccc_mini(seed: int, periods: int = 2, codes: Sequence[str] = CCC_CODES, pairs: int = PAIRS) -> list[Visit]:
    """A small Continually Changing Corruptions (Press et al., NeurIPS 2023): along a walk over the corruptions, each
    fades from 5 to 0.25 while the next one grows from 0.25 to 5, in 20 steps; after `pairs` the walk starts again.

    Raises BadInput where there is no closed walk of so many different ordered pairs.
    """
    steps = [STEP * (1 + step) for step in range(round(TOP / STEP))]
    path = _closed_walk(seed, codes, pairs)
    period = [
        f"{spelled(first, TOP + STEP - grown)}+{spelled(second, grown)}"
        for first, second in pairwise(path)
        for grown in steps
    ]
    return visits(period * periods)


def _closed_walk(seed: int, codes: Sequence[str], pairs: int) -> list[str]:
    """`pairs` steps from a corruption back to itself, no ordered pair twice: the first such of seeded random walks."""
    most = len(codes) * (len(codes) - 1)
    if len(codes) < 2 or not 2 <= pairs <= most or pairs == most - 1:
        raise BadInput(
            f"{len(codes)} corruptions have no closed walk of {pairs} pairs; take others (6 and 15 are usual)"
        )
    for attempt in count():
        found = _walk(Seeds(f"ccc-mini|{seed}"), attempt, codes, pairs)
        if found[-1] == found[0] and len(found) == pairs + 1:
            return found
    raise AssertionError("unreachable")


def _walk(seeds: Seeds, attempt: int, codes: Sequence[str], pairs: int) -> list[str]:
    """A random walk that ends early where every pair from its place has been used."""
    path, used = [codes[0]], set[tuple[str, str]]()
    for step in range(pairs):
        left = [code for code in codes if code != path[-1] and (path[-1], code) not in used]
        if not left:
            break
        chosen = left[seeds.integer("next", attempt, step) % len(left)]
        used.add((path[-1], chosen))
        path.append(chosen)
    return path
