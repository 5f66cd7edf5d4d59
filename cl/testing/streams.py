"""What every stream promises, as a pytest class to subclass."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import pytest
import torch

from cl.data.augment import crop_flip, crops
from cl.data.recipes import content_digest, resolve_stream
from cl.data.samples import Samples, concat
from cl.data.stream import Recipe, Stream
from cl.seeds import Seeds, global_state


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

    def test_another_process_makes_it_again(self, made: Stream) -> None:
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
