"""What verification looks at, one frozen dataclass a check, and the grade that follows.

V1  two oracles are equal                               (else nothing could be compared)
V2  names and bytes of the run, and those of its live manifest, are the oracle's
V3  so are its outputs on test sets, forgotten samples and noise
V4  the run before the deletion was another one         (else nothing was tested)
V5  with other content in place of the forgotten samples, nothing outside the tainted closure changes
V6  nothing is left of the samples in the home
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cl.documents import plain

Grade = Literal["E0", "E1", "E2", "A", "X"]


@dataclass(frozen=True)
class OraclesAgree:
    """V1. components: how many were compared. seconds: that the first oracle took."""

    passed: bool
    components: int
    seconds: float


@dataclass(frozen=True)
class BytesAgree:
    """V2. served: whether the live manifest is that of what was compared. first: a few names whose bytes differ."""

    passed: bool
    served: bool
    components: int
    names_differ: int
    bytes_differ: int
    first: tuple[str, ...]


@dataclass(frozen=True)
class OutputsAgree:
    """V3. probes: sets of images. rows: images."""

    passed: bool
    probes: int
    rows: int


@dataclass(frozen=True)
class RunDiffered:
    """V4. known: whether the manifest before is. trained_on: forgotten training samples."""

    passed: bool
    known: bool
    trained_on: int


@dataclass(frozen=True)
class OthersUnmoved:
    """V5. outside: components outside the closure, `moved` of them changed. first: a few of these."""

    passed: bool
    outside: int
    moved: int
    first: tuple[str, ...]


@dataclass(frozen=True)
class NothingLeft:
    """V6. hits: traces; excepted: those in files of runs that were left alone. first: a few others. searched,
    not_searched: for what, in words that name no sample."""

    passed: bool
    hits: int
    excepted: int
    first: tuple[str, ...]
    searched: tuple[str, ...]
    not_searched: tuple[str, ...]


@dataclass(frozen=True)
class CopyClean:
    """V6 of a baseline. components: those made from the samples that its copy serves."""

    passed: bool
    components: int


@dataclass(frozen=True)
class SameEnvironment:
    """components: of the run, `elsewhere` of them built on another machine. fingerprint: of the oracle's machine."""

    passed: bool
    components: int
    elsewhere: int
    fingerprint: Mapping[str, str]


@dataclass(frozen=True)
class Checks:
    """All of them; v5 None where it was not asked for."""

    v1: OraclesAgree
    v2: BytesAgree
    v3: OutputsAgree
    v4: RunDiffered
    v5: OthersUnmoved | None
    v6: NothingLeft | CopyClean
    environment: SameEnvironment

    @property
    def grade(self) -> Grade:
        """E0 if everything holds. Another machine than the run's never gives E0. What still has a trace of the samples,
        or cannot be compared at all, is not deleted: X. Anything else is no better than approximate: A."""
        if not (self.v1.passed and self.v4.passed and self.v6.passed and (self.v5 is None or self.v5.passed)):
            return "X"
        if self.v2.passed and self.v3.passed:
            return "E0" if self.environment.passed else "E1"
        other = self.v2.names_differ > 0 or not self.v2.served
        return "A" if self.environment.passed or other else "E1"

    @property
    def passed(self) -> dict[str, bool]:
        """Whether each of them held, by name."""
        return {name: check["passed"] for name, check in self.as_json().items()}

    def as_json(self, examples: bool = True) -> dict[str, dict[str, Any]]:
        """By name. examples: with names of a few things that differ, which no record may hold."""
        numbered = {name.upper(): plain(getattr(self, name)) for name in ("v1", "v2", "v3", "v4", "v5", "v6")}
        environment = plain(self.environment)
        fingerprint = environment.pop("fingerprint")
        every = {**numbered, "environment": {**environment, **fingerprint}}
        return {
            name: {key: value for key, value in check.items() if examples or key != "first"}
            for name, check in every.items()
            if check is not None
        }
