"""Avalanche both ways. In one file, so that one process imports it: that takes seconds and a gigabyte."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from cl import registry
from cl.audit.verification import verify
from cl.data.recipes import resolve_stream
from cl.data.samples import Samples, concat
from cl.data.stream import Stream
from cl.errors import BadInput, UnknownName
from cl.home.results import Result
from cl.learning.features import backbone_features
from cl.learning.hyper import resolve
from cl.numerics import configure
from cl.running.run import run
from cl.seeds import Seeds, global_state
from cl.testing import StrategyConformance, StreamConformance, tiny_backbone, tiny_stream
from strategies import slda
from strategies.avalanche import avalanche_strategy
from strategies.avalanche.objects import avalanche_release, data_set, make_experience, make_strategy
from strategies.avalanche.settings import AvalancheMethod, SLDAHyper
from streams import from_avalanche, to_avalanche
from tests.deleting import forget_ids
from tests.homes import manifest
from tests.public_sets import write_mnist
from tests.tiny import BACKBONE

pytest.importorskip("avalanche")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:avalanche.*")

QUICK = {"epochs": 2, "batch_size": 8, "units": 6}
NAMES = [name for name in registry.strategies.names() if name.startswith("avalanche:")]


def settings(name: str, **more: Any) -> dict[str, Any]:
    return {"units": 6} if name.endswith("SLDA") else {**QUICK, **more}


def quick_run(home: Path, name: str, stream: Stream | None = None, **more: Any) -> Result:
    given = settings(name, **more)
    return run(stream or tiny_stream(), name, backbone=tiny_backbone(), settings=given, home=home, device="cpu")


# In.


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 + 20 scans in MNIST's own format."""
    return write_mnist(tmp_path_factory.mktemp("mnist") / "data")


class TestSplitMNIST(StreamConformance):
    """`avalanche:SplitMNIST` on a tiny file of MNIST's own format."""

    stream = "avalanche:SplitMNIST"

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _files(cls, mnist: Path) -> None:
        cls.arguments = {"data": str(mnist), "n_experiences": 5, "seed": 1}


@cache
def raw(data: Path, split: str = "train") -> np.ndarray:
    prefix = {"train": "train", "test": "t10k"}[split]
    content = (data / "MNIST" / "raw" / f"{prefix}-images-idx3-ubyte").read_bytes()
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)


def test_a_classic_benchmark_gives_raw_pixels_under_the_rows_of_its_data_set(mnist: Path) -> None:
    stream = resolve_stream("avalanche:SplitMNIST", mnist, arguments={"n_experiences": "2"})
    assert [len(task.classes) for task in stream.tasks] == [5, 5]
    for task in stream.tasks:
        for shard, split in ((task.train, "train"), (task.test, "test")):
            numbers = [int(sample.removeprefix(f"mnist/{split}/")) for sample in shard.ids]
            assert [label[0] for label in shard.labels] == [str(number % 10) for number in numbers]
            images = shard.images().numpy()
            assert (images == raw(mnist, split)[numbers][:, None]).all()  # not Avalanche's normalised ones


def test_ids_and_classes_do_not_depend_on_the_order(mnist: Path) -> None:
    streams = [
        resolve_stream("avalanche:SplitMNIST", mnist, arguments={"n_experiences": 5, **more})
        for more in ({"seed": 1}, {"seed": 2}, {"class_ids_from_zero_in_each_exp": True}, {"return_task_id": True})
    ]
    labels = [
        {s: label for task in stream.tasks for s, label in zip(task.train.ids, task.train.labels, strict=True)}
        for stream in streams
    ]
    assert [task.classes for task in streams[0].tasks] != [task.classes for task in streams[1].tasks]
    assert labels == [labels[0]] * 4


def test_permutations_are_samples_of_their_own_and_one_subject(mnist: Path) -> None:
    stream = resolve_stream("avalanche:PermutedMNIST", mnist, arguments={"n_experiences": 2, "seed": 0})
    first, second = (task.train for task in stream.tasks)
    assert stream.subjects[first.ids[0]] == stream.subjects[second.ids[0]] == "mnist/train/000000"
    images = [shard.images([0])[0, 0].numpy() for shard in (first, second)]
    assert not np.array_equal(images[0], images[1])
    assert all(np.array_equal(np.sort(image, None), np.sort(raw(mnist)[0], None)) for image in images)
    swapped = resolve_stream("avalanche:PermutedMNIST", mnist, arguments={"n_experiences": 2, "seed": 1})
    assert stream.ids.isdisjoint(swapped.ids)  # other permutations are other images


