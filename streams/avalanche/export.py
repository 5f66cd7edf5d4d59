"""Our streams as benchmarks of Avalanche's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from cl import Samples, Stream
from cl.errors import BadInput
from streams.avalanche.present import require_avalanche


class _Leaf:
    """A shard as the data set below Avalanche's layers: image float32 `(3, height, width)` in [0, 1], class number."""

    def __init__(self, samples: Samples, classes: Sequence[str]) -> None:
        self._samples, self.classes = samples, list(classes)
        self.targets: list[int] = samples.targets(classes).tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self._samples.images([row])[0].float() / 255, self.targets[row]


def to_avalanche(stream: Stream) -> Any:
    """The stream as an Avalanche benchmark with a training and a test experience for each task.

    An image is a float32 tensor `(3, height, width)` in [0, 1], a class its place in `stream.classes`; the task label
    is 0 everywhere, as class-incremental strategies expect. Rows keep the order of the ids, which are the data
    attribute `sample_id`. Augmentation is left to Avalanche. Raises BadInput for a task without test images.
    """
    require_avalanche()
    from avalanche.benchmarks import CLScenario, EagerCLStream, with_classes_timeline, with_task_labels

    empty = next((task.id for task in stream.tasks if not len(task.test)), None)
    if empty is not None:
        raise BadInput(f"task '{empty}' of stream '{stream.name}' has no test images; Avalanche needs some")
    shards = {"train": [task.train.plain for task in stream.tasks], "test": [task.test for task in stream.tasks]}
    made = [
        EagerCLStream(split, [_experience(one, stream.classes) for one in samples]) for split, samples in shards.items()
    ]
    benchmark = with_task_labels(with_classes_timeline(CLScenario(made)))
    firsts = [name for task in stream.tasks for name in task.classes]
    new, start = [], 0
    for task in stream.tasks:
        start, before = start + len(task.classes), set(firsts[:start])
        new.append(len(set(task.classes) - before))
    # What iCaRL asks the benchmark for; deprecated benchmarks have it, new ones do not.
    benchmark.n_classes, benchmark.n_classes_per_exp = len(stream.classes), new
    benchmark.classes_order = list(range(len(stream.classes)))
    for experience in (*benchmark.train_stream, *benchmark.test_stream):
        experience.benchmark = benchmark
    return benchmark


def _experience(samples: Samples, classes: Sequence[str]) -> Any:
    from avalanche.benchmarks import DatasetExperience
    from avalanche.benchmarks.utils import DataAttribute, _make_taskaware_classification_dataset

    class Experience(DatasetExperience):  # type: ignore[misc]
        """An experience whose data set can be replaced, as BiC does."""

        @property
        def dataset(self) -> Any:
            return self._dataset

        @dataset.setter
        def dataset(self, value: Any) -> None:
            self._dataset = value

    # The public `as_classification_dataset` has no task sets, which LwF needs.
    data = _make_taskaware_classification_dataset(_Leaf(samples, classes), task_labels=0)
    names = DataAttribute(list(samples.ids), "sample_id", use_in_getitem=False)
    return Experience(dataset=data.update_data_attribute("sample_id", names))
