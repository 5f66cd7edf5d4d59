"""What every strategy promises, as a pytest class to subclass."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from cl.components import checkpoint
from cl.components.builder import Builder
from cl.components.checkpoint import Checkpoint
from cl.data.samples import ArrayPixels, Samples
from cl.data.stream import Stream, Task
from cl.deletion.oracle import with_noise
from cl.deletion.taint import closure
from cl.digests import digest_bytes, digest_tensors
from cl.home.records import Manifest
from cl.home.runs import Runs, read_manifest
from cl.home.shards import Traces
from cl.home.store import Store
from cl.learning.hyper import resolve
from cl.learning.strategy import Model, Strategy, strategy_of
from cl.models.vit import TimmBackbone
from cl.numerics import configure
from cl.running.classifier import open as open_model
from cl.running.run import run
from cl.seeds import global_state
from cl.testing.tiny import tiny_backbone, tiny_stream


def contents(home: Path) -> dict[str, str]:
    """Key -> digest of the blob's bytes, for everything in the store."""
    return {path.stem: digest_bytes(path.read_bytes()) for path in sorted((home / "store").rglob("*.safetensors"))}


def observed(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What must not depend on data that the run's user cannot read: all but times and counts of work."""
    work = ("seconds", "cost", "inference", "components_built", "components_reused", "forward_passes")
    told = {k: v for k, v in figures.items() if k not in (*work, "peak_memory_bytes", "created")}
    online = told.pop("online", {})
    met = {k: v for k, v in online.get("test_time", {}).items() if k != "per_image"}
    return {**told, **online, "test_time": met}


class Interrupted(BaseException):
    """Stands for a kill: no handler of the engine may swallow it."""


class StrategyConformance:
    """What every strategy promises. Subclass it and set `strategy`; the other attributes have small defaults."""

    strategy: ClassVar[str | type[Strategy]]
    stream: ClassVar[Stream] = tiny_stream()
    backbone: ClassVar[TimmBackbone] = tiny_backbone()
    presets: ClassVar[Sequence[str]] = ()
    settings: ClassVar[Mapping[str, Any]] = {}
    seed: ClassVar[int] = 0
    viewer: ClassVar[str] = "alice"  # a user who reads a part of the stream

    @pytest.fixture(scope="class")
    @classmethod
    def straight(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A home with one undisturbed run. Tests read it, or work on a copy."""
        home = tmp_path_factory.mktemp("straight") / "home"
        cls._run(home)
        return home

    @pytest.fixture
    def warm(self, straight: Path, tmp_path: Path) -> Path:
        """A copy of the undisturbed run's home."""
        return Path(shutil.copytree(straight, tmp_path / "warm"))

    def test_same_seed_gives_the_same_bytes(self, straight: Path, tmp_path: Path) -> None:
        self._run(tmp_path)
        assert contents(tmp_path) == contents(straight)
        assert self._manifest(tmp_path) == self._manifest(straight)

    def test_a_warm_run_builds_nothing(self, straight: Path, warm: Path) -> None:
        assert self._run(warm)["components_built"] == 0
        assert self._manifest(warm) == self._manifest(straight)

    def test_an_interrupted_run_resumes_to_the_same_manifest(self, straight: Path, tmp_path: Path) -> None:
        total = len(contents(straight))
        for builds in (1, total // 2):
            with pytest.raises(Interrupted), _interrupt(Builder, "_build", after=builds):
                self._run(tmp_path)
        self._run(tmp_path)
        assert self._manifest(tmp_path) == self._manifest(straight)

    def test_an_interrupted_build_resumes_to_the_same_bytes(
        self, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoint, "CHECKPOINT_SECONDS", 0.0)
        for _ in range(100):  # each attempt gets one checkpoint further
            try:
                with _interrupt(Checkpoint, "save", after=1):
                    self._run(tmp_path)
                break
            except Interrupted:
                continue
        assert contents(tmp_path) == contents(straight)
        assert not list((tmp_path / "checkpoints").glob("*"))

    def test_forgetting_equals_a_run_that_never_saw_the_data(self, straight: Path, tmp_path: Path) -> None:
        for number, forgotten in enumerate(self._forget_sets()):
            warm, cold = Path(shutil.copytree(straight, tmp_path / f"warm-{number}")), tmp_path / f"cold-{number}"
            rest = self.stream.without(forgotten)
            assert self._run(warm, rest)["components"] == self._run(cold, rest)["components"]

    def test_a_removed_task_leaves_what_does_not_depend_on_it(self, straight: Path, warm: Path) -> None:
        for task in (self.stream.tasks[len(self.stream.tasks) // 2], self.stream.tasks[-1]):
            gone = {*task.train.ids, *task.test.ids}
            before = self._independent(straight, task.train, task.test)
            self._run(warm, self.stream.without(gone))
            after = self._uses(warm)
            moved = {name for name, key in before if name in {name for name, _ in after} and (name, key) not in after}
            assert not moved, f"without {task.id}, {sorted(moved)} changed, though their lineage does not hold it"

    def test_nothing_is_read_that_is_not_declared(self, straight: Path, tmp_path: Path) -> None:
        first, last = self.stream.tasks[0], self.stream.tasks[-1]
        for number, shard in enumerate((first.train, last.test)):
            home = tmp_path / str(number)
            self._run(home, _poisoned(self.stream, shard))
            before, after = contents(straight), contents(home)
            for name, key in self._independent(straight, shard):
                assert after.get(key) == before[key], f"'{name}' changed with a shard that it does not declare to read"

    def test_a_users_view_is_a_run_that_never_saw_the_rest(self, warm: Path, tmp_path: Path) -> None:
        user, stream = self.viewer, self.stream
        hidden = {sample for sample in stream.ids if not stream.policy.reads(user, stream.access.get(sample, ()))}
        assert hidden and hidden != stream.ids, f"give the stream labels and a policy under which {user} reads a part"
        seen = observed(self._run(warm, user=user))
        # A cold store, and noise for what is hidden: nothing of it can be in the bytes, nor in what the store had.
        noise, other = with_noise(stream, hidden), with_noise(stream, stream.ids - hidden)
        assert observed(self._run(tmp_path / "cold", noise, user=user)) == seen
        assert observed(self._run(tmp_path / "other", other, user=user)) != seen

    def test_who_may_read_nothing_learns_nothing(self, tmp_path: Path) -> None:
        runs = [self._run(tmp_path / user, user=user) for user in ("nobody", "stranger")]
        assert [one["components"] for one in runs] == [{}, {}] and not any(one["tasks"] for one in runs)

    def test_no_global_generator_is_moved(self, tmp_path: Path) -> None:
        before = global_state()
        self._run(tmp_path)
        assert global_state() == before

    def test_a_learnt_entry_never_changes(self, tmp_path: Path) -> None:
        strategy, model = self._fresh(tmp_path), Model()
        tasks = self.stream.tasks
        for position, task in enumerate(tasks):
            model = strategy.extended(model, task, len(tasks) - position - 1)
            for name, handle in model.entries.items():
                for part in handle.parts.values():
                    assert digest_tensors(part.open()) == part.digest, f"'{name}' was changed in memory by {task.id}"

    def test_scores_have_a_finite_column_for_every_class(self, warm: Path) -> None:
        strategy, model = self._learnt(warm)
        for task in self.stream.tasks:
            scores = self._scores(strategy, model, task.test)
            assert scores.shape == (len(task.test), len(model.classes))
            assert scores.dtype.is_floating_point and torch.isfinite(scores).all()

    def test_a_visitors_images_get_the_same_scores_and_leave_no_trace(self, warm: Path) -> None:
        strategy, model = self._learnt(warm)
        test = self.stream.tasks[0].test
        pixels = test.images().permute(0, 2, 3, 1).numpy()
        files = sorted(warm.rglob("*"))
        visiting = Samples.visiting(pixels, test.ids)  # without labels: scores must not read them
        for _ in range(2):
            assert torch.equal(self._scores(strategy, model, visiting), self._scores(strategy, model, test))
        assert sorted(warm.rglob("*")) == files

    def test_a_finished_run_opens_from_its_manifest(self, warm: Path) -> None:
        """Scores need the model's entries and its table of tasks: no image, nothing that the strategy remembers."""
        strategy, model = self._finished(warm)
        pixels = self.stream.tasks[0].test.images()
        visiting = Samples.visiting(pixels.permute(0, 2, 3, 1).numpy())
        files, (run_id,) = sorted(warm.rglob("*")), Runs(Store(warm)).ids()
        opened = open_model(run_id, warm, backbone=self.backbone)
        assert opened.tasks and opened.components == {name: part.digest for name, part in model.parts}
        assert torch.equal(opened.scores(pixels), self._scores(strategy, model, visiting))
        assert sorted(warm.rglob("*")) == files

    @classmethod
    def _run(cls, home: Path, stream: Stream | None = None, user: str | None = None) -> Mapping[str, Any]:
        result = run(
            stream or cls.stream,
            cls.strategy,
            backbone=cls.backbone,
            seed=cls.seed,
            presets=cls.presets,
            settings=cls.settings,
            home=home,
            device="cpu",
            user=user,
        )
        return result.figures

    def _manifest(self, home: Path) -> Manifest:
        (path,) = home.glob("runs/*/manifest.json")
        return read_manifest(path, "run it again")

    def _uses(self, home: Path) -> set[tuple[str, str]]:
        return {(use.name, use.key) for use in self._manifest(home).uses}

    def _independent(self, home: Path, *shards: Samples) -> list[tuple[str, str]]:
        """(name, key) of every component of the run that was built from none of these samples."""
        names = frozenset((shard.origin.stream, sample) for shard in shards for sample in shard.ids)
        tainted = closure(Store(home), Traces(names)).components
        return sorted((name, key) for name, key in self._uses(home) if key not in tainted)

    def _forget_sets(self) -> list[set[str]]:
        """A few samples anywhere, and one class of the first task with some of the last task's images."""
        every = sorted(self.stream.ids)
        draw = random.Random(0)
        first, last = self.stream.tasks[0], self.stream.tasks[-1]
        of_class = {
            s for s, label in zip(first.train.ids, first.train.labels, strict=True) if label == first.classes[0]
        }
        return [set(draw.sample(every, max(1, len(every) // 20))), of_class | {last.train.ids[0], last.test.ids[0]}]

    def _fresh(self, home: Path) -> Strategy:
        method = strategy_of(self.strategy) if isinstance(self.strategy, str) else self.strategy
        hyper: Any = resolve(method.Hyper, method.presets, list(self.presets), self.settings)
        return method(hyper, Builder(Store(home), self.backbone, configure("cpu"), self.seed))

    def _learnt(self, home: Path) -> tuple[Strategy, Model]:
        strategy, model = self._fresh(home), Model()
        for position, task in enumerate(self.stream.tasks):
            model = strategy.extended(model, task, len(self.stream.tasks) - position - 1)
        return strategy, model

    def _finished(self, home: Path) -> tuple[Strategy, Model]:
        """The strategy, and the model that a run comes to."""
        return self._learnt(home)

    def _scores(self, strategy: Strategy, model: Model, samples: Samples) -> Tensor:
        return strategy.scores(model, samples).open()["scores"]


class _interrupt:
    """Raise Interrupted when `owner.name` has returned `after` times."""

    def __init__(self, owner: type, name: str, after: int) -> None:
        self.owner, self.name, self.left = owner, name, after
        self.original = getattr(owner, name)

    def __enter__(self) -> None:
        def counted(this: Any, *args: Any, **kwargs: Any) -> Any:
            found = self.original(this, *args, **kwargs)
            self.left -= 1
            if not self.left:
                raise Interrupted
            return found

        setattr(self.owner, self.name, counted)

    def __exit__(self, *_: object) -> None:
        setattr(self.owner, self.name, self.original)


def _poisoned(stream: Stream, shard: Samples) -> Stream:
    """The stream with every pixel of `shard` inverted and its labels given to one another."""
    images = 255 - shard.images().permute(0, 2, 3, 1).numpy()
    labels = dict(zip(shard.ids, [*shard.labels[1:], shard.labels[0]], strict=True))
    poison = Samples.of(labels, ArrayPixels(shard.ids, images), shard.augment)

    def swapped(task: Task) -> Task:
        train = poison if task.train is shard else task.train
        return replace(task, train=train, test=poison if task.test is shard else task.test)

    return replace(stream, tasks=tuple(swapped(task) for task in stream.tasks))
