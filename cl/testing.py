"""The conformance suite: what every strategy and every stream promises, as pytest classes to subclass.

    class TestMine(StrategyConformance):
        strategy = "mine"                 # a registered name, or the class
        settings = {"epochs": 2}

    class TestShapes(StreamConformance):
        stream = "shapes"                 # a registered name, or a factory whose recipe another process can replay

Ours run it by being registered. A strategy runs over `tiny_stream()` on `tiny_backbone()` unless it sets its own.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from cl.components import checkpoint
from cl.components.builder import Builder
from cl.components.checkpoint import Checkpoint
from cl.data import veil
from cl.data.augment import crop_flip, crops
from cl.data.policy import Policy
from cl.data.recipes import content_digest, resolve_stream
from cl.data.samples import ArrayPixels, Samples, concat
from cl.data.stream import Recipe, Segment, Stream, Task
from cl.deletion.oracle import with_noise
from cl.deletion.taint import closure
from cl.digests import digest_bytes, digest_tensors
from cl.home.store import Store
from cl.learning.hyper import resolve
from cl.learning.strategy import Model, Strategy, strategy_of
from cl.models.vit import TimmBackbone
from cl.numerics import configure
from cl.running.run import run
from cl.seeds import Seeds, global_state


def tiny_backbone(seed: int = 0) -> TimmBackbone:
    """A vision transformer of two blocks, width 32, on 32 x 32 images, with random weights: fast, and no use else."""
    with Seeds(f"tiny backbone|{seed}").forked("init"):
        network = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)
    return TimmBackbone("tiny", network, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def tiny_stream(tasks: int = 3, train: int = 8, test: int = 4) -> Stream:
    """`tasks` tasks of two classes, `train` + `test` noisy 32 x 32 images a class, four people, two access labels.

    alice holds one of the labels, bob both, dave none.
    """
    made = [_tiny_task(number, train, test) for number in range(tasks)]
    ids = sorted(sample for task in made for shard in (task.train, task.test) for sample in shard.ids)
    return Stream(
        "tiny",
        tuple(made),
        Recipe("cl.testing:tiny_stream", {"tasks": tasks, "train": train, "test": test}),
        subjects={sample: f"person-{row % 4}" for row, sample in enumerate(ids)},
        access={sample: ("ward-a",) if row % 2 else ("ward-b",) for row, sample in enumerate(ids)},
        policy=Policy("any", {"alice": ("ward-a",), "bob": ("ward-a", "ward-b"), "dave": ()}),
    )


def _tiny_task(number: int, train: int, test: int) -> Task:
    classes = (f"class-{2 * number}", f"class-{2 * number + 1}")
    shards = {}
    for split, count in (("train", train), ("test", test)):
        labels = {f"{split}/{name}/{row:02d}": name for name in classes for row in range(count)}
        images = np.stack([_tiny_image(sample, name) for sample, name in labels.items()])
        shards[split] = Samples.of(labels, ArrayPixels(list(labels), images))
    return Task(f"task-{number}", classes, shards["train"], shards["test"])


def _tiny_image(sample: str, name: str) -> np.ndarray:
    """The class's own pattern of 4 x 4 squares, and noise of the sample's own."""
    pattern = _noise(name, 4).repeat(8, axis=0).repeat(8, axis=1)
    return (0.7 * pattern + 0.3 * _noise(sample, 32)).astype(np.uint8)


def _noise(name: str, side: int) -> np.ndarray:
    generator = Seeds(name).generator("pixels")
    return torch.randint(0, 256, (side, side, 3), generator=generator).numpy()


CONDITIONS = ("noise", "dark", "blur")


def tiny_drift(rounds: int = 1, batches: int = 2, size: int = 4, conditions: Sequence[str] = CONDITIONS) -> Stream:
    """One task of two classes as source split, and `rounds` times a segment under each condition, of new images."""
    source = tiny_stream(1, 12, 6)
    segments = [
        tiny_segment(f"r{number:02d}/{name}/5", name, batches, size) for number in range(rounds) for name in conditions
    ]
    arguments = {"rounds": rounds, "batches": batches, "size": size, "conditions": list(conditions)}
    ids = sorted(sample for segment in segments for sample in segment.samples.ids)
    subjects = {sample: f"person-{row % 4}" for row, sample in enumerate(ids)}
    return Stream(
        "tiny-drift",
        source.tasks,
        Recipe("cl.testing:tiny_drift", arguments),
        {**source.subjects, **subjects},
        {**source.access, **{sample: ("ward-a", "ward-b")[row % 2 :][:1] for row, sample in enumerate(ids)}},
        segments=tuple(segments),
        policy=source.policy,
    )


def tiny_segment(name: str, condition: str, batches: int, size: int) -> Segment:
    """Test images of the tiny stream under a condition, each another time, dealt out to batches of both classes."""
    test = _tiny_task(0, 1, 6).test
    clean = test.images().permute(0, 2, 3, 1).numpy()
    ids = [f"{name}/{row:03d}" for row in range(batches * size)]
    pictures = sorted(range(len(clean)), key=lambda row: row % 6 // 2)  # two of a class, two of the other
    shown = {sample: pictures[row % len(clean)] for row, sample in enumerate(ids)}
    images = np.stack([_corrupted(clean[row], condition, sample) for sample, row in shown.items()])
    labels = {sample: test.labels[row] for sample, row in shown.items()}
    pixels = ArrayPixels(ids, images)
    chunks = {f"{name}/b{number:04d}": ids[number::batches] for number in range(batches)}
    held = {key: Samples.of({sample: labels[sample] for sample in chunk}, pixels) for key, chunk in chunks.items()}
    return Segment(name, condition, held)


def _corrupted(image: np.ndarray, condition: str, sample: str) -> np.ndarray:
    grain = torch.randn(image.shape, generator=Seeds("drift").generator(condition, sample)).numpy()
    if condition == "noise":
        changed = image + 60 * grain
    elif condition == "dark":
        changed = 0.3 * image + 4 * grain
    else:
        changed = np.mean([np.roll(image, step, 0) for step in (-2, 0, 2, 4)], axis=0) + 4 * grain
    return np.asarray(changed).clip(0, 255).astype(np.uint8)


def contents(home: Path) -> dict[str, str]:
    """Key -> digest of the blob's bytes, for everything in the store."""
    return {path.stem: digest_bytes(path.read_bytes()) for path in sorted((home / "store").rglob("*.safetensors"))}


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
        seen = self._observed(self._run(warm, user=user))
        # A cold store, and noise for what is hidden: nothing of it can be in the bytes, nor in what the store had.
        noise, other = with_noise(stream, hidden), with_noise(stream, stream.ids - hidden)
        assert self._observed(self._run(tmp_path / "cold", noise, user=user)) == seen
        assert self._observed(self._run(tmp_path / "other", other, user=user)) != seen

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

    def _observed(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """What must not depend on data that the run's user cannot read: all but times and counts of work."""
        work = ("seconds", "cost", "inference", "components_built", "components_reused", "forward_passes")
        told = {k: v for k, v in figures.items() if k not in (*work, "peak_memory_bytes", "created")}
        online = told.pop("online", {})
        met = {k: v for k, v in online.get("test_time", {}).items() if k != "per_image"}
        return {**told, **online, "test_time": met}

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

    def _manifest(self, home: Path) -> Any:
        (path,) = home.glob("runs/*/manifest.json")
        return json.loads(path.read_bytes())

    def _uses(self, home: Path) -> set[tuple[str, str]]:
        return {(name, key) for name, key in self._manifest(home)["uses"]}

    def _independent(self, home: Path, *shards: Samples) -> list[tuple[str, str]]:
        """(name, key) of every component of the run that was built from none of these samples."""
        samples = {one: content for shard in shards for one, content in zip(shard.ids, shard.contents, strict=True)}
        tainted = closure(Store(home), samples).components
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

    def _scores(self, strategy: Strategy, model: Model, samples: Samples) -> Tensor:
        return strategy.scores(model, samples).open()["scores"]


class OnlineConformance(StrategyConformance):
    """What every strategy promises where the stream goes on at test time. Subclass it as `StrategyConformance`."""

    stream: ClassVar[Stream] = tiny_drift(2, 2, 2, CONDITIONS[:2])

    def test_nothing_is_learnt_from_labels_or_names(
        self, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Other labels, ids, segments and domains behind the same opaque keys: every byte that was built stays."""
        opaque = veil.opaque
        monkeypatch.setattr(veil, "opaque", lambda name: opaque(name.removeprefix(RENAMED)))
        self._run(tmp_path, replace(self.stream, segments=tuple(map(_renamed, self.stream.segments)), subjects={}))
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

    def _components(self, home: Path, segment: Segment) -> set[tuple[str, str]]:
        """(name, key) of what was built for a segment."""
        return {(name, key) for name, key in self._uses(home) if name.startswith(segment.id)}

    def _adapted(self, home: Path) -> set[str]:
        """Digests of all parts of what strategies built, judged predictions left out."""
        records = [Store(home).record(key) for _, key in self._uses(home)]
        mine = [record for record in records if not record.build.endswith("online_predictions")]
        return {part["digest"] for record in mine for part in record.parts.values()}


RENAMED = "renamed/"


def _renamed(segment: Segment) -> Segment:
    """The segment under other ids, another domain and other labels; the images stay."""
    batches = {}
    for name, batch in segment.batches.items():
        ids = [f"{RENAMED}{sample}" for sample in batch.ids]
        labels = [*batch.labels[1:], batch.labels[0]]
        pixels = ArrayPixels(ids, batch.images().permute(0, 2, 3, 1).numpy())
        batches[f"{RENAMED}{name}"] = Samples.of(dict(zip(ids, labels, strict=True)), pixels)
    return Segment(f"{RENAMED}{segment.id}", "another domain", batches)


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


class StreamConformance:
    """What every stream promises. Subclass it and set `stream`, and `arguments` if its factory needs any."""

    stream: ClassVar[str | Callable[..., Stream]]
    arguments: ClassVar[Mapping[str, Any]] = {}
    looked_at: ClassVar[int] = 40  # images a shard whose pixels are read

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls) -> Stream:
        """The stream, made once."""
        return cls._make()

    def test_ids_are_unique_and_labels_are_classes_of_their_task(self, made: Stream) -> None:
        ids = [sample for _, shard in _shards(made) for sample in shard.ids]
        assert len(ids) == len(set(ids))
        for task in made.tasks:
            assert {*task.train.labels, *task.test.labels} <= set(task.classes)
            assert set(task.classes) == set(task.train.labels), f"{task.id} has a class without training images"
        for segment in made.segments:
            assert set(segment.samples.labels) <= set(made.classes)

    def test_it_resolves_to_the_same_stream_twice(self, made: Stream) -> None:
        assert content_digest(self._make()) == content_digest(made)

    def test_another_process_replays_its_recipe(self, made: Stream) -> None:
        assert made.recipe is not None, "give the stream a Recipe, so that a run of it can be verified"
        seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        program = "import json, sys; from cl.data.recipes import content_digest, resolve_stream as made; "
        program += "from cl.data.stream import Recipe; print(content_digest(made(Recipe(**json.loads(sys.argv[1])))))"
        command = [
            sys.executable,
            "-c",
            program,
            json.dumps({**made.recipe.as_json(), "place": dict(made.recipe.place)}),
        ]
        other = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert other.returncode == 0, other.stderr
        assert other.stdout.split()[-1] == content_digest(made)

    def test_removing_samples_moves_no_other_name(self, made: Stream) -> None:
        draw = random.Random(0)
        every = sorted(made.ids)
        for share in (0.01, 0.3):
            gone = set(draw.sample(every, max(1, int(share * len(every)))))
            rest = made.without(gone)
            assert gone.isdisjoint(rest.ids)
            assert _names(rest).items() <= _names(made).items()
            kept = [task.id for task in rest.tasks]
            assert kept == [task.id for task in made.tasks if not set(task.train.ids) <= gone]

    def test_images_are_bytes_of_one_size(self, made: Stream) -> None:
        for _, shard in _shards(made):
            images = shard.images(slice(0, self.looked_at))
            assert images.dtype == torch.uint8 and images.ndim == 4 and images.shape[1] == 3
            one_by_one = [shard.images([row])[0] for row in range(len(images))]
            assert torch.equal(torch.stack(one_by_one), images), "an image must not depend on what it is read with"

    def test_shards_can_be_joined_and_cropped(self, made: Stream) -> None:
        shard = made.tasks[0].train
        joined = concat([task.train for task in made.tasks])
        ids = shard.ids[: self.looked_at]
        rows = [joined.ids.index(sample) for sample in ids]
        assert torch.equal(joined.images(rows), shard.images(range(len(ids))))
        seen = crops(crop_flip((0.5, 1.0)), ids, 0, Seeds("crops"))
        assert torch.equal(joined.images(rows, seen), shard.images(range(len(ids)), seen))

    def test_other_pixels_have_another_digest(self, made: Stream) -> None:
        for _, shard in _shards(made):
            seen: dict[str, bytes] = {}
            for row, sample in enumerate(shard.ids[: self.looked_at]):
                pixels = shard.images([row]).numpy().tobytes()
                assert seen.setdefault(shard.pixels.digest(sample), pixels) == pixels

    def test_no_global_generator_is_moved(self) -> None:
        before = global_state()
        self._make().tasks[0].train.images(slice(0, 2))
        assert global_state() == before

    @classmethod
    def _make(cls) -> Stream:
        if isinstance(cls.stream, str):
            return resolve_stream(Recipe(cls.stream, cls.arguments))
        return cls.stream(**cls.arguments)


def _shards(stream: Stream) -> Iterator[tuple[tuple[str, str | None], Samples]]:
    """Every shard, with the task or batch that it belongs to and its domain."""
    for task in stream.tasks:
        yield (task.id, task.domain), task.train
        yield (task.id, task.domain), task.test
    for segment in stream.segments:
        for name, batch in segment.batches.items():
            yield (name, segment.domain), batch


def _names(stream: Stream) -> dict[str, tuple[Any, ...]]:
    """Sample id -> everything that is said of it."""
    return {
        sample: (place, label, stream.subjects.get(sample), stream.access.get(sample))
        for place, shard in _shards(stream)
        for sample, label in zip(shard.ids, shard.labels, strict=True)
    }
