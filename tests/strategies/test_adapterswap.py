"""AdapterSwap: shards, training, composition, what a user can and cannot see, and deletion at shard cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cl
from cl.components.builder import builds
from cl.data.policy import Policy
from cl.data.samples import ArrayPixels, Samples, concat
from cl.data.stream import Stream
from cl.deletion.execution import execute
from cl.deletion.forget_set import Selector
from cl.deletion.oracle import with_noise
from cl.deletion.plan import plan
from cl.errors import BadInput
from cl.home.results import Result
from cl.home.store import Record, Store, Tensors
from cl.running.grants import Grants
from cl.running.reopening import open_run
from cl.running.run import run
from cl.testing import tiny_stream
from cl.testing.strategies import observed
from strategies.adapterswap import AdapterSwap
from strategies.adapterswap.shards import shard_id, shards
from tests.homes import manifest
from tests.palimpsest import palimpsest
from tests.tiny import BACKBONE
from tests.visitors import visitor

FAST = {"epochs": 2, "batch_size": 8, "rank": 2, "shard_limit": 8}


def made(home: Path, stream: Stream | None = None, user: str | None = None, **settings: Any) -> Result:
    """A run on the tiny stream, by names, so that it can be replayed."""
    how: Any = {"backbone": BACKBONE, "settings": {**FAST, **settings}, "home": home, "user": user}
    return run(stream or tiny_stream(), AdapterSwap, **how)


def hidden_from(user: str, stream: Stream) -> set[str]:
    return {sample for sample in stream.ids if not stream.policy.reads(user, stream.access[sample])}


def answers(home: Path, run_id: str, user: str, images: Samples) -> Tensors:
    """What `predict --as` shows, before it is turned into text."""
    found = cl.open(run_id, home, user=user)
    scores = found.strategy.scores(found.model, images).open()["scores"] if found.model.classes else torch.empty(0)
    return {"scores": scores, "classes": torch.tensor([hash(name) for name in found.model.classes])}


def visitors(stream: Stream) -> Samples:
    pixels = stream.tasks[0].test.images().permute(0, 2, 3, 1).numpy()
    return Samples.visiting(pixels)


def same(first: Tensors, second: Tensors) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


pytestmark = pytest.mark.usefixtures("tiny_by_default")


# Shards.


@given(st.sets(st.integers(0, 47), max_size=20))
def test_a_missing_sample_moves_no_other(gone: set[int]) -> None:
    task = replace(tiny_stream().tasks[0], capacity=24)
    ids = set(task.train.ids)
    before = {sample: shard_id(task, sample, 8) for sample in ids}
    kept = ids - {sorted(ids)[row] for row in gone if row < len(ids)}
    rest = replace(task, train=task.train.keep(kept))
    found = shards(rest, 8, 0.3)
    placed = {sample: shard.id for shard in found for part in (shard.train, shard.heldout) for sample in part.ids}
    assert placed == {sample: before[sample] for sample in kept}
    whole = {shard.id: shard for shard in shards(task, 8, 0.3)}
    for shard in found:
        both = set(shard.train.ids) & set(shard.heldout.ids)
        if not both and not set(whole[shard.id].train.ids) & set(whole[shard.id].heldout.ids):
            assert set(shard.heldout.ids) == set(whole[shard.id].heldout.ids) & kept


def test_a_person_is_in_one_shard_of_a_task_and_buckets_follow_the_declared_capacity() -> None:
    stream = tiny_stream(train=40)
    task = replace(stream.tasks[0], capacity=40, access={})
    placed = {(task.subjects[sample], shard_id(task, sample, 10)) for sample in task.train.ids}
    assert len(placed) == len({person for person, _ in placed})
    assert {name.rsplit("/", 1)[1] for _, name in placed} <= {"0", "1", "2", "3"}


# Training and composition.


def lora(home: Path, figures: Any) -> dict[str, str]:
    return {name: digest for name, digest in figures["components"].items() if "/lora/" in name}


def test_an_adapter_is_the_same_whatever_else_is_learnt_before_or_beside_it(tmp_path: Path) -> None:
    stream = tiny_stream()
    whole = lora(tmp_path, made(tmp_path / "whole").figures)
    alone = replace(stream, tasks=stream.tasks[1:2], recipe=None)
    turned = replace(stream, tasks=stream.tasks[::-1], recipe=None)
    assert lora(tmp_path, made(tmp_path / "alone", alone).figures).items() <= whole.items()
    assert lora(tmp_path, made(tmp_path / "turned", turned).figures) == whole


@builds("cache")
def all_to_the_first(*, rows: int) -> Tensors:
    weight = torch.ones(rows, 1)
    return {"pick": weight.long() - 1, "weight": weight, "far": torch.zeros(rows, dtype=torch.bool)}


@pytest.mark.parametrize("mixing", ["outputs", "weights"])
def test_the_best_adapter_alone_equals_a_model_that_has_no_other(tmp_path: Path, mixing: str) -> None:
    result = made(tmp_path, top=1, mixing=mixing, far=0.0)
    found = cl.open(result.id, tmp_path)
    strategy, model, images = found.strategy, found.model, visitors(tiny_stream())
    assert isinstance(strategy, AdapterSwap)
    names = strategy._shelf(model).names
    routing = strategy._routing(model, images, 1, 0.0)
    whole = strategy.scores(model, images).open()["scores"]
    for number in set(routing.open()["pick"].flatten().tolist()):
        rows = routing.open()["pick"][:, 0] == number
        first = strategy.component("first", all_to_the_first, rows=len(images))
        shelf = strategy._shelf_of(model, [names[number]], None, model.classes)
        alone = strategy._answer(images, first, None, shelf)
        assert torch.equal(alone.open()["scores"][rows], whole[rows])


def test_weights_are_a_distribution_and_all_takes_every_adapter(tmp_path: Path) -> None:
    result = made(tmp_path, top="all")
    found = cl.open(result.id, tmp_path)
    assert isinstance(found.strategy, AdapterSwap)
    for top in (1, 2, 3, "all"):
        routing = found.strategy._routing(found.model, visitors(tiny_stream()), top, 0.0).open()
        assert routing["pick"].shape[1] == (6 if top == "all" else top)
        assert (routing["weight"] >= 0).all()
        assert (routing["weight"].sum(1) - 1).abs().max() <= routing["pick"].shape[1] * 2**-23


def test_oracle_routing_never_changes_and_forgetting_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    blocks = made(tmp_path).as_json()
    routing, retrieval = blocks["routing"], blocks["retrieval"]
    for column in zip(*routing["oracle"], strict=True):
        assert len({value for value in column if value is not None}) == 1
    for total, one, two in zip(
        routing["forgetting"], routing["forgetting_routing"], routing["forgetting_mixing"], strict=True
    ):
        assert total == pytest.approx(one + two)
    assert retrieval["library"] == [2, 4, 6]
    assert all(a <= b <= c for a, b, c in retrieval["all"])


def test_dora_is_refused_where_weights_are_mixed(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="mixing=outputs") as refusal:
        made(tmp_path, adapter="dora", mixing="weights")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "settings", [{"head": "ncm"}, {"head": "cosine", "scope": "local"}, {"adapter": "dora", "covariance": "full"}]
)
def test_other_readings_run_and_resume_from_the_store(tmp_path: Path, settings: dict[str, Any]) -> None:
    first = made(tmp_path, **settings)
    assert made(tmp_path, **settings).figures["components_built"] == 0
    assert first.figures["average_accuracy"] is not None


# Who sees what. `global` is the control: a test that it passed too would test nothing.


WAYS = [("view", "outputs", 3), ("view", "weights", 1), ("local", "weights", "all")]


@pytest.mark.parametrize(("scope", "mixing", "top"), WAYS)
def test_what_a_user_cannot_read_changes_no_byte_of_what_the_user_sees(
    tmp_path: Path, scope: str, mixing: str, top: Any
) -> None:
    """NI1, NI5, NI6, NI7: noise for the forbidden images, a crowd of them that looks like what is permitted, none of
    them at all, and other forbidden labels."""
    stream, how = tiny_stream(), {"scope": scope, "mixing": mixing, "top": top}
    seen = observed(made(tmp_path / "seen", stream, "alice", **how).figures)
    for name, other in _others(stream, "alice").items():
        assert observed(made(tmp_path / name, other, "alice", **how).figures) == seen, name


def _others(stream: Stream, user: str) -> dict[str, Stream]:
    """Streams that differ in what the user cannot read, and in nothing else."""
    hidden = hidden_from(user, stream)
    renamed = {sample: ("ward-z", "ward-0") if sample in hidden else atom for sample, atom in stream.access.items()}
    strangers = Policy("any", {**stream.policy.users, "erin": ("ward-b",), "bob": ()})
    return {
        "noise": with_noise(stream, hidden),
        "crowded": _crowded(stream, hidden),
        "gone": stream.without(hidden),
        "fewer, renamed, for others": replace(stream, access=renamed, policy=strangers).without(sorted(hidden)[::3]),
    }


def _crowded(stream: Stream, hidden: set[str]) -> Stream:
    """The stream with each hidden training image ten times more, and all of these the picture of one that is not."""
    tasks, access = [], dict(stream.access)
    for task in stream.tasks:
        shard = task.train
        twin = shard.keep({min(set(shard.ids) - hidden)}).images()[0].permute(1, 2, 0).numpy()
        labels = dict(zip(shard.ids, shard.labels, strict=True))
        more = {f"{sample}/{copy}": labels[sample] for sample in sorted(hidden & set(labels)) for copy in range(10)}
        access |= {name: access[name.rpartition("/")[0]] for name in more}
        crowd = Samples.of(more, ArrayPixels(list(more), np.stack([twin] * len(more))))
        tasks.append(replace(task, train=concat([shard, crowd])))
    return replace(stream, tasks=tuple(tasks), access=access)


def test_the_published_global_retriever_leaks_and_the_same_tests_show_it(tmp_path: Path) -> None:
    """NI8: under `global` NI1, NI5, NI6 and NI7 fail."""
    stream, how = tiny_stream(), {"scope": "global"}
    seen = _predictions(made(tmp_path / "seen", stream, "alice", **how).figures)
    for name, other in _others(stream, "alice").items():
        assert _predictions(made(tmp_path / name, other, "alice", **how).figures) != seen, name


def test_under_global_a_user_gets_answers_before_any_shard_that_the_user_reads(tmp_path: Path) -> None:
    stream = tiny_stream()
    access = {**stream.access, **dict.fromkeys(stream.tasks[0].train.ids, ("ward-b",))}
    blocks = made(tmp_path, replace(stream, access=access), "alice", scope="global").as_json()
    assert blocks["accuracy"][0][0] is not None and blocks["retrieval"]["library"] == [1, 2]


def _predictions(figures: Any) -> dict[str, str]:
    return {name: digest for name, digest in figures["components"].items() if "/predictions/" in name}


def test_the_same_edits_of_what_a_user_may_read_do_show(tmp_path: Path) -> None:
    """NI8, the other control."""
    stream = tiny_stream()
    readable = stream.ids - hidden_from("alice", stream)
    seen = observed(made(tmp_path / "seen", stream, "alice").figures)
    edits = {"noise": with_noise(stream, readable), "fewer": stream.without(set(sorted(readable)[::3]))}
    for name, other in edits.items():
        assert observed(made(tmp_path / name, other, "alice").figures) != seen, name


def test_what_a_user_is_told_does_not_depend_on_what_is_hidden(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """NI9: every character of output and errors, and the exit codes; of whoever may read nothing too."""
    pictures = str(visitor(tmp_path)), str(tmp_path / "missing.png")
    told, stream = {}, tiny_stream()
    for name, other in {"seen": stream, **_others(stream, "alice")}.items():
        home = tmp_path / name
        monkeypatch.setattr("cl.testing.tiny_stream", lambda tasks, classes, train, test, twins, other=other: other)
        run_id = made(home, other).id
        ways = [("alice", pictures[0]), ("alice", pictures[1]), ("dave", pictures[0]), ("stranger", pictures[1])]
        command = "predict", run_id, "--json", "--home", str(home), "--as"
        said = [palimpsest(capsys, monkeypatch, *command, *way) for way in ways]
        told[name] = json.loads(json.dumps(said).replace(str(home), "HOME").replace(run_id, "RUN"))
    assert all(one == told["seen"] for one in told.values()), told
    assert [code for code, *_ in told["seen"]] == [0, 2, 0, 2], told["seen"]


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The store's access log from now on: (key, part)."""
    log: list[tuple[str, str]] = []
    load = Store.load

    def logged(self: Store, record: Record, part: str) -> Tensors:
        log.append((record.key, part))
        return load(self, record, part)

    monkeypatch.setattr(Store, "load", logged)
    return log


