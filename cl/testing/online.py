"""What every strategy promises where the stream goes on at test time, as a pytest class to subclass."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from cl.data import veil
from cl.data.samples import ArrayPixels, Samples
from cl.data.stream import Segment, Stream
from cl.home.store import Store
from cl.learning.strategy import Model, Strategy
from cl.running.online import adaptations
from cl.testing.strategies import StrategyConformance
from cl.testing.tiny import CONDITIONS, tiny_drift


class OnlineConformance(StrategyConformance):
    """What every strategy promises where the stream goes on at test time. Subclass it as `StrategyConformance`."""

    stream: ClassVar[Stream] = tiny_drift(2, 2, 2, CONDITIONS[:2])

    def test_nothing_is_learnt_from_labels_or_names(
        self, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Other labels, ids, segments and domains behind the same opaque keys: every byte that was built stays."""
        opaque = veil.opaque
        monkeypatch.setattr(veil, "opaque", lambda name: opaque(name.removeprefix(RENAMED)))
        self._run(tmp_path, replace(self.stream, segments=tuple(map(renamed, self.stream.segments)), subjects={}))
        assert self._adapted(tmp_path) == self._adapted(straight)

    def test_no_score_depends_on_what_arrives_later(self, straight: Path, tmp_path: Path) -> None:
        first, second, *_ = self.stream.segments
        self._run(tmp_path, replace(self.stream, segments=(first, *self.stream.segments[2:])))
        assert self._components(tmp_path, first) == self._components(straight, first)
        other = replace(second, batches=dict(list(second.batches.items())[::-1]))
        self._run(tmp_path, replace(self.stream, segments=(first, other, *self.stream.segments[2:])))
        assert self._components(tmp_path, first) == self._components(straight, first)

    def test_forgetting_a_streamed_sample_equals_a_run_that_never_saw_it(self, straight: Path, tmp_path: Path) -> None:
        middle = self.stream.segments[1]
        batches = list(middle.batches.values())
        for number, gone in enumerate(({batches[0].ids[0]}, set(batches[1].ids), set(middle.samples.ids))):
            warm, cold = Path(shutil.copytree(straight, tmp_path / f"warm-{number}")), tmp_path / f"cold-{number}"
            rest = self.stream.without(gone)
            assert self._run(warm, rest)["components"] == self._run(cold, rest)["components"]
            assert self._uses(warm) == self._uses(cold)
            assert self._components(warm, self.stream.segments[0]) == self._components(
                straight, self.stream.segments[0]
            )

    def test_every_segment_is_scored_and_told_of(self, tmp_path: Path) -> None:
        online = self._run(tmp_path)["online"]
        assert list(online["online_error"]) == [segment.id for segment in self.stream.segments]
        assert all(0 <= error <= 1 for error in online["online_error"].values())
        batches = sum(len(segment.batches) for segment in self.stream.segments)
        assert {len(values) for values in online["test_time"]["batches"].values()} == {batches}

    def _finished(self, home: Path) -> tuple[Strategy, Model]:
        strategy, model = self._learnt(home)
        steps = adaptations(strategy, strategy._builder, model, self.stream.segments, "test time, again")
        return strategy, [model, *(one.model for one in steps)][-1]

    def _components(self, home: Path, segment: Segment) -> set[tuple[str, str]]:
        """(name, key) of what was built for a segment."""
        return {(name, key) for name, key in self._uses(home) if name.startswith(segment.id)}

    def _adapted(self, home: Path) -> set[str]:
        """Digests of all parts of what strategies built, judged predictions left out."""
        records = [Store(home).record(key) for _, key in self._uses(home)]
        mine = [record for record in records if not record.build.endswith("online_predictions")]
        return {part["digest"] for record in mine for part in record.parts.values()}


RENAMED = "renamed/"


def renamed(segment: Segment) -> Segment:
    """The segment under other ids, another domain and other labels; the images stay."""
    batches = {}
    for name, batch in segment.batches.items():
        ids = [f"{RENAMED}{sample}" for sample in batch.ids]
        labels = [*batch.labels[1:], batch.labels[0]]
        pixels = ArrayPixels(ids, batch.images().permute(0, 2, 3, 1).numpy())
        batches[f"{RENAMED}{name}"] = Samples.of(dict(zip(ids, labels, strict=True)), pixels)
    return Segment(f"{RENAMED}{segment.id}", "another domain", batches)