def bare(images: Tensor, labels: list[int]) -> Any:
    from avalanche.benchmarks.utils import as_classification_dataset

    data = TensorDataset(images, torch.tensor(labels))
    data.targets = labels
    return as_classification_dataset(data)


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(seed)).float() / 255


def test_ids_that_were_attached_before_splitting_win() -> None:
    from avalanche.benchmarks import class_incremental_benchmark
    from avalanche.benchmarks.utils import DataAttribute

    labels = [row % 4 for row in range(12)]
    sets = {}
    for split, seed in (("train", 0), ("test", 1)):
        names = DataAttribute([f"{split}-{'abcdefghijkl'[row]}" for row in range(12)], "sample_id")
        sets[split] = bare(pictures(12, seed), labels).update_data_attribute("sample_id", names)
    with Seeds("here").forked("benchmark"):  # Avalanche reseeds the global generator
        stream = from_avalanche(class_incremental_benchmark(sets, num_experiences=2, class_order=[2, 0, 3, 1]))
    assert [task.classes for task in stream.tasks] == [("0", "2"), ("1", "3")]
    assert stream.tasks[0].train.ids == ("train-a", "train-c", "train-e", "train-g", "train-i", "train-k")
    expected = (pictures(12)[[0, 2]] * 255).round().byte()
    assert torch.equal(stream.tasks[0].train.images([0, 1]), expected)


def test_a_shared_test_set_is_dealt_out_by_class() -> None:
    from avalanche.benchmarks import benchmark_from_datasets

    train = [bare(pictures(4, 0), [0, 1, 0, 1]), bare(pictures(4, 1), [2, 3, 2, 3])]
    stream = from_avalanche(benchmark_from_datasets(train=train, test=[bare(pictures(8, 2), [0, 1, 2, 3] * 2)]))
    assert [set(task.test.labels) for task in stream.tasks] == [{"0", "1"}, {"2", "3"}]
    assert len(stream.ids) == 16 and "first task" in stream.notes[0]


def test_task_labels_tell_equal_numbers_apart() -> None:
    from avalanche.benchmarks import benchmark_from_datasets, task_incremental_benchmark

    sets = [[bare(pictures(4, 2 * part + number), [0, 1, 0, 1]) for number in range(2)] for part in range(2)]
    for data in (*sets[0], *sets[1]):
        del data._flat_data._datasets[0].targets  # a data set that knows no classes of its own
    benchmark = task_incremental_benchmark(benchmark_from_datasets(train=sets[0], test=sets[1]))
    assert [task.classes for task in from_avalanche(benchmark).tasks] == [("0/0", "0/1"), ("1/0", "1/1")]


def test_domains_share_their_classes() -> None:
    from avalanche.benchmarks import benchmark_from_datasets

    sets = [[bare(pictures(4, 2 * part + number), [0, 1, 0, 1]) for number in range(2)] for part in range(2)]
    stream = from_avalanche(benchmark_from_datasets(train=sets[0], test=sets[1]))
    assert [task.id for task in stream.tasks] == ["task-00", "task-01"]
    assert stream.classes == ("0", "1")


def test_normalised_images_are_refused_in_one_line() -> None:
    from avalanche.benchmarks import benchmark_from_datasets

    data = [bare(pictures(4) * 2 - 1, [0, 1, 0, 1])]
    with pytest.raises(BadInput, match="without Normalize"):
        from_avalanche(benchmark_from_datasets(train=data, test=data))


def test_what_is_wrong_with_a_classic_benchmark_is_one_line(mnist: Path, tmp_path: Path) -> None:
    for data, arguments, message in (
        (None, {"n_experiences": 5}, "needs --data"),
        (mnist, {}, "needs n_experiences; give it as --set n_experiences="),
        (mnist, {"n_experiences": "x"}, "n_experiences = 'x': input should be a valid integer"),
        (mnist, {"n_experience": 5}, "takes no n_experience"),
        (mnist, {"n_experiences": 3}, "cannot be made from"),
    ):
        with pytest.raises(BadInput, match=message):
            resolve_stream("avalanche:SplitMNIST", data, arguments=arguments)
    with pytest.raises(UnknownName, match="did you mean avalanche:SplitMNIST"):
        resolve_stream("avalanche:SplitMNSIT", mnist)


