"""MOS against its specification's invariants (section 10) and figures worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import cl
from cl.adapters import bottleneck
from cl.components.checkpoint import Checkpoint
from cl.errors import BadInput
from cl.home.store import Store, Tensors
from cl.learning.hyper import resolve
from cl.learning.strategy import Model
from cl.learning.train import Optimisation, Tuning
from cl.seeds import Seeds
from cl.testing import tiny_backbone, tiny_stream
from strategies.mos import Mos
from strategies.mos.merging import mean_parameters
from strategies.mos.method import Surgery, orthogonality, tune_and_merge
from strategies.mos.released import adapter_in_pass
from strategies.mos.retrieval import first_guess, refine, two_stage_scores
from tests.tiny import QUICK, builder, learn, run_tiny, same

T = torch.tensor
TUNE, GUESS, REFINE, SCORES = tune_and_merge, first_guess, refine, two_stage_scores  # builds are plain functions
SMALL = {**QUICK, "align_epochs": 3}
FREE = {"merge": "none", "init": "fresh", "orth": "batch", "head": "fresh"}
OLD_HEAD = {"weight": torch.full((2, 32), 0.5), "bias": torch.ones(2)}


def adapter(value: float) -> Tensors:
    """An adapter of the tiny backbone with this value everywhere."""
    return {
        name: torch.full_like(one, value)
        for name, one in bottleneck.init(tiny_backbone(), 4, Seeds("mos").generator("init")).items()
    }


def tuned(
    start: Tensors | None,
    towards: Tensors | None,
    lr: float = 0.05,
    weight_decay: float = 0.0,
    classes: int = 2,
    **surgery: Any,
) -> dict[str, Tensors]:
    """Task 1 of the tiny stream after training, task 0's head being `OLD_HEAD`."""
    stream = tiny_stream(2, classes)
    head = {name: rows[:classes] for name, rows in OLD_HEAD.items()}
    return TUNE(
        stream.tasks[1].train,
        {"start": start, "towards": towards, "head": head, "means": []},
        backbone=tiny_backbone(),
        seeds=Seeds("mos"),
        checkpoint=Checkpoint(None),
        classes=list(stream.classes),
        tuning=Tuning(
            bottleneck.Shape(4, scale=0.1, dropout=0.0),
            Optimisation(epochs=2, batch_size=4, lr=lr, weight_decay=weight_decay),
            head_rate=0.1,
        ),
        surgery=Surgery(**{"reg": 0.1, "momentum": 0.1, "pulls": 1, **surgery}),
    )


def apart(one: Tensors, other: Tensors) -> float:
    return sum(float((one[name] - other[name]).square().sum()) for name in one) ** 0.5


@pytest.mark.parametrize("pulls", [1, 13])
def test_without_gradient_only_the_pull_is_left(pulls: int) -> None:  # invariant 2: 2 epochs of 4 steps
    found = tuned(adapter(0.4), adapter(0.2), lr=1e-30, pulls=pulls)
    wanted = 0.9 ** (8 * pulls) * apart(adapter(0.4), adapter(0.2))
    assert apart(found["adapter"], adapter(0.2)) == pytest.approx(wanted, rel=0.01, abs=1e-5)


def test_one_pull_at_the_end() -> None:
    free = tuned(adapter(0.1), adapter(0.2), pulls=0)
    once = tuned(adapter(0.1), adapter(0.2), pulls=0, final_pulls=1)
    assert apart(once["adapter"], adapter(0.2)) == pytest.approx(0.9 * apart(free["adapter"], adapter(0.2)), rel=1e-5)


def test_old_rows_get_no_gradient() -> None:  # invariant 9
    found = tuned(None, None)
    assert same(found["head"]["weight"][:2], OLD_HEAD["weight"]) and same(found["head"]["bias"][:2], OLD_HEAD["bias"])
    assert not same(tuned(None, None, weight_decay=0.1)["head"]["weight"][:2], OLD_HEAD["weight"])


def test_one_class_is_moved_by_orthogonality_only() -> None:  # invariant 12
    still = tuned(adapter(0.1), None, classes=1, reg=0.0)
    assert apart(still["adapter"], adapter(0.1)) == 0 and same(still["head"]["weight"][:1], OLD_HEAD["weight"][:1])
    assert apart(tuned(adapter(0.1), None, classes=1)["adapter"], adapter(0.1)) > 0


