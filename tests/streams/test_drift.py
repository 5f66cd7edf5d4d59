"""Drifting streams: names, slots, and what a deletion moves: nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cl.data.recipes import content_digest, resolve_stream
from cl.data.stream import Stream
from cl.errors import BadInput, UnknownName
from cl.testing import tiny_stream
from streams.corruptions import CODES, corrupted
from streams.drift import Drift, drifting
from streams.imagenet_corruptions import IMAGENET_C

BASE = tiny_stream(2, train=3, test=10)  # 4 classes, 40 test images
PICTURES = {sample for task in BASE.tasks for sample in task.test.ids}


def made(schedule: str = "standard", corruptions: str = "GN SW CO", **options: Any) -> Stream:
    return drifting(BASE, Drift(schedule, corruptions, **{"batch_size": 8, **options}))


def slots(stream: Stream) -> Mapping[str, str]:
    """Sample id -> batch id."""
    return {
        sample: name for segment in stream.segments for name, batch in segment.batches.items() for sample in batch.ids
    }


def pictures(stream: Stream, segment: int) -> list[list[str]]:
    """The pictures of each batch of a segment."""
    return [[sample.split("|")[0] for sample in batch.ids] for batch in stream.segments[segment].batches.values()]


def test_names() -> None:
    stream = made("rounds", rounds=4)
    (source,) = stream.tasks
    assert source.id == "source" and source.classes == BASE.classes
    assert set(source.test.ids) == PICTURES and len(source.train) == 12
    segment = stream.segments[10]
    assert (segment.id, segment.domain) == ("r03/SW/5", "SW/5")
    assert list(segment.batches) == [f"r03/SW/5/b{number:04d}" for number in range(5)]
    assert set(segment.samples.ids) == {f"{picture}|SW/5|r03" for picture in PICTURES}
    labels = dict(zip(source.test.ids, source.test.labels, strict=True))
    batch = segment.batches["r03/SW/5/b0002"]
    assert batch.labels == tuple(labels[sample.split("|")[0]] for sample in batch.ids)


def test_batches_are_slots_of_the_hash_order() -> None:
    stream = made(seed=3)
    expected = sorted(PICTURES, key=lambda picture: hashlib.sha256(f"3|r00/SW/5|{picture}".encode()).digest())
    assert [set(batch) for batch in pictures(stream, 1)] == [set(expected[at : at + 8]) for at in range(0, 40, 8)]


def test_pixels_are_the_pictures_under_their_condition() -> None:
    stream = made()
    batch = stream.segments[0].batches["r00/GN/5/b0001"]
    clean = dict(zip(stream.tasks[0].test.ids, stream.tasks[0].test.images(), strict=True))
    for sample, image in zip(batch.ids, batch.images(), strict=True):
        picture = sample.split("|")[0]
        expected = corrupted(clean[picture].permute(1, 2, 0).numpy(), "GN/5", picture)
        assert torch.equal(image, torch.from_numpy(expected).permute(2, 0, 1))


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_deletion_moves_no_other_sample(data: st.DataObject) -> None:
    """The protocol's T8: a hole, and nobody else in another segment, batch or slot."""
    schedule = data.draw(st.sampled_from(["standard", "rounds", "gradual", "mixed", "correlated"]))
    stream = made(schedule, **({"rounds": 2} if schedule == "rounds" else {}))
    before = slots(stream)
    gone = data.draw(st.sets(st.sampled_from(sorted(stream.ids)), max_size=60))
    rest = stream.without(gone)
    assert slots(rest) == {sample: batch for sample, batch in before.items() if sample not in gone}
    declared = {segment.id: segment.declared for segment in stream.segments}
    assert all(segment.declared == declared[segment.id] for segment in rest.segments)


def test_a_picture_is_a_subject_in_every_domain_and_round() -> None:
    stream = drifting(tiny_stream(1), Drift("rounds", "GN JP", rounds=3))
    people = tiny_stream(1).subjects
    assert all(who == people[sample.split("|")[0]] for sample, who in stream.subjects.items())
    ready = resolve_stream("drifting-digits", arguments={"corruptions": "GN,JP", "batches": 20})
    picture = ready.tasks[0].test.ids[7]
    mine = {sample for sample, who in ready.subjects.items() if who == picture}
    assert mine == {picture, *(f"{picture}|{code}/5|r0{visit}" for code in ("GN", "JP") for visit in (0, 1))}
    assert set(ready.subjects) == ready.ids


def test_rounds_alike_are_alike() -> None:
    """What the protocol's T10 needs: with order keys that leave the round out, all rounds bring the same."""
    same, other = (made("rounds", rounds=2, rounds_alike=alike, batches=2) for alike in (True, False))
    for domain in range(3):
        assert pictures(same, domain) == pictures(same, domain + 3) != pictures(other, domain + 3)
        first, again = (list(same.segments[at].batches.values()) for at in (domain, domain + 3))
        assert all(torch.equal(one.images(), two.images()) for one, two in zip(first, again, strict=True))


def test_disjoint_domains_share_no_picture() -> None:
    stream = made("gradual", disjoint=True)
    seen = {code: set[str]() for code in ("GN", "SW", "CO")}
    for segment in stream.segments:
        seen[segment.domain[:2]] |= {sample.split("|")[0] for sample in segment.samples.ids}
    assert sum(map(len, seen.values())) == len(set().union(*seen.values())) == 40
    alone = made("mixed", disjoint=True)
    assert sorted(name for batch in pictures(alone, 0) for name in batch) == sorted(PICTURES)