# Out.


def test_a_round_trip_keeps_ids_labels_and_order() -> None:
    stream = tiny_stream()
    benchmark = to_avalanche(stream)
    back = from_avalanche(benchmark)
    assert [task.classes for task in back.tasks] == [task.classes for task in stream.tasks]
    for task, again in zip(stream.tasks, back.tasks, strict=True):
        for shard, other in ((task.train, again.train), (task.test, again.test)):
            assert (other.ids, other.labels) == (shard.ids, shard.labels)
            assert torch.equal(other.images(), shard.images())
    for task, experience in zip(stream.tasks, benchmark.train_stream, strict=True):
        assert tuple(experience.dataset.sample_id) == task.train.ids
        assert experience.classes_in_this_experience == {stream.classes.index(name) for name in task.classes}


# Their strategies as baselines.


def by_hand(kind: str, given: dict[str, Any]) -> list[Tensor]:
    """Scores on the first task's test images after each task, by Avalanche alone: one object that lives on, the seeds
    of our builds, features as images."""
    stream, method = tiny_stream(), method_of(kind, given)
    made, found, known = None, [], 0
    for number, task in enumerate(stream.tasks):
        seeds = Seeds(f"0|{task.id}/state")
        with warnings.catch_warnings(record=True):
            if made is None:
                with seeds.forked("init"):
                    made = make_strategy(method, tiny_backbone(), configure("cpu"))
            experience = in_features(task.train, stream.classes, number, "train")
            with seeds.forked("train"):
                made.train(experience, eval_streams=[])
        known += len(task.classes)
        made.model.eval()
        with torch.no_grad():
            scores = made.model(backbone_features(stream.tasks[0].test, backbone=tiny_backbone())["features"])
            found.append((made.predict(scores) if kind == "SLDA" else scores)[:, :known])
        made.model.train()
    return found


def method_of(kind: str, given: dict[str, Any]) -> AvalancheMethod:
    """The baseline, as its builds get it."""
    settings = resolve(registry.strategies.get(f"avalanche:{kind}").Hyper, {}, [], given)
    return AvalancheMethod(kind, settings, avalanche_release())


def in_features(shard: Samples, classes: Sequence[str], number: int, stream: str) -> Any:
    """An Avalanche experience over our features of a shard of `tiny_stream`."""
    features = backbone_features(shard, backbone=tiny_backbone())["features"]
    data = data_set(features, shard.targets(classes).tolist(), shard.ids)
    experience = make_experience(data, number, 2 * number, units=6)
    experience.origin_stream.name = stream
    return experience


CONTINUED = [name.partition(":")[2] for name in NAMES if name not in ("avalanche:Joint", "avalanche:Cumulative")]


@pytest.mark.parametrize("kind", CONTINUED)
@pytest.mark.parametrize("hidden", [0, 16])
def test_going_on_from_what_was_stored_equals_never_stopping(kind: str, hidden: int, tmp_path: Path) -> None:
    """Each baseline's stored state is all of its state: the scores are bit for bit those of one Avalanche object."""
    if kind == "SLDA" and hidden:
        pytest.skip("SLDA trains no layer")
    remembers = "mem_size" in registry.strategies.get(f"avalanche:{kind}").Hyper.__dataclass_fields__
    more = {} if kind == "SLDA" else {"hidden": hidden, **({"mem_size": 7} if remembers else {})}
    expected = by_hand(kind, settings(kind, **more))
    result = quick_run(tmp_path, f"avalanche:{kind}", **more)
    ours = scores_on_first(tmp_path, f"avalanche:{kind}", more)
    assert all(torch.equal(one, other) for one, other in zip(expected, ours, strict=True))
    targets = tiny_stream().tasks[0].test.targets(tiny_stream().classes)
    right = [float((one.argmax(1) == targets).float().mean()) for one in ours]
    assert right == [row[0] for row in result.figures["accuracy"]]


