"""The cold oracle: a run in a process of its own, on an empty home, over the stream as if the samples had never been.

It gets names and arguments, never a path to the store that it is compared with.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cl.data.augment import Crop
from cl.data.policy import Policy
from cl.data.samples import Pixels, Samples
from cl.data.stream import Stream
from cl.digests import digest_bytes, digest_tensors
from cl.documents import Document
from cl.errors import DeletionError
from cl.home.records import Request, RunSource
from cl.numerics import fingerprint
from cl.running.journal import Journal
from cl.running.reopening import setup_of
from cl.running.session import Session, session_on

NOISE = 50  # images of noise whose scores are compared
MEND = "verify again, with one release of palimpsest"


@dataclass(frozen=True)
class Finding(Document):
    """What a run came to. components: name -> content digest; outputs: probe -> digest of its `rows` scores."""

    manifest: str
    components: Mapping[str, str]
    outputs: Mapping[str, str]
    rows: int
    seconds: float
    numerics: Mapping[str, Any]
    fingerprint: Mapping[str, str]


@dataclass(frozen=True)
class ColdRun(Document):
    """A run to be made on an empty home. policy: who reads what. without: samples that are not there. forgotten:
    samples that the model is asked about. replaced: samples that have noise for images."""

    request: Request
    source: RunSource
    policy: Policy
    without: tuple[str, ...]
    forgotten: tuple[str, ...]
    replaced: tuple[str, ...] = ()


def oracles(works: Sequence[ColdRun]) -> list[Finding]:
    """One finding for each, from a new process with an empty home; all side by side."""
    with ExitStack() as stack:
        running = [(stack.enter_context(_start()), work) for work in works]
        for process, work in running:
            assert process.stdin is not None
            process.stdin.write(work.to_json())
            process.stdin.close()
        return [_finish(process) for process, _ in running]


def cold_run(session: Session, without: Collection[str], forgotten: Collection[str]) -> ColdRun:
    """The run of `session` without the samples `without`, probed with the `forgotten` ones among them."""
    policy = session.whole.policy
    return ColdRun(session.request, session.setup.source, policy, tuple(sorted(without)), tuple(sorted(forgotten)))


def with_replaced(work: ColdRun, replaced: Collection[str]) -> ColdRun:
    """`work` with the samples `replaced` there after all, but with noise for images."""
    without = set(work.without) - set(replaced)
    return replace(work, without=tuple(sorted(without)), replaced=tuple(sorted(replaced)))


def observe(session: Session, journal: Journal, forgotten: Collection[str], seconds: float) -> Finding:
    """Manifest and outputs of a run: scores on its test sets, on the forgotten samples and on noise."""
    probes = probes_of(session.stream, session.whole, forgotten) if journal.model.tasks else {}
    strategy = session.strategy()
    outputs = {name: digest_tensors(strategy.scores(journal.model, samples).open()) for name, samples in probes.items()}
    rows = sum(len(samples) for samples in probes.values())
    return Finding(
        journal.manifest, journal.components, outputs, rows, seconds, session.setup.numerics.as_json(), fingerprint()
    )


def probes_of(stream: Stream, whole: Stream, forgotten: Collection[str]) -> dict[str, Samples]:
    """What the model is asked about, in memory only."""
    probes = {f"test of {task.id}": replace(task.test, transient=True) for task in stream.tasks if len(task.test)}
    probes |= {f"forgotten {n}": replace(one, transient=True) for n, one in enumerate(shards_with(whole, forgotten))}
    shape = stream.tasks[0].train.images(slice(0, 1)).shape[2:]
    noise = np.random.default_rng(0).integers(0, 256, (NOISE, *shape), dtype=np.uint8)
    return {**probes, "noise": Samples.visiting(noise)}


def shards_with(stream: Stream, ids: Collection[str]) -> list[Samples]:
    """The shards of `stream`, each cut down to the samples `ids`; empty ones left out."""
    shards = [shard.plain.keep(ids) for shard in stream.shards]
    return [shard for shard in shards if len(shard)]


class _Noise:
    """Pixels with noise in place of some samples' images."""

    def __init__(self, pixels: Pixels, replaced: Collection[str]) -> None:
        self._pixels, self._replaced = pixels, set(replaced)

    def digest(self, sample: str) -> str:
        own = self._pixels.digest(sample)
        return digest_bytes(f"noise|{own}".encode()) if sample in self._replaced else own

    def read(self, samples: Sequence[str], crops: Sequence[Crop] | None = None) -> Tensor:
        images = self._pixels.read(samples, crops).clone()
        for row, sample in enumerate(samples):
            if sample in self._replaced:
                seed = int(digest_bytes(sample.encode("utf-8", "surrogatepass"))[:8], 16)
                draws = np.random.default_rng(seed).integers(0, 256, images[row].shape, dtype=np.uint8)
                images[row] = images.new_tensor(draws)
        return images


def with_noise(stream: Stream, ids: Collection[str]) -> Stream:
    """The stream with noise for the images of `ids`; labels and names stay."""
    tasks = [
        replace(
            task,
            train=replace(task.train, pixels=_Noise(task.train.pixels, ids)),
            test=replace(task.test, pixels=_Noise(task.test.pixels, ids)),
        )
        for task in stream.tasks
    ]
    segments = [
        replace(
            segment,
            batches={name: replace(batch, pixels=_Noise(batch.pixels, ids)) for name, batch in segment.batches.items()},
        )
        for segment in stream.segments
    ]
    return replace(stream, tasks=tuple(tasks), segments=tuple(segments))


def run_cold(work: ColdRun, home: Path) -> Finding:
    """The run that `work` describes, on the empty `home`."""
    if any(home.iterdir()):
        raise DeletionError(f"the oracle's home {home} is not empty")
    setup = setup_of(home, work.request, work.source, work.policy)
    stream = setup.whole.without(work.without)
    session = session_on(home, setup, with_noise(stream, work.replaced) if work.replaced else stream)
    journal = session.drive()
    return observe(session, journal, work.forgotten, session.elapsed())


def _start() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("PALIMPSEST_HOME", None)
    command = [sys.executable, "-m", "cl.deletion.oracle"]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )


def _finish(process: subprocess.Popen[bytes]) -> Finding:
    assert process.stdout is not None and process.stderr is not None
    output, errors = process.stdout.read(), process.stderr.read()
    if process.wait() != 0:
        last = errors.decode(errors="replace").strip().splitlines() or ["it ended without a word"]
        raise DeletionError(f"the oracle failed: {last[-1]}")
    return Finding.from_json(output, "what the oracle found", MEND)


def answer() -> None:
    """Read a cold run from standard input, make it in an empty folder, print the finding."""
    work = ColdRun.from_json(sys.stdin.buffer.read(), "the oracle's task", MEND)
    with tempfile.TemporaryDirectory(prefix="palimpsest-oracle-") as folder:
        finding = run_cold(work, Path(folder))
    sys.stdout.buffer.write(finding.to_json())


if __name__ == "__main__":
    answer()
