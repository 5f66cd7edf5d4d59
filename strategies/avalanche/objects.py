"""Avalanche's objects, made of ours: a model and a strategy around it, a data set, an experience to learn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from cl import Backbone
from cl.errors import BadInput
from cl.numerics import Numerics
from strategies.avalanche.settings import AvalancheMethod, BaselineHyper, SLDAHyper


class _Network(nn.Module):
    """All weights of the backbone, to be trained. Input: raw images, uint8."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self._backbone = (backbone,)  # in a tuple: no submodule, and its weights stay as they are
        self.weights = nn.ParameterDict(
            {name.replace(".", "/"): value.detach().clone() for name, value in backbone.parameters().items()}
        )

    def forward(self, images: Tensor) -> Tensor:
        weights = {name.replace("/", "."): value for name, value in self.weights.items()}
        return self._backbone[0].with_parameters(weights, images)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Network:
        copied = _Network(self._backbone[0])
        copied.load_state_dict(self.state_dict())
        return copied.train(self.training)


def make_strategy(method: AvalancheMethod, backbone: Backbone, numerics: Numerics) -> Any:
    """Avalanche's strategy as it is before the first task; draws from the global generators."""
    from avalanche.training import supervised

    h = method.settings
    common: dict[str, Any] = {"device": numerics.device, "evaluator": None, "eval_mb_size": 256}
    if isinstance(h, SLDAHyper):
        return supervised.StreamingLDA(
            slda_model=nn.Identity(),
            criterion=nn.CrossEntropyLoss(),
            input_size=backbone.dim,
            num_classes=h.units,
            shrinkage_param=h.shrinkage,
            train_mb_size=256,
            **common,
        )
    extractor = _extractor(h, backbone)
    classifier = nn.Linear(h.hidden or backbone.dim, h.units)
    parameters = [*extractor.parameters(), *classifier.parameters()]
    common |= {
        "optimizer": torch.optim.SGD(parameters, lr=h.lr, momentum=h.momentum),
        "train_mb_size": h.batch_size,
        "train_epochs": h.epochs,
    }
    if method.kind == "iCaRL":
        return supervised.ICaRL(
            feature_extractor=extractor,
            classifier=classifier,
            memory_size=h.own["mem_size"],
            buffer_transform=None,
            fixed_memory=True,
            **common,
        )
    kind = getattr(supervised, {"Joint": "JointTraining"}.get(method.kind, method.kind))
    return kind(model=nn.Sequential(extractor, classifier), criterion=nn.CrossEntropyLoss(), **h.own, **common)


def _extractor(h: BaselineHyper, backbone: Backbone) -> nn.Module:
    lowest: list[nn.Module] = [_Network(backbone)] if h.over == "images" else []
    layer = [nn.Linear(backbone.dim, h.hidden), nn.ReLU()] if h.hidden else []
    return nn.Sequential(*lowest, *layer)


class _Rows:
    """Inputs and class numbers as a data set."""

    def __init__(self, inputs: Tensor, targets: list[int]) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.inputs[row], self.targets[row]


def data_set(inputs: Tensor, targets: Sequence[int], ids: Sequence[str]) -> Any:
    """Inputs, class numbers and sample ids as Avalanche's data set."""
    from avalanche.benchmarks.utils import DataAttribute, _make_taskaware_classification_dataset

    # The public `as_classification_dataset` has no task sets, which LwF needs.
    data = _make_taskaware_classification_dataset(_Rows(inputs, list(targets)), task_labels=0)
    return data.update_data_attribute("sample_id", DataAttribute(list(ids), "sample_id", use_in_getitem=False))


def make_experience(data: Any, number: int, seen: int, units: int) -> Any:
    """The experience `number`, after `seen` of `units` classes, with what the strategies ask of it."""
    from avalanche.benchmarks import DatasetExperience, EagerCLStream

    experience = DatasetExperience(dataset=data)
    stream = EagerCLStream("train", [experience])
    experience.current_experience, experience.origin_stream = number, stream
    classes = {int(label) for label in data.targets}
    new = len([label for label in classes if label >= seen])
    experience.classes_in_this_experience = sorted(classes)
    experience.task_label, experience.task_labels = 0, [0]
    # iCaRL sums the counts up to this experience, and sizes its means by all of them.
    before = [seen] + [0] * (number - 1) if number else []
    experience.benchmark = SimpleNamespace(
        n_classes_per_exp=[*before, new, units - seen - new], classes_order=list(range(units))
    )
    return experience


@contextmanager
def quietly() -> Iterator[None]:
    """Avalanche warns on every experience of what its next release will remove."""
    with warnings.catch_warnings(record=True):  # recorded and dropped: Avalanche switches filters off
        yield


def avalanche_release() -> str:
    """Avalanche's release. Raises BadInput where it is not installed."""
    try:
        return metadata.version("avalanche-lib")
    except metadata.PackageNotFoundError:
        raise BadInput("Avalanche is not installed; pip install 'palimpsest-cl[avalanche]'") from None