def test_orthogonality_by_hand() -> None:  # invariant 8
    unit = T([[1.0, 0.0], [0.0, 1.0]])
    assert orthogonality(unit, []).item() == pytest.approx(0.25193, abs=1e-5)
    assert orthogonality(T([[1.0, 0.0], [1.0, 0.0]]), []).item() == pytest.approx(0.69315, abs=1e-5)
    assert orthogonality(unit[:1], [unit[1:]]).item() == pytest.approx(0.25193, abs=1e-5)


def test_the_released_forward_pass_pulls_each_block_once_a_block() -> None:  # invariant 5
    own, mean = ({"up.bias": torch.full((12, 1), value)} for value in (1.0, 0.0))
    first = adapter_in_pass(own, mean, 0.1, 0)["up.bias"][:, 0]
    assert torch.allclose(first, T([0.9 ** (block + 1) for block in range(12)]))
    assert first[-1].item() == pytest.approx(0.28243, abs=1e-6)
    assert adapter_in_pass(own, mean, 0.1, 5)["up.bias"][0].item() == pytest.approx(0.9**61, rel=1e-5)


def test_the_released_statistics_pass_leaves_where_the_next_adapter_starts(tmp_path: Path) -> None:  # quirk 6.2
    mos, models = learn(Mos, tmp_path, tiny_stream(4), **SMALL, **Mos.presets["mos_official"])
    adapters = [models[-1][f"t{task}/tuned"]["adapter"].open() for task in range(4)]
    for task in (1, 2):
        mean = mean_parameters(adapters[:task])
        left, start = adapter_in_pass(adapters[task], mean, 0.1, 50), mos._start(models[task])
        assert start is not None and apart(start.open(), left) < 1e-4 < apart(adapters[task], mean)
    assert apart(mos._start(models[0]).open(), adapters[0]) == 0  # nothing pulls the first


def walk(found: dict[int, int], start: int, tasks: int = 3) -> Tensors:
    """A walk of one image, one class a task; found[k] is the task that the head names under adapter k."""
    prototypes = [{"mean": torch.eye(tasks)[task : task + 1]} for task in range(tasks)]
    head = {"weight": torch.eye(tasks), "bias": torch.zeros(tasks)}
    state = GUESS({"features": torch.eye(tasks)[start : start + 1]}, prototypes, tasks=list(range(tasks)))
    for _ in range(4):
        places = set(state["next"][~state["settled"]].tolist())
        spaces = {str(place): {"features": torch.eye(tasks)[[found[place]]]} for place in places}
        state = REFINE(state, spaces, head, tasks=list(range(tasks)))
    return state


def test_a_cycle_ends_after_four_evaluations() -> None:  # invariant 6: visits 0, 1, 2, 1
    state = walk({0: 1, 1: 2, 2: 1}, start=0)
    assert (state["evaluations"].item(), state["task"].item(), state["logits"].argmax().item()) == (4, 1, 2)
    assert not state["settled"] and state["visited"].tolist() == [[True, True, True]]


def test_a_fixed_point_needs_one_evaluation() -> None:
    state = walk({0: 0, 1: 0, 2: 2}, start=2)
    assert (state["evaluations"].item(), state["task"].item(), state["first"].item()) == (1, 2, 2)
    assert state["visited"].tolist() == [[True, False, True]]  # the prototypes needed adapter 0
    assert walk({0: 0}, start=0, tasks=1)["evaluations"].item() == 1


def test_equal_cosines_go_to_the_earlier_class() -> None:
    state = GUESS({"features": torch.ones(1, 2)}, [{"mean": torch.eye(2)}], tasks=[0, 1])
    assert state["first"].item() == 0


@pytest.mark.parametrize(("tasks", "expected"), [(2, (0.66904, 1.33096)), (30, (1.07178, 0.92822)), (20, (1.0, 1.0))])
def test_the_number_of_tasks_alone_flips_the_answer(tasks: int, expected: tuple[float, float]) -> None:  # invariant 7
    state = {"cosines": T([[0.9, 0.8]]), "logits": T([[1.0, 3.0]])}
    scores = SCORES(state, sharpness=tasks, ensemble=True)["scores"][0]
    assert scores.tolist() == pytest.approx(expected, abs=1e-5)
    assert same(SCORES(state, sharpness=tasks, ensemble=False)["scores"], state["logits"])