def test_official_order_is_that_of_the_names() -> None:
    batches = pictures(made(official_order=True), 2)
    assert [name for batch in batches for name in batch] == sorted(PICTURES)


def test_mixed_shuffles_all_domains() -> None:
    (segment,) = made("mixed").segments
    assert segment.id == "r00/mixed" and len(segment) == 120
    domains = [{sample.split("|")[1] for sample in batch.ids} for batch in segment.batches.values()]
    assert sum(len(found) == 3 for found in domains) > 8


def test_few_batches_take_different_pictures_in_each_segment() -> None:
    stream = made(batches=2)
    assert all(len(segment.batches) == 2 and len(segment) == 16 for segment in stream.segments)
    assert len({frozenset(name for batch in pictures(stream, at) for name in batch) for at in range(3)}) == 3
    assert made("mixed", batches=2).segments[0].id and len(made("mixed", batches=2).segments[0]) == 48


def test_correlated_batches_hold_few_classes() -> None:
    def classes(stream: Stream) -> float:
        batches = [batch for segment in stream.segments for batch in segment.batches.values()]
        return sum(len(batch.classes) for batch in batches) / len(batches)

    shuffled, loose, tight = made(), made("correlated", delta=100), made("correlated", delta=0.01)
    assert classes(tight) < 2.5 < 3 < classes(shuffled) and classes(tight) < classes(loose)
    for stream in (loose, tight):
        assert all({s.split("|")[0] for s in segment.samples.ids} == PICTURES for segment in stream.segments)
    assert content_digest(made("correlated")) == content_digest(made("correlated", delta=0.1))


def test_severity_0_is_the_clean_test_set() -> None:
    stream = made(severity=0)
    clean = dict(zip(stream.tasks[0].test.ids, stream.tasks[0].test.images(), strict=True))
    found = stream.segments[1].samples
    assert all(torch.equal(image, clean[s.split("|")[0]]) for s, image in zip(found.ids, found.images(), strict=True))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"schedule": "standrad"}, "did you mean standard"),
        ({"corruptions": "GN snwo"}, "did you mean snow"),
        ({"corruptions": "GN gaussian_noise"}, "GN is named twice"),
        ({"corruptions": ""}, "name a corruption"),
        ({"severity": 5.5}, "severity must be 0 to 5, not 5.5"),
        ({"severity": float("nan")}, "severity must be"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batches": -1}, "batches must be at least 1"),
        ({"rounds": 3}, "takes no rounds"),
        ({"schedule": "rounds", "rounds": 0}, "rounds must be at least 1"),
        ({"order": 3}, "choose orders10"),
        ({"schedule": "orders10", "order": 10}, "order must be 0 to 9"),
        ({"delta": 0.1}, "choose correlated"),
        ({"schedule": "correlated", "delta": 0.0}, "delta must be above 0"),
        ({"schedule": "gradual", "severity": 3}, "takes no severity"),
        ({"schedule": "ccc-mini"}, "no closed walk"),
        ({"corruptions": " ".join(CODES), "disjoint": True, "seed": 1}, "leave disjoint out"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options: dict[str, Any], told: str) -> None:
    base = tiny_stream(1, test=2) if "disjoint" in options else BASE
    with pytest.raises((BadInput, UnknownName), match=told) as error:
        drifting(base, Drift(**{"corruptions": "GN SW CO", **options}))
    assert "\n" not in str(error.value)


def test_a_stream_without_test_images_cannot_drift() -> None:
    base = tiny_stream(1)
    with pytest.raises(BadInput, match="no test images"):
        drifting(base.without(base.tasks[0].test.ids))


def test_severities_of_imagenet() -> None:
    pytest.importorskip("imagecorruptions")
    stream = drifting(BASE, Drift(corruptions="GN SN"), generator=IMAGENET_C)
    ours = drifting(BASE, Drift(corruptions="GN SN"))
    batch, milder = (one.segments[0].batches["r00/GN/5/b0000"] for one in (stream, ours))
    assert batch.ids == milder.ids and batch.digest != milder.digest
    clean = dict(zip(stream.tasks[0].test.ids, stream.tasks[0].test.images().float(), strict=True))
    changes = [
        sum((image - clean[s.split("|")[0]]).abs().mean() for s, image in zip(one.ids, one.images(), strict=True))
        for one in (batch, milder)
    ]
    assert changes[0] > 2 * changes[1]  # 0.38 against 0.10
    assert not any("CIFAR" in note for note in stream.notes)
    with pytest.raises(BadInput, match="whole ones only"):
        drifting(BASE, Drift(corruptions="GN", severity=2.5), generator=IMAGENET_C)


@pytest.mark.parametrize(("name", "classes", "train"), [("drifting-digits", 10, 4000), ("drifting-glyphs", 50, 2000)])
def test_the_ready_made_streams(name: str, classes: int, train: int) -> None:
    stream = resolve_stream(name)
    (source,) = stream.tasks
    assert len(source.classes) == classes and len(source.train) == train and len(source.test) == 1000
    assert [segment.id for segment in stream.segments] == [f"r0{visit}/{code}/5" for visit in (0, 1) for code in CODES]
    assert {len(batch) for segment in stream.segments for batch in segment.batches.values()} == {50}
    assert any("like CIFAR-10-C, not of it" in note for note in stream.notes)
    assert len(resolve_stream(name, arguments={"schedule": "ccc-mini", "rounds": "1"}).segments) == 300