def _forbidden(home: Path, ward: str) -> list[Path]:
    """Blobs of everything in the store that was built for shards of one ward."""
    keys = [use.key for use in manifest(home).uses if f"/{ward}/" in use.name]
    return [home / "store" / key[:2] / f"{key}.safetensors" for key in keys]


@pytest.mark.parametrize(("scope", "mixing", "top"), WAYS)
def test_files_of_forbidden_shards_are_neither_needed_nor_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str, mixing: str, top: Any
) -> None:
    """NI2, NI3, NI4 on a warm store: forbidden files overwritten, then gone; the access log of the store has none."""
    home, images = tmp_path / "home", visitors(tiny_stream())
    run_id = made(home, scope=scope, mixing=mixing, top=top).id
    before = answers(home, run_id, "alice", images)
    paths = _forbidden(home, "ward-b")
    assert len(paths) >= 6
    opened = watched(monkeypatch)
    for path in paths:
        path.chmod(0o644)
        path.write_bytes(b"\xff" * path.stat().st_size)  # NaN in every float
    assert same(answers(home, run_id, "alice", images), before)
    for path in paths:
        path.unlink()
    assert same(answers(home, run_id, "alice", images), before)
    assert opened and not {path.stem for path in paths} & {key for key, _ in opened}


@pytest.mark.parametrize(("scope", "mixing", "top"), WAYS)
def test_a_revoked_label_takes_its_shards_away_at_once(tmp_path: Path, scope: str, mixing: str, top: Any) -> None:
    """NI10: bob without ward-b is alice, on warm caches; and nothing is trained for either."""
    home, images, stream = tmp_path / "home", visitors(tiny_stream()), tiny_stream()
    run_id = made(home, scope=scope, mixing=mixing, top=top).id
    both = answers(home, run_id, "bob", images)
    Grants(home).change(Store(home), stream, [("bob", "ward-b", False)])
    for path in _forbidden(home, "ward-b"):
        path.unlink()
    less = answers(home, run_id, "bob", images)
    assert not same(both, less) and same(less, answers(home, run_id, "alice", images))