def test_what_each_component_reads(tmp_path: Path) -> None:  # invariant 14, the table of section 8
    mos, models = learn(Mos, tmp_path, tiny_stream(), **SMALL)
    model = models[-1]

    def reads(handle: Any) -> set[str]:
        return {read["key"] if read["kind"] == "part" else "images" for read in handle.record.reads}

    keys = {name: handle.key for name, handle in model.entries.items()}
    mean = mos.component("mean", mean_parameters, [model[f"t{task}/tuned"]["adapter"] for task in (0, 1)])
    head = models[1]["head"].key
    earlier = {keys["t1/tuned"], mean.key, head, keys["t0/means"], keys["t1/means"]}
    assert reads(model["t2/tuned"]) == {"images", *earlier}
    assert reads(model["t0/tuned"]) == {"images"}
    every = {keys[f"t{task}/{what}"] for task in range(3) for what in ("means", "spread")}
    assert reads(model["head"]) == {keys["t2/tuned"], *every}  # invariant 11: no images
    alone = learn(Mos, tmp_path / "fresh", tiny_stream(), **{**SMALL, **FREE})[1][-1]
    assert "images" not in reads(alone["head"]) and len(reads(alone["head"])) == 6
    assert all(reads(alone[f"t{task}/tuned"]) == {"images"} for task in range(3))


def rebuilt(tmp_path: Path, task: int, **settings: Any) -> set[int]:
    """The tasks whose adapter differs after a sample of `task` has gone; warm equals cold."""
    stream = tiny_stream()
    settings = {**SMALL, **settings}
    before = run_tiny(tmp_path / "warm", "mos", stream, **settings).figures["components"]
    rest = stream.without(stream.tasks[task].train.ids[:1])
    warm, cold = (run_tiny(tmp_path / home, "mos", rest, **settings).figures for home in ("warm", "cold"))
    assert warm["components"] == cold["components"]
    assert warm["components_built"] < cold["components_built"] or task == 0
    names = [name for name in before if name.endswith("adapter")]
    return {int(name[1]) for name in names if before[name] != warm["components"][name]}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {1, 2}),
        ({"merge": "anchor", "init": "anchor", "orth": "batch", "head": "fresh"}, {1}),
        (FREE, {1}),
        ({"one_adapter": True}, set()),
        (Mos.presets["mos_official"], {1, 2}),
    ],
)
def test_what_one_sample_of_task_1_rebuilds(tmp_path: Path, settings: dict[str, Any], expected: set[int]) -> None:
    assert rebuilt(tmp_path, 1, **settings) == expected


def test_a_sample_of_task_0_costs_everything_but_where_adapters_are_free(tmp_path: Path) -> None:
    assert rebuilt(tmp_path / "chain", 0) == {0, 1, 2}
    assert rebuilt(tmp_path / "free", 0, **FREE) == {0}


def test_a_class_or_a_task_may_go(tmp_path: Path) -> None:
    stream = tiny_stream()
    gone = {sample for sample, label in zip(stream.tasks[1].train.ids, stream.tasks[1].train.labels, strict=True)
            if label == "t1/c0"}  # fmt: skip
    for name, ids in {"class": gone, "task": set(stream.tasks[0].train.ids)}.items():
        rest = stream.without(ids)
        run_tiny(tmp_path / name, "mos", stream, **SMALL)
        warm, cold = (run_tiny(tmp_path / home, "mos", rest, **SMALL) for home in (name, f"{name}-cold"))
        assert warm.figures["components"] == cold.figures["components"]


def test_a_free_adapter_depends_on_no_other_task(tmp_path: Path) -> None:  # invariant 15
    stream = tiny_stream()
    whole = learn(Mos, tmp_path / "a", stream, **{**SMALL, **FREE})[1][-1]
    alone = learn(Mos, tmp_path / "b", stream.without(stream.tasks[0].train.ids), **{**SMALL, **FREE})[1][-1]
    assert alone["t2/tuned"]["adapter"].digest == whole["t2/tuned"]["adapter"].digest
    assert len(learn(Mos, tmp_path / "a", stream, **SMALL)[1][0]["head"].open()["weight"]) == 2  # no unseen rows


