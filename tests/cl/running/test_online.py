"""Runs that go on at test time: deletion by replay, pieces of segments, resets, and strategies that peek."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import cl
from cl.audit.verification import known_case, residue_of
from cl.components.builder import builds
from cl.data.samples import Samples
from cl.data.veil import Veiled
from cl.deletion.dossier import Order, dossier_of
from cl.deletion.execution import execute
from cl.deletion.forget_set import Selector
from cl.deletion.plan import plan
from cl.deletion.taint import closure
from cl.home.runs import Runs
from cl.home.store import Store, Tensors
from cl.learning.strategy import Adaptation, Model
from cl.models.backbone import Backbone
from cl.running.reopening import open_run, setup_of
from cl.running.run import run
from cl.running.session import session_on
from cl.testing import CONDITIONS, OnlineConformance, tiny_backbone, tiny_drift, tiny_stream
from cl.testing.online import renamed
from strategies.source import Source, source_of, source_scores
from streams.drift import Drift, drifting
from tests.tiny import BACKBONE

STREAM = tiny_drift(2, 2, 2, CONDITIONS[:2])
FAST = {"source_epochs": 1, "source_batch_size": 8}
VIDA = {**FAST, "high_rank": 4, "passes": 2}


def start(home: Path, strategy: str = "tent", **settings: Any) -> Any:
    return run(STREAM, strategy, backbone=BACKBONE, settings={**FAST, **settings}, home=home, device="cpu")


def test_forgetting_a_streamed_image_replays_from_the_last_clean_state(tmp_path: Path) -> None:  # V12, T9
    result = start(tmp_path / "home")
    home, name = tmp_path / "home", result.figures["run"]
    third = STREAM.segments[2]
    sample = third.samples.ids[0]
    found = plan(open_run(home, name), [Selector("sample", sample)])
    rebuilt = {step.name for step in found.steps if step.action == "rebuild"}
    assert {f"{one.id}/online" for one in STREAM.segments[2:]} <= rebuilt
    assert not any(step.startswith(one.id) for step in found.tainted for one in STREAM.segments[:2])
    assert found.raw_data_needed == tuple(one.id for one in STREAM.segments[2:])
    outcome = execute(home, name, [Selector("sample", sample)])
    runs = Runs(Store(home))
    setup = setup_of(tmp_path / "cold", runs.request(name), runs.source(name))
    session = session_on(tmp_path / "cold", setup, setup.whole.without({sample}))
    assert dict(outcome.components_after) == session.drive().components
    assert outcome.rebuilt == found.build
    assert outcome.components_after["online/state"] != result.figures["components"]["online/state"]
    again = execute(home, name, [Selector("sample", sample)])
    assert again.state == "noop" and again.manifest_after == outcome.manifest_after


def test_what_stale_runs_keep_of_other_segments_is_no_residue(tmp_path: Path) -> None:
    """`source` tells the same of every batch, so purged evidence has the digest of what its other segments keep."""
    other = start(tmp_path, "source").figures["run"]
    name, sample = start(tmp_path).figures["run"], STREAM.segments[2].samples.ids[0]
    session = open_run(tmp_path, name)
    found = plan(session, [Selector("sample", sample)])
    tainted = closure(session.store, found.forget.traces).components
    dossier = dossier_of(session.store, found, Order(name, (Selector("sample", sample),), "home", "exact", ""))
    case = known_case(dossier)
    execute(tmp_path, name, [Selector("sample", sample)])
    assert Runs(Store(tmp_path)).stale(other) and residue_of(tmp_path, open_run(tmp_path, name), case) == []
    left = next(record for record in tainted.values() if record.build.endswith("source_scores"))
    Store(tmp_path).folder.joinpath("left.json").write_text(f"{left.key} {left.parts['evidence']['digest']}")
    (hit,) = residue_of(tmp_path, open_run(tmp_path, name), case)
    assert (hit.path, hit.kind, hit.count) == ("store/left.json", "digest", 1), "the key alone tells"


def test_a_subject_and_a_class_reach_what_was_streamed(tmp_path: Path) -> None:
    name = start(tmp_path).figures["run"]
    session = open_run(tmp_path, name)
    subject = STREAM.subjects[STREAM.segments[0].samples.ids[0]]
    for selector in (Selector("subject", subject), Selector("class", "t0/c0")):
        forget = plan(session, [selector]).forget
        streamed = {sample for one in STREAM.segments for sample in one.samples.ids}
        assert streamed & set(forget.samples) and forget.test >= len(streamed & set(forget.samples))
    emptied = plan(session, [Selector("sample", one) for one in STREAM.segments[1].samples.ids]).forget
    assert emptied.tasks_emptied == (STREAM.segments[1].id,)


def test_pieces_store_more_states_of_the_same_bytes_and_shorten_the_replay(tmp_path: Path) -> None:  # V11
    whole, pieces = start(tmp_path / "whole"), start(tmp_path / "pieces", keep_every=1)
    assert whole.figures["online"]["online_error"] == pieces.figures["online"]["online_error"]
    assert whole.figures["components"]["online/state"] == pieces.figures["components"]["online/state"]
    sample = list(STREAM.segments[0].batches.values())[1].ids[0]
    steps = [
        {s.name for s in plan(open_run(tmp_path / home, r.figures["run"]), [Selector("sample", sample)]).steps}
        for home, r in (("whole", whole), ("pieces", pieces))
    ]
    assert "r00/noise/5/online" in steps[0]
    assert "r00/noise/5/0000/online" not in steps[1] and "r00/noise/5/0001/online" in steps[1]


def test_a_reset_at_each_segment_bounds_what_a_deletion_touches(tmp_path: Path) -> None:  # T10
    name = start(tmp_path, reset="segment").figures["run"]
    sample = STREAM.segments[1].samples.ids[0]
    steps = plan(open_run(tmp_path, name), [Selector("sample", sample)]).tainted
    assert "r00/dark/5/online" in steps and not any(step.startswith("r01/noise") for step in steps)


def test_rounds_alike_with_a_reset_each_are_equal(tmp_path: Path) -> None:  # T10
    alike = drifting(
        tiny_stream(1, test=8), Drift("rounds", "GN CO", rounds=3, batch_size=4, batches=2, rounds_alike=True)
    )

    def rounds(name: str, **settings: Any) -> list[list[float]]:
        given: dict[str, Any] = {"backbone": tiny_backbone(), "home": tmp_path / name, "device": "cpu"}
        met = run(alike, "tent", settings={**FAST, "lr": 0.1, **settings}, **given).figures["online"]["test_time"]
        found = [one["nll"] for one in met["segments"]]
        return [found[start : start + 2] for start in range(0, len(found), 2)]

    # Within a batch the images lie in the order of their keys, which hold the round: the last bits may differ.
    first, *others = rounds("reset", reset="every", reset_every=4)
    assert others == [pytest.approx(first, abs=1e-6)] * 2
    kept, later, _ = rounds("kept")
    assert kept == first and later != pytest.approx(first, abs=1e-4), "without the reset the rounds must differ"


def test_a_segment_may_lack_a_class(tmp_path: Path) -> None:
    whole = STREAM.segments[1]
    gone = {s for s, label in zip(whole.samples.ids, whole.samples.labels, strict=True) if label == "t0/c0"}
    result = run(STREAM.without(gone), "vida", backbone=tiny_backbone(), home=tmp_path, device="cpu", settings=VIDA)
    online = result.figures["online"]
    assert online["test_time"]["segments"][1]["images"] == len(whole) - len(gone) == 2
    assert all(0 <= error <= 1 for error in online["online_error"].values()) and online["updates"] == 8


def test_the_suite_gives_other_labels_where_it_looks_for_leaks() -> None:  # T7, V15
    for one in STREAM.segments:
        for batch, other in zip(one.batches.values(), renamed(one).batches.values(), strict=True):
            assert set(batch.labels) == {"t0/c0", "t0/c1"} and batch.labels != other.labels


def test_the_model_of_a_finished_run_is_the_adapted_one(tmp_path: Path) -> None:
    result = start(tmp_path)
    model = cl.open(result.figures["run"], tmp_path).model
    assert model["online"]["state"].digest == result.figures["components"]["online/state"]


def test_methods_without_adaptation_meet_the_stream_as_they_are(tmp_path: Path) -> None:
    figures = run(STREAM, "simplecil", backbone=tiny_backbone(), home=tmp_path, device="cpu").figures
    assert figures["online"]["updates"] == 0
    assert figures["online"]["source_error_before"] == figures["online"]["source_error_after"]


@builds(prediction="prediction", evidence="evidence")
def peeked(batches: dict[str, Samples], source: dict[str, Tensors], *, backbone: Backbone, hint: int) -> dict[str, Any]:
    found = source_scores(batches, source, backbone=backbone)
    return {**found, "prediction": {"scores": found["prediction"]["scores"] + hint}}


class Peeking(Source):
    """Reads the names behind the veil, and lets them tell."""

    def adapt(self, model: Model, segment: Veiled) -> Adaptation:
        hint = sum(len(name) for name in segment.samples.origins)
        found = self.component("online", peeked, segment.batches, source_of(model), hint=hint)
        return Adaptation(found["prediction"], {}, found["evidence"])


class _PeekingSuite(OnlineConformance):
    __test__ = False
    strategy = Peeking
    settings = FAST


def test_a_strategy_that_peeks_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # T14
    _PeekingSuite._run(tmp_path / "straight")
    with pytest.raises(AssertionError):
        _PeekingSuite().test_nothing_is_learnt_from_labels_or_names(
            tmp_path / "straight", tmp_path / "renamed", monkeypatch
        )


def test_nothing_of_a_segment_is_to_be_seen_without_reaching_behind_the_veil(tmp_path: Path) -> None:  # T14
    class Greedy(Source):
        def adapt(self, model: Model, segment: Veiled) -> Adaptation:
            assert set(segment.samples.labels) == {""}
            return super().adapt(model, segment.domain)  # type: ignore[attr-defined]

    with pytest.raises(AttributeError):
        run(STREAM, Greedy, backbone=tiny_backbone(), settings=FAST, home=tmp_path, device="cpu")
