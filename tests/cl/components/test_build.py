"""Keys and components: what changes a key, what is read, what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from cl.adapters import bottleneck
from cl.components.builder import builds
from cl.data.samples import Samples
from cl.errors import BadInput, NonFinite
from cl.home.store import Tensors
from cl.learning.features import adapter_features, features_together
from cl.models.backbone import Backbone
from cl.seeds import Seeds
from cl.testing import tiny_stream
from tests.tiny import builder

CALLS: list[str] = []


@builds("statistics")
def total(samples: Samples, *, power: int) -> Tensors:
    CALLS.append("total")
    return {"total": (samples.images().double() ** power).sum()}


@builds("adapter")
def drawn(*, seeds: Seeds) -> Tensors:
    return {"draw": torch.rand(3, generator=seeds.generator("draw"))}


@builds(value="head", why="evidence")
def two_parts(read: Tensors) -> dict[str, Tensors]:
    return {"value": {"double": 2 * read["total"]}, "why": {"read": read["total"]}}


@dataclass(frozen=True)
class Line:
    slope: float
    start: float = 0.0


@builds("statistics")
def at_one(*, line: Line) -> Tensors:
    return {"value": torch.tensor(line.slope + line.start)}


@builds("adapter")
def fresh_adapter(*, backbone: Backbone, seeds: Seeds, row: int) -> Tensors:
    adapter = bottleneck.init(backbone, 4, seeds.generator("init"))
    return {name: torch.randn(one.shape, generator=seeds.generator("any", name, row)) for name, one in adapter.items()}


@builds("cache")
def relay(read: Tensors) -> Tensors:
    return read


@builds("statistics")
def broken(*, value: float) -> Tensors:
    return {"value": torch.tensor(float("nan"))}


def test_a_stored_component_is_not_built_again(tmp_path: Path) -> None:
    shard = tiny_stream().tasks[0].train
    first = builder(tmp_path).component("a", total, shard, power=2)
    CALLS.clear()
    again = builder(tmp_path).component("b", total, shard, power=2)
    assert not CALLS and again.key == first.key
    assert torch.equal(first.open()["total"], again.open()["total"])


def test_adapters_run_together_give_what_each_gives_alone(tmp_path: Path) -> None:
    shard, made = tiny_stream().tasks[0].train, [builder(tmp_path / home) for home in ("together", "alone")]
    adapters = [[one.component(f"a{row}", fresh_adapter, row=row) for row in range(3)] for one in made]
    reads = [(shard, adapter) for adapter in adapters[0]]
    made[0].component("features", adapter_features, *reads[1], scale=0.5)  # what is there already is left out
    made[0].build_together("features", adapter_features, features_together, reads, scale=0.5)
    found, wanted = (
        [one.component("features", adapter_features, shard, adapter, scale=0.5) for adapter in own]
        for one, own in zip(made, adapters, strict=True)
    )
    assert [use.built for use in made[0].uses[3:]] == [True] * 3 + [False] * 3
    assert [one.key for one in found] == [one.key for one in wanted]
    assert [one.sole.digest for one in found] == [one.sole.digest for one in wanted]
    assert len({one.sole.digest for one in found}) == 3
    assert [one.record.passes for one in found] == [len(shard)] * 3 == [one.record.passes for one in wanted]


def test_what_changes_the_key(tmp_path: Path) -> None:
    made = builder(tmp_path)
    tasks = tiny_stream().tasks
    smaller = tasks[0].train.keep(tasks[0].train.ids[1:])
    keys = [
        made.component("a", total, tasks[0].train, power=2).key,
        made.component("a", total, tasks[0].train, power=3).key,
        made.component("a", total, tasks[1].train, power=2).key,
        made.component("a", total, smaller, power=2).key,
    ]
    assert len(set(keys)) == 4


def test_only_builds_that_draw_have_a_seed_in_their_key(tmp_path: Path) -> None:
    first, second = builder(tmp_path, seed=0), builder(tmp_path, seed=1)
    shard = tiny_stream().tasks[0].train
    assert first.component("a", drawn).key != second.component("a", drawn).key
    assert first.component("a", drawn).key != first.component("b", drawn).key
    assert first.component("a", total, shard, power=2).key == second.component("b", total, shard, power=2).key


def test_reading_one_part_makes_only_that_part_a_parent(tmp_path: Path) -> None:
    made = builder(tmp_path)
    parent = made.component("two", two_parts, made.component("t", total, tiny_stream().tasks[0].train, power=1))
    child = made.component("child", relay, parent["value"])
    assert [(read["part"], read["digest"]) for read in child.record.reads] == [("value", parent["value"].digest)]
    assert {part.role for part in parent.parts.values()} == {"head", "evidence"}
    with pytest.raises(BadInput, match="name one of the parts"):
        parent.open()


def test_records_name_what_was_read(tmp_path: Path) -> None:
    made = builder(tmp_path)
    shard = tiny_stream().tasks[0].train
    first = made.component("t", total, shard, power=1)
    second = made.component("two", two_parts, first)
    assert [read["digest"] for read in first.record.reads] == [shard.digest]
    assert [(read["key"], read["digest"]) for read in second.record.reads] == [(first.key, first.sole.digest)]


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}])
def test_arguments_must_be_plain(tmp_path: Path, value: Any) -> None:
    with pytest.raises(BadInput, match="not plain JSON"):
        builder(tmp_path).component("x", broken, value=value)


def test_a_dataclass_of_plain_values_is_an_argument(tmp_path: Path) -> None:
    made = builder(tmp_path)
    one = made.component("x", at_one, line=Line(2.0))
    assert one.open()["value"] == 2.0 and one.record.arguments == {"line": {"slope": 2.0, "start": 0.0}}
    assert made.component("x", at_one, line=Line(2.0, 1.0)).key != one.key


def test_a_nan_in_a_lasting_part_is_refused_and_nothing_is_stored(tmp_path: Path) -> None:
    made = builder(tmp_path)
    with pytest.raises(NonFinite, match="'x' has a NaN"):
        made.component("x", broken, value=1.0)
    assert list(made.store.keys()) == []


def test_images_that_belong_to_no_stream_leave_nothing(tmp_path: Path) -> None:
    made = builder(tmp_path)
    visitor = Samples.visiting(tiny_stream().tasks[0].train.images().permute(0, 2, 3, 1).numpy())
    handle = made.component("two", two_parts, made.component("t", total, visitor, power=1))
    assert handle["value"].open()["double"] > 0
    assert list(made.store.keys()) == []


def test_a_damaged_blob_is_found_said_and_built_again(tmp_path: Path) -> None:
    shard = tiny_stream().tasks[0].train
    first = builder(tmp_path).component("a", total, shard, power=2)
    blob = next((tmp_path / "store").rglob("*.safetensors"))
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    made = builder(tmp_path)
    again = made.component("a", total, shard, power=2)
    assert again.sole.digest == first.sole.digest
    assert len(made.store.warnings) == 1 and "damaged" in made.store.warnings[0]