def test_no_clearance_and_no_such_user_are_the_same_and_show_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for scope in ("view", "global"):
        run_id = made(home / scope, scope=scope).id
        nobody, stranger = (cl.open(run_id, home / scope, user=user) for user in ("dave", "stranger"))
        assert nobody.abstains and stranger.abstains
        told = made(home / scope, user="stranger", scope=scope)
        assert told.figures["tasks"] == [] and told.figures["components"] == {}
        assert not cl.open(run_id, home / scope, user="alice").abstains


# Deletion.


def test_a_persons_deletion_trains_the_persons_shards_again_and_nothing_else(tmp_path: Path) -> None:
    stream = replace(tiny_stream(train=24), recipe=None)
    person = stream.subjects[stream.tasks[0].train.ids[0]]
    result = made(tmp_path, tiny_stream(train=24))
    chosen = [Selector("subject", person)]
    told = plan(open_run(tmp_path, result.id), chosen)
    own = {
        shard_id(task, sample, FAST["shard_limit"])
        for task in stream.tasks
        for sample in task.train.ids
        if stream.subjects[sample] == person
    }
    trained = {step.name for step in told.steps if step.name.endswith("/lora") and step.action == "rebuild"}
    assert trained == {f"{name}/lora" for name in own}
    outcome = execute(tmp_path, result.id, chosen)
    cold = made(tmp_path / "cold", stream.without({s for s, who in stream.subjects.items() if who == person}))
    assert outcome.components_after == cold.figures["components"]
    before, after = lora(tmp_path, result.figures), {n: d for n, d in outcome.components_after.items() if "/lora/" in n}
    assert {name.rsplit("/", 2)[0] for name in before if before[name] != after.get(name)} <= own


def test_deleting_what_a_user_cannot_read_changes_nothing_for_the_user(tmp_path: Path) -> None:
    home, images, stream = tmp_path / "home", visitors(tiny_stream()), tiny_stream()
    run_id = made(home).id
    before = answers(home, run_id, "alice", images)
    gone = sorted(hidden_from("alice", stream) & set(stream.tasks[0].train.ids))[0]
    execute(home, run_id, [Selector("sample", gone)])
    assert same(answers(home, run_id, "alice", images), before)


def test_a_library_is_read_only_where_a_row_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = made(tmp_path, top=1)
    found = cl.open(result.id, tmp_path)
    assert isinstance(found.strategy, AdapterSwap)
    picked = found.strategy._routing(found.model, visitors(tiny_stream()), 1, 0.0).open()["pick"].unique()
    opened = watched(monkeypatch)
    fresh = cl.open(result.id, tmp_path)
    fresh.strategy.scores(fresh.model, visitors(tiny_stream())).open()
    assert len([part for _, part in opened if part == "adapter"]) == len(picked) < 6