def test_evaluation_changes_no_component(tmp_path: Path) -> None:  # invariant 4
    stream = tiny_stream()
    mos, models = learn(Mos, tmp_path, stream, **SMALL)
    before = {name: part.digest for name, part in models[-1].parts}
    first = mos.scores(models[-1], stream.tasks[1].test).open()["scores"].clone()
    for task in (2, 0, 1):
        again = mos.scores(models[-1], stream.tasks[task].test).open()["scores"]
    assert same(first, again)
    part = stream.tasks[1].test.keep(stream.tasks[1].test.ids[1:3])
    assert same(mos.scores(models[-1], part).open()["scores"], first[1:3])  # another batch
    store = Store(tmp_path)
    assert all(
        store.load(handle.record, part.name) for handle in models[-1].entries.values() for part in handle.parts.values()
    )
    assert {name: part.digest for name, part in learn(Mos, tmp_path, stream, **SMALL)[1][-1].parts} == before


def test_retrieval_figures(tmp_path: Path) -> None:
    printed = run_tiny(tmp_path, "mos", **SMALL).as_json()
    found = printed["retrieval"]
    for name in ("before", "after", "rounds", "extra_passes"):
        assert [[value is None for value in row] for row in found[name]] == [
            [task > after for task in range(3)] for after in range(3)
        ]
    assert found["before"][0][0] == found["after"][0][0] == found["rounds"][0][0] == 1
    assert all(1 <= value <= 4 for row in found["rounds"] for value in row if value is not None)
    assert 24 <= found["needed"] <= found["made"] == printed["forward_passes"]["evaluate"] <= 3 * 24
    assert len(printed["distances"]["relative"]) == 3 and printed["distances"]["relative"][0] == [0.0, 0.0]


def test_no_block_runs_twice(tmp_path: Path) -> None:
    cold = run_tiny(tmp_path, "mos", **SMALL).figures
    assert cold["forward_passes"]["evaluate"] == cold["cost"]["evaluate"]["passes"]
    first = run_tiny(tmp_path, "mos", **SMALL, eval_pull="first").figures
    assert first["forward_passes"]["evaluate"] == 0  # its blocks were computed already
    assert first["inference"]["passes"] == first["inference"]["images"] == 24


def test_one_adapter_is_one_pass_and_no_retrieval(tmp_path: Path) -> None:
    result = run_tiny(tmp_path, "mos", **SMALL, one_adapter=True)
    assert result.figures["adapters"] == [1, 1, 1] and "retrieval" not in result.as_json()
    assert result.figures["inference"]["passes"] == result.figures["inference"]["images"]


def test_readings_differ_where_they_should(tmp_path: Path) -> None:
    def components(**change: Any) -> dict[str, str]:
        return dict(run_tiny(tmp_path, "mos", **{**SMALL, **change}).figures["components"])

    default = components()
    for change in (
        {"merge": "step13"},
        {"merge": "task_end"},
        {"merge": "none"},
        {"merge": "anchor"},
        {"init": "mbar"},
        {"orth": "batch"},
        {"reg": 0.0},
        {"head": "fresh"},
        {"spread": "variance"},
        {"ensemble": False},
        {"one_adapter": True},
        {"eval_pull": "official"},
        {"stats_pull": "official"},
        {"proto_dropout": True},
    ):
        assert components(**change) != default, change


def test_growth_is_the_formula(tmp_path: Path) -> None:  # section 11
    figures = run_tiny(tmp_path, "mos", **SMALL).figures
    d, r, classes = tiny_backbone().dim, 4, 2
    one = 2 * (2 * d * r + r + d) + classes * (2 * d + 1 + d + d * (d + 1) // 2)
    assert figures["adapters"] == [1, 2, 3] and figures["parameters_added"] == [one] * 3


def test_small_classes(tmp_path: Path) -> None:
    lonely = tiny_stream(3, train=1)
    result = run_tiny(tmp_path / "lonely", "mos", lonely, **SMALL)
    assert any("has one image" in line for line in result.figures["warnings"])
    run_tiny(tmp_path / "single", "mos", tiny_stream(3, classes=1), **SMALL)


def test_a_class_that_comes_back_is_refused(tmp_path: Path) -> None:
    mos = Mos(Mos.Hyper(**QUICK), builder(tmp_path))
    task = tiny_stream().tasks[0]
    with pytest.raises(BadInput, match="t0/c0"):
        mos.learn(task, Model().after(task, {}, False))


def test_every_preset_is_valid() -> None:
    assert Mos.presets.keys() == Mos.preset_notes.keys()
    for name in Mos.presets:
        resolve(Mos.Hyper, Mos.presets, [name], {})
    with pytest.raises(BadInput, match="merge"):
        cl.run(tiny_stream(), "mos", backbone=tiny_backbone(), settings={"merge": "twice"})