def scores_on_first(home: Path, name: str, more: dict[str, Any]) -> list[Tensor]:
    from cl.learning.strategy import Model
    from cl.running.run import assembled

    strategy = assembled(name, backbone=tiny_backbone(), settings=settings(name, **more), home=home, device="cpu")
    model, found, tasks = Model(), [], tiny_stream().tasks
    for number, task in enumerate(tasks):
        model = strategy.extended(model, task, len(tasks) - number - 1)
        found.append(strategy.scores(model, tasks[0].test).open()["scores"])
    return found


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("SLDA")])
@pytest.mark.slow
def test_every_baseline_runs_over_images_twice_alike(name: str, tmp_path: Path) -> None:
    before = global_state()
    manifests = [quick_run(tmp_path / place, name, over="images").figures["manifest"] for place in ("a", "b")]
    assert manifests[0] == manifests[1] and global_state() == before


class TestNaive(StrategyConformance):
    strategy = "avalanche:Naive"
    settings = QUICK


class TestReplay(StrategyConformance):
    strategy = "avalanche:Replay"
    settings = {**QUICK, "mem_size": 7}


class TestSLDA(StrategyConformance):
    strategy = "avalanche:SLDA"
    settings = {"units": 6}


for _name in ("Cumulative", "Joint", "EWC", "LwF", "DER", "ER_ACE", "GDumb", "iCaRL"):
    _body = {"strategy": f"avalanche:{_name}", "settings": QUICK, "__module__": __name__}
    globals()[f"Test{_name}"] = pytest.mark.slow(type(f"Test{_name}", (StrategyConformance,), _body))


def test_figures_equal_those_of_avalanches_evaluation(tmp_path: Path) -> None:
    """Naive in Avalanche's own train and eval, watched by its EvaluationPlugin, against our run."""
    from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics
    from avalanche.training.plugins import EvaluationPlugin

    ours = quick_run(tmp_path, "avalanche:Naive").figures
    stream, watch = tiny_stream(), EvaluationPlugin(accuracy_metrics(experience=True), forgetting_metrics(stream=True))
    method, made, matrix = method_of("Naive", QUICK), None, []
    tests = [in_features(task.test, stream.classes, number, "test") for number, task in enumerate(stream.tasks)]
    for number, task in enumerate(stream.tasks):
        seeds = Seeds(f"0|{task.id}/state")
        with warnings.catch_warnings(record=True):
            if made is None:
                with seeds.forked("init"):
                    made = make_strategy(method, tiny_backbone(), configure("cpu"))
                made.plugins[made.plugins.index(made.evaluator)] = watch
                made.evaluator = watch
            with seeds.forked("train"):
                made.train(in_features(task.train, stream.classes, number, "train"), eval_streams=[])
            with seeds.forked("eval"):
                found = made.eval(tests)
        keys = [f"Top1_Acc_Exp/eval_phase/test_stream/Task000/Exp{place:03d}" for place in range(3)]
        matrix.append([found[key] if place <= number else None for place, key in enumerate(keys)])
    assert matrix == [[pytest.approx(value) for value in row] for row in ours["accuracy"]]
    assert found["StreamForgetting/eval_phase/test_stream"] == pytest.approx(ours["forgetting"])


def test_slda_of_theirs_and_ours_say_the_same() -> None:
    """On real digits; theirs depends on the order of the images, ours does not."""
    stream = resolve_stream("split-digits")
    classes = list(stream.classes)
    method = method_of("SLDA", {"units": len(classes)})
    theirs, tasks = make_strategy(method, tiny_backbone(), configure("cpu")), []
    for number, task in enumerate(stream.tasks):
        features = backbone_features(task.train, backbone=tiny_backbone())
        data = data_set(features["features"], task.train.targets(classes).tolist(), task.train.ids)
        with warnings.catch_warnings(record=True), Seeds("slda").forked("train"):
            theirs.train(make_experience(data, number, 2 * number, len(classes)), eval_streams=[])
        tasks.append(slda.moments(task.train, features, classes=list(task.classes)))
    columns = [[classes.index(name) for name in task.classes] for task in stream.tasks]
    head = slda.shrunk_discriminant(tasks, columns=columns, shrinkage=SLDAHyper().shrinkage)
    test = concat([task.test for task in stream.tasks])
    features = backbone_features(test, backbone=tiny_backbone())
    pair = theirs.predict(features["features"]).argmax(1), slda.discriminant_scores(features, head)["scores"].argmax(1)
    right = [float((one == test.targets(classes)).float().mean()) for one in pair]
    assert min(right) > 0.6 and abs(right[0] - right[1]) < 0.03
    assert float((pair[0] == pair[1]).float().mean()) > 0.95


