"""SEMA against its specification's invariants (section 10) and figures worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from cl.adapters import mixture
from cl.adapters.mixture import Stack
from cl.components.handles import Handle
from cl.data.augment import crop_flip
from cl.data.samples import ArrayPixels, Samples
from cl.data.stream import Stream, Task
from cl.errors import BadInput, NonFinite
from cl.home.store import Tensors
from cl.learning.hyper import resolve
from cl.learning.strategy import Model
from cl.learning.train import Optimisation
from cl.seeds import Seeds
from cl.testing import StrategyConformance, tiny_stream
from strategies.sema import Sema, descriptors
from strategies.sema.ablations import closing_column, principal
from strategies.sema.method import SemaHyper
from strategies.sema.presets import EXACT, OFFICIAL
from strategies.sema.released import RING, newest
from strategies.sema.scanning import Scan, scan
from strategies.sema.shared_head import gathered, shrink
from tests.tiny import builder, run_tiny, same

T = torch.tensor
SCAN, SHRINK = scan, shrink  # a build is a plain function
TINY: dict[str, Any] = {"epochs": 2, "rd_epochs": 2, "batch_size": 8, "bottleneck": 4, "min_scan_batch": 1}


class TestGrowing(StrategyConformance):
    """The conformance suite where every task grows; by being registered SEMA runs it where none does."""

    strategy = "sema"
    settings: ClassVar[Mapping[str, Any]] = {**TINY, "threshold": 0, "z": "abs"}


class TestOfficial(StrategyConformance):
    strategy = "sema"
    settings: ClassVar[Mapping[str, Any]] = {**OFFICIAL, **TINY, "threshold": 0.2}


def learnt(home: Path, stream: Stream, **settings: Any) -> tuple[Sema, list[Model]]:
    """SEMA after each task of the stream, decisions forgotten between tasks as the engine does."""
    sema = Sema(resolve(Sema.Hyper, Sema.presets, [], {**TINY, **settings}), builder(home))
    models = [Model()]
    for task in stream.tasks:
        sema.forget_decisions()
        models.append(models[-1].after(task, sema.learn(task, models[-1]), False))
    return sema, models[1:]


def grown(model: Model) -> set[str]:
    return {name for name, handle in model.entries.items() if "column" in handle.parts}


# Sizes


def test_sizes_on_the_published_backbone() -> None:  # invariant 1, and Table 5 by 24 adapters and 50 classes
    d, r, hidden = 768, SemaHyper().bottleneck, round(SemaHyper().rd_share * 768)
    adapter = 2 * d * r + r + d
    descriptor = sum(value.numel() for value in descriptors.new(d, hidden, Seeds("x")).values())
    column = sum(value.numel() for value in mixture.column(d, torch.Generator()).values())
    assert (adapter, descriptor, column) == (25_360, 197_504, 769)
    assert 24 * adapter + 50 * (d + 1) == 647_090
    assert 12 * adapter + 12 * column + 3 * descriptor + 100 * (d + 1) == 982_960


# The signal


def test_statistics_by_hand() -> None:  # invariant 3
    stats = descriptors.statistics(T([1.0, 2.0, 3.0]))
    assert (stats["mu"], stats["sigma"]) == (2, 1)
    errors = T([0.0, 4.0])
    assert descriptors.z_scores(errors, stats, signed=False, floor=False).mean() == 2
    assert descriptors.z_scores(errors, stats, signed=True, floor=False).mean() == 0


def test_two_errors_are_no_statistic() -> None:  # invariant 4
    stats = descriptors.statistics(T([1.0, 9.0]))
    assert not descriptors.z_scores(T([100.0, 200.0]), stats, signed=True, floor=True).any()


def test_a_deviation_of_zero() -> None:  # invariant 5
    stats = descriptors.statistics(T([2.0, 2.0, 2.0], dtype=torch.float64))
    errors = T([2.0, 2.001], dtype=torch.float64)
    bare = descriptors.z_scores(errors, stats, signed=False, floor=False)
    assert math.isnan(bare[0]) and math.isinf(bare[1])
    floored = descriptors.z_scores(errors, stats, signed=True, floor=True)
    assert floored[0] == 0 and floored[1].item() == pytest.approx(500, rel=1e-5)


def test_principal_components_reconstruct_what_they_span() -> None:
    basis = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(1)) @ basis + 2
    assert descriptors.errors(principal(x, 3), x).max() < 1e-9
    assert descriptors.errors(principal(x, 2), x).max() > 1e-3


def test_a_ring_loses_what_overfills_it_once() -> None:  # invariant 2
    ring = torch.zeros(0)
    for batch in ([1.0, 2, 3], [4.0, 5, 6], [7.0, 8]):
        ring = newest(ring, T(batch), 5)
    assert ring.tolist() == [3, 4, 5, 7, 8]
    assert (ring.mean().item(), ring.var().item()) == pytest.approx((5.4, 4.3))


@pytest.mark.parametrize("before", [0, 37, 500, 900])
def test_two_rings_full_of_later_errors_do_not_tell_what_came_before(before: int) -> None:
    rings = []
    for early in (torch.zeros(0), torch.rand(before)):
        ring = newest(torch.zeros(0), early)
        for batch in torch.arange(2.0 * RING + 32).split(32):
            ring = newest(ring, batch)
        rings.append(ring)
    assert same(*rings)


def identity(dim: int, gain: float) -> dict[str, torch.Tensor]:
    """A descriptor that gives gain * x back: the error of x is (1 - gain)^2 mean(x^2)."""
    weights = {"encode.weight": torch.eye(dim), "decode.weight": gain * torch.eye(dim)}
    return {**weights, "encode.bias": torch.zeros(dim), "decode.bias": torch.zeros(dim)}


def scanned(
    values: list[float],
    threshold: float | str,
    mus: list[list[float]],
    order: list[int] | None = None,
    before: Any = None,
    **how: Any,
) -> Any:
    """A scan of images whose error is `values`, for blocks with one descriptor (sigma 1) for each of `mus`."""
    ids = tuple(f"{row:03d}" for row in range(len(values)))
    samples = Samples.of(dict.fromkeys(ids, "a"), ArrayPixels(ids, np.zeros((len(ids), 2, 2, 3), np.uint8)))
    m = {"m": T(values, dtype=torch.float64).sqrt()[:, None]}
    known = [[[identity(1, 0.0), {"mu": T(mu), "sigma": T(1.0), "count": T(9)}] for mu in block] for block in mus]
    plain: dict[str, Any] = {"z": "signed", "sigma_floor": "none", "min_scan_batch": 1, "non_finite": "ignore"}
    rule = Scan(**{"threshold": threshold, "activation": "none", **plain, **how})
    rows = {"rows": T(order)} if order is not None else None
    return SCAN(samples, [m] * len(mus), known, rows, before, blocks=list(range(len(mus))), rule=rule)


def test_a_signal_must_pass_the_threshold() -> None:  # invariants 3 and 4
    def grows(threshold: float | str, mus: list[float], **how: Any) -> bool:
        return bool(scanned([4.0, 16.0], threshold, [mus], **how)["grow"]["grow"].any())

    assert grows(0.99, [9.0]) and not grows(1.0, [9.0])  # equal is not above
    assert not grows(1.0, [7.0, 9.1]) and grows(0.8, [7.0, 9.1])  # the smallest over the descriptors decides
    assert not grows("inf", [0.0]) and not grows(2.0, [0.0], min_scan_batch=3)
    assert grows(0.9, [11.0], z="abs") and not grows(0.9, [11.0], z="signed")


def test_the_evidence_tells_what_led_there() -> None:
    found = scanned([4.0, 16.0], 2.0, [[9.0, 7.0], [10.0]])["zscores"]
    assert torch.allclose(found["zbar"], T([[1.0, 3.0], [0.0, torch.nan]], dtype=torch.float64), equal_nan=True)
    assert found["signal"].tolist() == [1.0, 0.0] and found["threshold"] == 2


def test_a_threshold_of_zero_needs_no_signal() -> None:
    assert scanned([4.0, 16.0], 0, [[90.0]])["grow"]["grow"].tolist() == [True]  # the signed signal is far below


def test_of_several_blocks_the_shallowest_grows_first_and_the_scan_goes_on_behind() -> None:
    order, values = list(range(300)), [4.0] * 128 + [16.0] * 128 + [5.0] * 44
    found = scanned(values, 1.0, [[20.0], [7.0], [7.0]], order)
    assert found["grow"]["grow"].tolist() == [False, True, False] and found["visited"]["visited"] == 2
    rest = scanned(values, 1.0, [[20.0], [7.0]], order, found["visited"])
    assert not rest["grow"]["grow"].any()  # the batch that broke the pass off is not seen again in it
    assert rest["visited"]["visited"] == 3 and rest["zscores"]["signal"].tolist() == pytest.approx([-15, -2])
    again = scanned(values, 1.0, [[20.0], [7.0]], order)
    assert again["grow"]["grow"].tolist() == [False, True]  # but in the pass that follows an addition


def test_a_scan_by_batches_takes_the_largest_mean() -> None:
    values = [0.0] * 128 + [9.0] * 3
    order = list(range(len(values)))  # the three high errors make up the tail batch
    assert scanned(values, 2.0, [[0.0]], order)["grow"]["grow"].any()
    assert not scanned(values, 2.0, [[0.0]], order, min_scan_batch=4)["grow"]["grow"].any()
    assert not scanned(values, 2.0, [[0.0]])["grow"]["grow"].any()


def test_an_error_that_is_not_finite() -> None:  # invariant 12
    with pytest.raises(NonFinite, match="'001'"):
        scanned([1.0, math.nan], 1.0, [[0.0]], non_finite="raise")
    assert not scanned([1.0, math.nan], 1.0, [[0.0]])["grow"]["grow"].any()


def draws(count: int, shift: float, seed: int) -> torch.Tensor:
    return shift + torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_same_distribution_is_not_new_and_a_far_one_is() -> None:  # invariants 8 and 9
    for seed in range(40):
        known = draws(256, 0, 3 * seed)
        descriptor = principal(known, 2)
        stats = descriptors.statistics(descriptors.errors(descriptor, draws(64, 0, 3 * seed + 1)))

        def signal(x: torch.Tensor, descriptor: Tensors = descriptor, stats: Tensors = stats) -> float:
            return descriptors.z_scores(descriptors.errors(descriptor, x), stats, True, True).mean().item()

        assert signal(draws(256, 0, 3 * seed + 2)) < 1 < signal(draws(256, 5, 3 * seed + 2))


# The mixture


def one_adapter(value: float, dim: int = 1) -> dict[str, torch.Tensor]:
    """An adapter of one block that gives `value` whatever comes in."""
    zeros = {"down.weight": torch.zeros(1, 2, dim), "down.bias": torch.zeros(1, 2)}
    return {**zeros, "up.weight": torch.zeros(1, dim, 2), "up.bias": torch.full((1, dim), float(value))}


def closed_at(logit: float, dim: int = 1) -> dict[str, torch.Tensor]:
    return {"weight": torch.zeros(1, dim), "bias": T([float(logit)])}


def mixed(values: list[float], logits: list[float]) -> float:
    stack = Stack.of([one_adapter(value) for value in values], [closed_at(logit) for logit in logits])
    return stack.branch(torch.ones(1, 3, 1))[0, 0, 0].item()


def test_mixtures_by_hand() -> None:  # invariants 6 and 7
    assert mixed([4, 8], [0, math.log(3)]) == pytest.approx(7)
    assert mixed([5], [3]) == 5
    assert mixed([4, 0], [0, 0]) == 2
    assert mixed([4, 0], [0, -6]) == pytest.approx(3.990, abs=1e-3)


def test_a_closed_column_keeps_the_function() -> None:
    stack = Stack.of([one_adapter(4.0), one_adapter(6.0)], [closed_at(1.0), closed_at(2.0)])
    column = closing_column(stack, torch.randn(5, 1, generator=torch.Generator().manual_seed(0)))
    assert column["bias"].item() == pytest.approx(math.log(math.e + math.e**2) - 6, abs=1e-5)
    assert not column["weight"].any()


def test_the_stack_is_the_loop_over_its_adapters() -> None:  # invariant 14
    draw = torch.Generator().manual_seed(0)
    shapes = {"down.weight": (1, 3, 8), "down.bias": (1, 3), "up.weight": (1, 8, 3), "up.bias": (1, 8)}
    adapters = [{name: torch.randn(*shape, generator=draw) for name, shape in shapes.items()} for _ in range(4)]
    columns = [mixture.column(8, draw) for _ in range(4)]
    h = torch.randn(5, 6, 8, generator=draw)
    stack = Stack.of(adapters, columns)
    weights = stack.weights(h.mean(1))
    loop = sum(
        weights[:, k, None, None]
        * (torch.relu(h @ one["down.weight"][0].T + one["down.bias"]) @ one["up.weight"][0].T + one["up.bias"])
        for k, one in enumerate(adapters)
    )
    assert torch.allclose(stack.branch(h), torch.as_tensor(loop), atol=1e-5)


# The head


def test_rows_shrink_by_what_later_tasks_decay() -> None:  # quirk of update_optimizer
    heads = [{"weight": T([[2.0], [4.0]]), "bias": T([1.0, 1.0])}, {"weight": T([[8.0]]), "bias": T([2.0])}]
    found = gathered(heads, [{"factor": T(0.5)}, {"factor": T(0.25)}], [[1, 0, 2], [0, 1, 1], [0, 0, 0]])
    assert found["weight"].flatten().tolist() == [8.0, 1.0, 0.25] and found["bias"].tolist() == [2.0, 0.25, 0.125]


def test_the_shrink_is_what_the_optimiser_does_to_an_unused_weight() -> None:
    weight = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9, weight_decay=0.01)
    for epoch in range(2):
        optimizer.param_groups[0]["lr"] = 0.1 * 0.5 * (1 + math.cos(math.pi * epoch / 2))
        for _ in range(2):  # 12 images in batches of 8
            weight.grad = torch.zeros_like(weight)
            optimizer.step()
    how = Optimisation(epochs=2, batch_size=8, lr=0.1, weight_decay=0.01)
    found = SHRINK(tiny_stream().tasks[0].train, phases=1, how=how)
    assert found["factor"].item() == pytest.approx(weight.item(), rel=1e-12)
    twice = SHRINK(tiny_stream().tasks[0].train, phases=2, how=how)
    assert twice["factor"].item() == pytest.approx(weight.item() ** 2, rel=1e-12)


# Whole tasks


def test_the_first_task_has_an_adapter_in_every_block(tmp_path: Path) -> None:
    _, (model,) = learnt(tmp_path, tiny_stream(1, train=20))
    assert model["t0/first"]["adapter"].open()["down.weight"].shape == (2, 4, 32)
    assert model["t0/first"]["columns"].open()["weight"].shape == (2, 32)
    assert {f"t0/block-{block}/rd" for block in range(2)} < set(model.entries) and not grown(model)


@pytest.mark.parametrize(("threshold", "count"), [("inf", 0), (math.inf, 0), (0, 2)])
@pytest.mark.parametrize("preset", [EXACT, OFFICIAL])
def test_a_threshold_of_infinity_never_grows_and_one_of_zero_always(
    tmp_path: Path, threshold: Any, count: int, preset: dict[str, Any]
) -> None:  # one addition per block and task at most: invariant 9
    settings = {**preset, "min_scan_batch": 1, "threshold": threshold}
    _, models = learnt(tmp_path, tiny_stream(3, train=20), **settings)
    assert [len(grown(model)) for model in models] == [0, count, 2 * count]


def copied(task: Task, name: str) -> Task:
    """The task again: the same pictures under new ids and class names."""

    def shard(old: Samples) -> Samples:
        labels = {f"{name}/{sample}": label for sample, label in zip(old.ids, old.labels, strict=True)}
        return Samples.of(labels, ArrayPixels(list(labels), old.images().permute(0, 2, 3, 1).numpy()))

    renamed = {label: f"{name}-{label}" for label in task.classes}

    def relabelled(old: Samples) -> Samples:
        return replace(old, labels=tuple(renamed[label] for label in old.labels))

    return Task(name, tuple(renamed.values()), relabelled(shard(task.train)), relabelled(shard(task.test)))


def test_a_copy_of_a_task_adds_only_rows(tmp_path: Path) -> None:  # invariants 10 and 11
    first = tiny_stream(1, train=60).tasks[0]
    sema, models = learnt(tmp_path, Stream("copies", (first, copied(first, "again"))), threshold=1.0)
    assert not grown(models[1])
    assert {name for name, _ in models[1].parts} - {name for name, _ in models[0].parts} == {
        "again/head",
        "again/block-0/grow/grow",
        "again/block-1/grow/grow",
    }
    before, after = (sema.scores(model, first.test).open()["scores"] for model in models)
    assert same(before, after[:, :2])


def far(name: str) -> Task:
    """A task of white pictures with a little noise, unlike any other."""
    shards = []
    for split, count in (("train", 20), ("test", 3)):
        labels = {
            f"{name}/{label}/{split}/{row:02d}": f"{name}/{label}" for label in ("c0", "c1") for row in range(count)
        }
        noise = np.random.default_rng(7).integers(0, 60, (len(labels), 32, 32, 3))
        shards.append(Samples.of(labels, ArrayPixels(list(labels), (255 - noise).astype(np.uint8))))
    return Task(name, (f"{name}/c0", f"{name}/c1"), *shards)


@pytest.mark.parametrize("preset", [EXACT, OFFICIAL])
def test_a_far_task_grows_every_block_once_and_leaves_the_old_parts(tmp_path: Path, preset: dict[str, Any]) -> None:
    stream = Stream("far", (*tiny_stream(1, train=20).tasks, far("white")))
    settings = {**preset, "min_scan_batch": 1, "threshold": 1.0}
    _, models = learnt(tmp_path, stream, **settings)
    assert grown(models[1]) == {"white/block-0", "white/block-1"}
    for name, handle in models[0].entries.items():
        assert models[1][name].key == handle.key


def test_only_the_last_blocks_grow(tmp_path: Path) -> None:
    _, models = learnt(tmp_path, tiny_stream(2, train=20), growing=1, threshold=0, z="abs")
    assert grown(models[1]) == {"t1/block-1"}


def test_everything_behind_a_decision_reads_it(tmp_path: Path) -> None:
    _, models = learnt(tmp_path, tiny_stream(2, train=20), threshold=0, z="abs")

    def controls(handle: Handle) -> set[str]:
        return {read["digest"] for read in handle.record.reads if read["edge"] == "control"}

    first, second = (models[1][f"t1/block-{block}/grow"]["grow"].digest for block in range(2))
    assert controls(models[1]["t1/block-0"]) == {first}
    assert controls(models[1]["t1/block-1"]) == controls(models[1]["t1/head"]) == {first, second}


def test_a_descriptor_does_not_see_the_adapter_beside_it(tmp_path: Path) -> None:  # invariant 13
    stream = tiny_stream(2, train=20)
    _, short = learnt(tmp_path / "a", stream, threshold=0, z="abs", epochs=1)
    _, other = learnt(tmp_path / "b", stream, threshold=0, z="abs", epochs=1, new_column="closed")
    assert short[1]["t1/block-0"]["adapter"].digest != other[1]["t1/block-0"]["adapter"].digest
    assert short[1]["t1/block-0/rd"]["descriptor"].digest == other[1]["t1/block-0/rd"]["descriptor"].digest


def test_a_task_of_one_class_and_of_one_image(tmp_path: Path) -> None:  # invariant 12
    tasks = (*tiny_stream(1, train=20).tasks, *tiny_stream(2, classes=1, train=1).tasks[1:])
    _, models = learnt(tmp_path, Stream("few", tasks), **{**OFFICIAL, "threshold": 0, "epochs": 20, "rd_epochs": 20})
    assert grown(models[1]) == {"t1/block-0", "t1/block-1"}
    statistics = models[1]["t1/block-0/rd"]["statistics"].open()
    assert statistics["count"] == 40 and torch.isfinite(statistics["sigma"])


def test_too_few_held_out_images_are_told(tmp_path: Path) -> None:
    result = run_tiny(tmp_path, "sema", tiny_stream(2, train=2), rd_epochs=1)
    assert any("fewer than 3" in warning for warning in result.figures["warnings"])


def test_principal_components_need_held_out_statistics(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="heldout"):
        learnt(tmp_path, tiny_stream(1), rd="pca", stats="ring500")
    _, models = learnt(tmp_path, tiny_stream(2, train=20), rd="pca", rd_share=0.2, rd_act="none")
    assert models[0]["t0/block-0/rd"]["descriptor"].open()["encode.weight"].shape == (6, 32)


def test_classes_that_come_back_keep_their_rows(tmp_path: Path) -> None:
    first = tiny_stream(1, train=20).tasks[0]
    white = far("white")
    train, test = (
        replace(shard, labels=tuple(label.replace("white", "t0") for label in shard.labels))
        for shard in (white.train, white.test)
    )
    again = replace(white, classes=first.classes, train=train, test=test)
    for preset in (EXACT, OFFICIAL):
        settings = {**preset, "min_scan_batch": 1}
        sema, models = learnt(tmp_path, Stream("domains", (first, again)), **settings)
        assert models[1].classes == first.classes
        assert sema.scores(models[1], again.test).open()["scores"].shape == (6, 2)


def test_decayed_rows_depend_on_the_steps_of_earlier_tasks(tmp_path: Path) -> None:  # invariant 15
    stream = tiny_stream(2, train=17)  # 34 images in batches of 8: two fewer make one step less
    fewer = stream.without(stream.tasks[0].train.ids[:2])
    for rows, moves in (("decay", True), ("frozen", False)):
        heads = []
        for number, one in enumerate((stream, fewer)):
            home = tmp_path / rows / str(number)
            sema, models = learnt(home, one, head_rows=rows)
            heads.append(sema._start(one.tasks[1], models[0]).digest)
        assert (heads[0] != heads[1]) is moves


def deletion_rebuilds(home: Path, remove: Callable[[Stream], Stream], **settings: Any) -> set[str]:
    """The names of what a deletion, carried out by running again, has changed; the bytes are those of a cold run."""
    stream = tiny_stream(3, train=20)
    _, whole = learnt(home / "warm", stream, **settings)
    _, warm = learnt(home / "warm", remove(stream), **settings)
    _, cold = learnt(home / "cold", remove(stream), **settings)
    digests = [{name: part.digest for name, part in models[-1].parts} for models in (whole, warm, cold)]
    assert digests[1] == digests[2]
    return {name for name, digest in digests[1].items() if digests[0].get(name) != digest}


def test_deleting_from_a_quiet_task_touches_that_task_alone(tmp_path: Path) -> None:  # invariant 15
    gone = tiny_stream(3, train=20).tasks[1].train.ids[:1]
    assert deletion_rebuilds(tmp_path, lambda stream: stream.without(gone), threshold="inf") == {"t1/head"}


def test_deleting_from_a_growing_task_touches_what_comes_after(tmp_path: Path) -> None:
    gone = tiny_stream(3, train=20).tasks[1].train.ids[:1]
    changed = deletion_rebuilds(tmp_path, lambda stream: stream.without(gone), threshold=0, z="abs")
    assert {"t1/block-0/adapter", "t2/block-1/adapter", "t2/head"} <= changed
    assert not any(name.startswith("t0/") for name in changed)


@pytest.mark.parametrize("preset", ["exact", "official"])
def test_runs_are_equal_and_a_warm_one_builds_nothing(tmp_path: Path, preset: str) -> None:
    settings = {**Sema.presets[preset], **TINY}
    stream = tiny_stream(3, train=20)
    first, second = (run_tiny(tmp_path / name, "sema", stream, **settings).figures for name in "ab")
    again = run_tiny(tmp_path / "a", "sema", stream, **settings).figures
    assert first["manifest"] == second["manifest"] == again["manifest"]
    assert first["components_built"] > 0 and again["components_built"] == 0
    assert first["growth"] == again["growth"]


def plain_and_cropped(preset: dict[str, Any], home: Path) -> tuple[Model, Model]:
    """SEMA after one task without and with random crops, its adapters never trained apart."""
    stream = tiny_stream(1, train=20)
    (task,) = stream.tasks
    cropped = replace(stream, tasks=(replace(task, train=replace(task.train, augment=crop_flip((0.5, 1.0)))),))
    (_, (first,)), (_, (second,)) = (learnt(home, one, **preset, rd="pca") for one in (stream, cropped))
    return first, second


def test_held_out_statistics_see_images_as_the_scan_does(tmp_path: Path) -> None:
    first, second = plain_and_cropped(EXACT, tmp_path)
    # Block 0 has nothing below it that training changes, so crops would be the only difference.
    for part in ("descriptor", "statistics"):
        assert first["t0/block-0/rd"][part].digest == second["t0/block-0/rd"][part].digest


def test_a_task_of_equal_images_has_no_deviation(tmp_path: Path) -> None:
    def grey(name: str) -> Task:
        shards = []
        for split in ("train", "test"):
            ids = [f"{name}/{split}/{row:02d}" for row in range(20)]
            pixels = ArrayPixels(ids, np.full((20, 16, 16, 3), 90, np.uint8))
            shards.append(Samples.of(dict.fromkeys(ids, name), pixels))
        return Task(name, (name,), *shards)

    stream = Stream("grey", (grey("one"), grey("two"), far("white")))
    _, models = learnt(tmp_path, stream, **{**EXACT, "min_scan_batch": 1})
    assert models[0]["one/block-0/rd"]["statistics"].open()["sigma"] < 1e-6
    assert not grown(models[1]) and "white/block-0" in grown(models[2])