def test_too_few_outputs_and_refused_strategies_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="4 outputs, but there are 6 classes; --set units=12"):
        quick_run(tmp_path, "avalanche:Naive", units=4)
    with pytest.raises(BadInput, match="an argument that today's torch has no more"):
        quick_run(tmp_path, "avalanche:BiC")
    with pytest.raises(UnknownName, match="did you mean avalanche:Replay"):
        quick_run(tmp_path, "avalanche:Replya")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["avalanche:Replay", "avalanche:EWC", "avalanche:iCaRL", "slda"])
def test_a_deletion_is_verified_against_a_cold_run(name: str, tmp_path: Path) -> None:
    """A sample of the middle task: the oracle's processes import Avalanche too."""
    known = registry.strategies.get(name).Hyper.__dataclass_fields__
    given = {key: value for key, value in QUICK.items() if key in known}
    run_id = run(tiny_stream(), name, backbone=BACKBONE, settings=given, home=tmp_path).figures["run"]
    outcome = forget_ids(tmp_path, run_id, {tiny_stream().tasks[1].train.ids[0]})
    assert verify(tmp_path, outcome.request).grade == "E0"


def test_a_memory_names_its_samples(tmp_path: Path) -> None:
    from cl.home.store import Store

    quick_run(tmp_path, "avalanche:Replay", mem_size=6)
    store = Store(tmp_path)
    (entry,) = (one for one in manifest(tmp_path).entries if one.name == "state")
    record = store.find(entry.key)
    assert record is not None
    plan = bytes(store.load(record, "")["plan"].tolist()).decode()
    held = [sample for sample in sorted(tiny_stream().ids) if f'"{sample}"' in plan]
    assert len(held) == 6 and {int(sample.split("/")[2]) < 8 for sample in held} == {True}


# Our strategies in their loop.


def test_our_strategy_in_avalanches_loop_gives_our_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from avalanche.evaluation.metrics import accuracy_metrics, forgetting_metrics, loss_metrics
    from avalanche.logging import InteractiveLogger
    from avalanche.training.plugins import EvaluationPlugin

    expected = run(tiny_stream(), "simplecil", backbone=tiny_backbone(), home=tmp_path / "run", device="cpu")
    benchmark = to_avalanche(tiny_stream())
    watched = accuracy_metrics(experience=True, stream=True), forgetting_metrics(stream=True), loss_metrics(stream=True)
    evaluator = EvaluationPlugin(*watched, loggers=[InteractiveLogger()])
    before = global_state()
    strategy = avalanche_strategy(
        "simplecil",
        from_avalanche(benchmark),
        backbone=tiny_backbone(),
        home=tmp_path / "loop",
        device="cpu",
        evaluator=evaluator,
        eval_mb_size=3,
    )
    for number, experience in enumerate(benchmark.train_stream):
        strategy.train(experience)
        found = strategy.eval(benchmark.test_stream)
        row = [value for key, value in sorted(found.items()) if key.startswith("Top1_Acc_Exp/eval_phase/test_stream")]
        assert row[: number + 1] == pytest.approx(expected.figures["accuracy"][number][: number + 1])
    assert found["StreamForgetting/eval_phase/test_stream"] == pytest.approx(expected.figures["forgetting"])
    assert global_state() == before
    assert "Top1_Acc_Stream" in capsys.readouterr().out


# Without it.


def test_nothing_else_loads_avalanche(tmp_path: Path) -> None:
    commands = [["--help"], ["list", "--json"], ["describe", "avalanche:SLDA", "--json"], ["describe", "slda"]]
    lines = ["import sys, cl, cl.cli, strategies, streams"]
    lines += [f"sys.argv = ['palimpsest', *{words}]\ntry: cl.cli.main()\nexcept SystemExit: pass" for words in commands]
    lines += ["cl.run('cl.testing:tiny_stream', 'simplecil', backbone='random:test_vit', home=sys.argv[-1])"]
    lines += ["assert 'strategies.avalanche' in sys.modules and 'avalanche' not in sys.modules"]
    script = "\n".join(lines).replace("sys.argv[-1]", repr(str(tmp_path)))
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=Path(__file__).parents[1])


def test_without_avalanche_one_line_names_the_mend(
    monkeypatch: pytest.MonkeyPatch, mnist: Path, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "avalanche", None)
    with pytest.raises(BadInput, match=r"pip install 'palimpsest-cl\[avalanche\]'"):
        resolve_stream("avalanche:SplitMNIST", mnist, arguments={"n_experiences": 5})
