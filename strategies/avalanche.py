"""Avalanche's strategies as baselines of ours, and our strategies in Avalanche's loop.

For avalanche-lib 0.6 (Carta et al., "Avalanche: A PyTorch Library for Deep Continual Learning", JMLR 24, 2023), which
is imported only inside functions here: that takes seconds.

A baseline is Avalanche's own code on the features of our frozen backbone, or on the images. What it has learnt after a
task is one opaque component: model, optimiser, replay memory and whatever else its plugins keep. It is made from the
one before and the task's images, so a deletion builds all of them again from the first task that held a deleted sample.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from importlib import metadata
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from cl.components.builder import builds
from cl.components.handles import Handle
from cl.data.samples import Samples
from cl.data.stream import Task
from cl.errors import BadInput
from cl.home.store import Tensors
from cl.learning.hyper import hyperparameters, setting
from cl.learning.strategy import Model, Strategy
from cl.models.backbone import Backbone, batches, rows
from cl.numerics import Numerics
from cl.progress import tell
from cl.running.run import assembled
from cl.seeds import Seeds

HIDDEN = -1e4  # the score of a class not learnt yet, where Avalanche wants a column for it
OURS = ("backbone", "presets", "settings", "home", "device", "threads")  # arguments that are not Avalanche's


@hyperparameters
class BaselineHyper:
    """What every baseline takes."""

    over: Literal["features", "images"] = setting(
        "features", "train on the frozen backbone's features, or all of the backbone on the images", "ours"
    )
    hidden: int = setting(0, "width of a trained layer under the classifier; 0 for none", "ours", ge=0)
    units: int = setting(100, "outputs of the classifier: Avalanche wants them all from the start", "ours", ge=1)
    epochs: int = setting(5, "passes over a task's images", "ours", ge=1, le=10_000)
    batch_size: int = setting(32, "images a step", "ours", ge=1, le=65_536)
    lr: float = setting(0.05, "learning rate of SGD, constant", "ours", gt=0)
    momentum: float = setting(0.9, "momentum of SGD; kept from task to task, as Avalanche does", "ours", ge=0, lt=1)


@hyperparameters
class EWCHyper(BaselineHyper):
    """EWC's settings."""

    ewc_lambda: float = setting(1.0, "weight of the penalty", "ours", ge=0)


@hyperparameters
class LwFHyper(BaselineHyper):
    """LwF's settings."""

    alpha: float = setting(1.0, "weight of the distillation", "Avalanche's plugin", ge=0)
    temperature: float = setting(2.0, "of the softened scores", "Avalanche's plugin", gt=0)


@hyperparameters
class MemoryHyper(BaselineHyper):
    """Settings of what keeps exemplars."""

    mem_size: int = setting(200, "images kept", "Avalanche's default", ge=1)


@hyperparameters
class DERHyper(MemoryHyper):
    """DER's settings; DER++ where beta is above 0."""

    alpha: float = setting(0.1, "weight of the kept scores", "Avalanche's default", ge=0)
    beta: float = setting(0.5, "weight of the kept labels", "Avalanche's default", ge=0)


@hyperparameters
class SLDAHyper:
    """SLDA's settings: nothing is trained."""

    over: Literal["features"] = setting("features", "the frozen backbone's features", "Hayes and Kanan, section 3")
    units: int = setting(100, "classes that there is room for from the start", "ours", ge=1)
    shrinkage: float = setting(1e-4, "weight of the identity in the covariance", "Hayes and Kanan, section 4", gt=0)


# Avalanche's objects: a model, a strategy around it, an experience to learn.


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


def _extractor(hyper: Mapping[str, Any], backbone: Backbone) -> nn.Module:
    lowest: list[nn.Module] = [_Network(backbone)] if hyper["over"] == "images" else []
    layer = [nn.Linear(backbone.dim, hyper["hidden"]), nn.ReLU()] if hyper.get("hidden") else []
    return nn.Sequential(*lowest, *layer)


def _made(kind: str, hyper: Mapping[str, Any], backbone: Backbone, numerics: Numerics) -> Any:
    """Avalanche's strategy as it is before the first task; draws from the global generators."""
    from avalanche.training import supervised

    common = {"device": numerics.device, "evaluator": None, "eval_mb_size": 256}
    if kind == "SLDA":
        return supervised.StreamingLDA(
            slda_model=nn.Identity(),
            criterion=nn.CrossEntropyLoss(),
            input_size=backbone.dim,
            num_classes=hyper["units"],
            shrinkage_param=hyper["shrinkage"],
            train_mb_size=256,
            **common,
        )
    extractor = _extractor(hyper, backbone)
    classifier = nn.Linear(hyper["hidden"] or backbone.dim, hyper["units"])
    parameters = [*extractor.parameters(), *classifier.parameters()]
    common |= {
        "optimizer": torch.optim.SGD(parameters, lr=hyper["lr"], momentum=hyper["momentum"]),
        "train_mb_size": hyper["batch_size"],
        "train_epochs": hyper["epochs"],
    }
    if kind == "iCaRL":
        return supervised.ICaRL(
            feature_extractor=extractor,
            classifier=classifier,
            memory_size=hyper["mem_size"],
            buffer_transform=None,
            fixed_memory=True,
            **common,
        )
    made = getattr(supervised, {"Joint": "JointTraining"}.get(kind, kind))
    own = {name: value for name, value in hyper.items() if name not in BaselineHyper.__dataclass_fields__}
    return made(model=nn.Sequential(extractor, classifier), criterion=nn.CrossEntropyLoss(), **own, **common)


class _Rows:
    """Inputs and class numbers as a data set."""

    def __init__(self, inputs: Tensor, targets: list[int]) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.inputs[row], self.targets[row]


def _data(inputs: Tensor, targets: Sequence[int], ids: Sequence[str]) -> Any:
    from avalanche.benchmarks.utils import DataAttribute, _make_taskaware_classification_dataset

    # The public `as_classification_dataset` has no task sets, which LwF needs.
    data = _make_taskaware_classification_dataset(_Rows(inputs, list(targets)), task_labels=0)
    return data.update_data_attribute("sample_id", DataAttribute(list(ids), "sample_id", use_in_getitem=False))


def _experience(data: Any, number: int, seen: int, hyper: Mapping[str, Any]) -> Any:
    """The experience `number`, after `seen` classes, with what the strategies ask of it."""
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
        n_classes_per_exp=[*before, new, hyper["units"] - seen - new], classes_order=list(range(hyper["units"]))
    )
    return experience


@contextmanager
def _quietly() -> Iterator[None]:
    """Avalanche warns on every experience of what its next release will remove."""
    with warnings.catch_warnings(record=True):  # recorded and dropped: Avalanche switches filters off
        yield


# What a strategy has learnt, as tensors.

# Kind -> what it keeps beside model and optimiser, as paths; a path may begin with a plugin's class name.
KEPT: dict[str, tuple[str, ...]] = {
    "EWC": ("EWCPlugin.saved_params", "EWCPlugin.importances"),
    "LwF": ("LwFPlugin.lwf.prev_model", "LwFPlugin.lwf.prev_classes_by_task", "LwFPlugin.lwf.expcount"),
    "Replay": ("ReplayPlugin.storage_policy.buffer_groups", "ReplayPlugin.storage_policy._num_exps"),
    "DER": ("storage_policy.buffer_groups", "storage_policy.seen_classes"),
    "ER_ACE": ("storage_policy.buffer_groups", "storage_policy.seen_classes"),
    "GDumb": (
        "GDumbPlugin.storage_policy.buffer_groups",
        "GDumbPlugin.storage_policy.seen_classes",
        "GDumbPlugin.init_model",
    ),
    "iCaRL": (
        *(f"_ICaRLPlugin.{name}" for name in ("x_memory", "y_memory", "order", "observed_classes", "class_means")),
        *(f"_ICaRLPlugin.{name}" for name in ("embedding_size", "output_size", "input_size")),
        "ICaRLLossPlugin.old_model",
        "ICaRLLossPlugin.old_classes",
    ),
    "SLDA": ("muK", "cK", "Sigma", "num_updates"),
}


def _owner(strategy: Any, path: str) -> tuple[Any, str]:
    """The object that holds `path`, and its name there."""
    first, *rest = path.split(".")
    plugins = {type(plugin).__name__: plugin for plugin in strategy.plugins}
    owner = plugins.get(first, strategy)
    names = rest if first in plugins else [first, *rest]
    for name in names[:-1]:
        owner = getattr(owner, name)
    return owner, names[-1]


def exported(strategy: Any, kind: str) -> Tensors:
    """All that `strategy` has learnt: tensors by number, and `plan`, the JSON that says what they are, as bytes."""
    tensors: Tensors = {}
    pace = strategy.optimizer.state if strategy.optimizer is not None else {}
    momentum = {
        name: pace[value]["momentum_buffer"]
        for name, value in strategy.model.named_parameters()
        if pace.get(value, {}).get("momentum_buffer") is not None
    }
    kept = {path: getattr(*_owner(strategy, path)) for path in KEPT.get(kind, ())}
    whole = {"model": strategy.model, "momentum": momentum, "learnt": strategy.clock.train_exp_counter, "kept": kept}
    plan = json.dumps(_encoded(whole, tensors), separators=(",", ":")).encode()
    return {**tensors, "plan": torch.tensor(list(plan), dtype=torch.uint8)}


def restore(strategy: Any, kind: str, state: Tensors) -> None:
    """Put a fresh `strategy` where the one was that `state` was exported from."""
    plan = json.loads(bytes(state["plan"].tolist()))
    whole = _decoded(plan, state, strategy.model)
    _load(strategy.model, whole["model"].state_dict())
    strategy.clock.train_exp_counter = whole["learnt"]
    for path, value in whole["kept"].items():
        setattr(*_owner(strategy, path), value)
    if kind == "iCaRL":
        strategy.model.eval_classifier.replace_class_means_dict(whole["kept"]["_ICaRLPlugin.class_means"])
    if strategy.optimizer is not None:
        strategy.make_optimizer(reset_optimizer_state=True)
        for name, value in strategy.model.named_parameters():
            if name in whole["momentum"]:
                strategy.optimizer.state[value]["momentum_buffer"] = whole["momentum"][name].clone()


def _encoded(value: Any, tensors: Tensors) -> Any:
    """`value` as JSON, its tensors moved to `tensors`. Raises TypeError for what this file does not know."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        name = f"{len(tensors):06d}"
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[_encoded(one, tensors) for one in pair] for pair in value.items()]}
    if isinstance(value, list | tuple | set):
        return {type(value).__name__: [_encoded(one, tensors) for one in value]}
    kind = type(value).__name__
    if isinstance(value, nn.Module):
        return {"module": [value.training, _encoded(value.state_dict(), tensors)]}
    if kind == "ParamData":
        return {"param": [value.name, _encoded(value.data, tensors)]}
    if kind == "ReservoirSamplingBuffer":
        return {"buffer": [value.max_size, _encoded(value._buffer_weights, tensors), *_contents(value, tensors)]}
    raise TypeError(f"no way to store a {kind}")


def _contents(buffer: Any, tensors: Tensors) -> list[Any]:
    """Inputs, class numbers, ids, and scores where they are kept."""
    items = [buffer.buffer[row] for row in range(len(buffer.buffer))]
    inputs = _encoded(torch.stack([item[0] for item in items]), tensors) if items else None
    logits = _encoded(torch.stack([item[3] for item in items]), tensors) if items and len(items[0]) > 3 else None
    ids = [str(name) for name in buffer.buffer.sample_id] if items else []
    return [inputs, [int(item[1]) for item in items], ids, logits]


def _decoded(node: Any, tensors: Tensors, model: nn.Module) -> Any:
    """The value that `_encoded` made `node` of; modules take the shape of `model`."""
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors[content].clone().to(_device(model))
    if kind == "dict":
        return {_decoded(key, tensors, model): _decoded(value, tensors, model) for key, value in content}
    if kind == "module":
        copied = copy.deepcopy(model).train(content[0])
        _load(copied, _decoded(content[1], tensors, model))
        return copied
    if kind == "param":
        from avalanche.training.utils import ParamData

        return ParamData(content[0], init_tensor=_decoded(content[1], tensors, model), device=_device(model))
    if kind == "buffer":
        return _buffer(content, tensors)
    kinds: dict[str, Callable[[list[Any]], Any]] = {"list": list, "tuple": tuple, "Size": torch.Size, "set": set}
    return kinds[kind]([_decoded(one, tensors, model) for one in content])


def _buffer(content: Sequence[Any], tensors: Tensors) -> Any:
    """A replay memory of what `_contents` named. It stays on the CPU, as loaders want it."""
    from avalanche.benchmarks.utils import make_avalanche_dataset
    from avalanche.benchmarks.utils.data_attribute import TensorDataAttribute
    from avalanche.benchmarks.utils.flat_data import FlatData
    from avalanche.training.storage_policy import ReservoirSamplingBuffer

    size, weights, inputs, targets, ids, logits = content
    made = ReservoirSamplingBuffer(size)
    made._buffer_weights = tensors[weights["tensor"]].clone()
    if inputs is None:
        return made
    data = _data(tensors[inputs["tensor"]], targets, ids)
    if logits is not None:
        kept = FlatData([list(tensors[logits["tensor"]])], discard_elements_not_in_indices=True)
        data = make_avalanche_dataset(data, data_attributes=[TensorDataAttribute(kept, "logits", use_in_getitem=True)])
    made.buffer = data
    return made


def _load(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Weights and buffers, those too that a fresh module does not have yet (iCaRL's class means)."""
    for name in state.keys() - module.state_dict().keys():
        owner, _, own = name.rpartition(".")
        module.get_submodule(owner).register_buffer(own, torch.empty_like(state[name]))
    module.load_state_dict(dict(state))


def _device(model: nn.Module) -> torch.device:
    return next((value.device for value in model.parameters()), torch.device("cpu"))


# Builds.


def _started(
    kind: str,
    hyper: Mapping[str, Any],
    before: Tensors | None,
    backbone: Backbone,
    seeds: Seeds,
    numerics: Numerics,
) -> Any:
    with seeds.forked("init"):
        strategy = _made(kind, hyper, backbone, numerics)
    if before is not None:
        restore(strategy, kind, before)
    return strategy


@builds("state")
def learnt(
    shards: list[Samples],
    features: list[Tensors] | None,
    before: Tensors | None,
    *,
    kind: str,
    classes: list[str],
    known: int,
    hyper: dict[str, Any],
    release: str,
    backbone: Backbone,
    seeds: Seeds,
    numerics: Numerics,
) -> Tensors:
    """What Avalanche's strategy `kind` has learnt after one more task (see `exported`).

    shards: the task's images last, before them those of earlier tasks that the strategy trains on again. features: of
    each, unless the images themselves are trained on. before: what it had learnt. classes: all so far, by column;
    `known` of them from earlier tasks. release: Avalanche's.
    """
    if len(classes) > hyper["units"]:
        mend = f"--set units={2 * len(classes)}"
        raise BadInput(f"avalanche:{kind} has {hyper['units']} outputs, but there are {len(classes)} classes; {mend}")
    with _quietly():
        strategy = _started(kind, hyper, before, backbone, seeds, numerics)
        inputs = [one["features"] for one in features] if features is not None else [one.images() for one in shards]
        sets = [_data(x, shard.targets(classes).tolist(), shard.ids) for x, shard in zip(inputs, shards, strict=True)]
        with seeds.forked("train"):
            _train(strategy, kind, sets, known, hyper)
        return exported(strategy, kind)


class _Epochs:
    """A plugin that tells how far the training is."""

    def after_training_epoch(self, strategy: Any, **_: Any) -> None:
        tell("epochs", strategy.clock.train_exp_epochs + 1, strategy.train_epochs)


def _train(strategy: Any, kind: str, sets: Sequence[Any], known: int, hyper: Mapping[str, Any]) -> None:
    strategy.plugins.insert(0, _Epochs())
    number = strategy.clock.train_exp_counter
    if kind == "Joint":  # all tasks at once, afresh
        strategy.train([_experience(one, place, 0, hyper) for place, one in enumerate(sets)], eval_streams=[])
        return
    if kind == "Cumulative" and len(sets) > 1:
        from avalanche.benchmarks.utils.utils import concat_datasets

        strategy.dataset = concat_datasets(sets[:-1])
    strategy.train(_experience(sets[-1], number, known, hyper), eval_streams=[])


@builds("cache")
@torch.no_grad()
def scored(
    samples: Samples,
    features: Tensors | None,
    state: Tensors,
    *,
    kind: str,
    columns: int,
    hyper: dict[str, Any],
    release: str,
    backbone: Backbone,
    numerics: Numerics,
) -> Tensors:
    """Scores `(n, columns)` by the strategy's own rule: SLDA's discriminant, iCaRL's nearest mean, else the logits."""
    with _quietly():
        strategy = _started(kind, hyper, state, backbone, Seeds("scores"), numerics)
    strategy.model.eval()
    device = torch.device(numerics.device)

    def rule(inputs: Tensor) -> Tensor:
        outputs = strategy.model(inputs.to(device))
        return (strategy.predict(outputs) if kind == "SLDA" else outputs)[:, :columns]

    if features is not None:
        return {"scores": rule(features["features"]).cpu().contiguous()}
    return {"scores": rows(backbone, batches(samples, "scores"), rule).contiguous()}


# The strategies.


class Baseline(Strategy):
    """A strategy of Avalanche's, by its name there."""

    kind: ClassVar[str]
    again: ClassVar[bool] = False  # whether it trains on the images of earlier tasks again
    afresh: ClassVar[bool] = False
    Hyper: ClassVar[type] = BaselineHyper
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"epochs": 2}}

    def learn(self, task: Task, model: Model) -> dict[str, Handle]:
        shards = [*([past.train for past in model.tasks] if self.again else []), task.train]
        classes = list(dict.fromkeys([*model.classes, *task.classes]))
        before = model["state"] if model.tasks and not self.afresh else None
        features = [self.features(shard) for shard in shards] if self.hyper.over == "features" else None
        plain = [shard.plain for shard in shards]
        given = {"classes": classes, "known": len(model.classes), **self._given()}
        return {"state": self.component(f"{task.id}/state", learnt, plain, features, before, **given)}

    def scores(self, model: Model, samples: Samples) -> Handle:
        features = self.features(samples) if self.hyper.over == "features" else None
        given = {"columns": len(model.classes), **self._given()}
        return self.component("scores", scored, samples.plain, features, model["state"], **given)

    def _given(self) -> dict[str, Any]:
        return {"kind": self.kind, "hyper": asdict(self.hyper), "release": release()}


def release() -> str:
    """Avalanche's release. Raises BadInput where it is not installed."""
    try:
        return metadata.version("avalanche-lib")
    except metadata.PackageNotFoundError:
        raise BadInput("Avalanche is not installed; pip install 'palimpsest-cl[avalanche]'") from None


# What is not said here is a baseline's as it is: `BaselineHyper`, one task's images, from the model before.
_AGAIN = {"again": True, "rehearsal": True}
_OWN: dict[str, dict[str, Any]] = {
    "Cumulative": _AGAIN,
    "Joint": {"afresh": True, **_AGAIN},
    "EWC": {"Hyper": EWCHyper},
    "LwF": {"Hyper": LwFHyper},
    "Replay": {"Hyper": MemoryHyper},
    "DER": {"Hyper": DERHyper},
    "ER_ACE": {"Hyper": MemoryHyper},
    "GDumb": {"Hyper": MemoryHyper},
    "SLDA": {"Hyper": SLDAHyper, "presets": {}},
    "iCaRL": {"Hyper": MemoryHyper},
}


@cache
def baseline(kind: str, title: str, paper: str) -> type[Baseline]:
    """The strategy of this name there."""
    named = {"kind": kind, "title": title, "paper": paper, "__module__": __name__}
    return type(kind, (Baseline,), {**named, **_OWN.get(kind, {})})


# Our strategies in Avalanche's loop.


class _Inside:
    """One of our strategies over the shards of a benchmark, step by step.

    benchmark: of `streams.avalanche.from_avalanche`.
    """

    def __init__(self, benchmark: Any, strategy: Strategy) -> None:
        self.benchmark, self.strategy, self.model = benchmark, strategy, Model()

    def learn(self, number: int) -> None:
        tasks = self.benchmark.tasks
        self.model = self.strategy.extended(self.model, tasks[number], len(tasks) - number - 1)

    def scores(self, stream: str, number: int, columns: int) -> Tensor:
        """Scores `(n, columns)` of an experience, rows and columns as Avalanche has them."""
        shard = self.benchmark.experiences[stream, number]
        row = {sample: place for place, sample in enumerate(shard.samples.ids)}
        column = {name: place for place, name in enumerate(self.model.classes)}
        found = self.strategy.scores(self.model, shard.samples).open()["scores"][[row[s] for s in shard.order]]
        scores = torch.full((len(found), columns), HIDDEN)
        for label, name in {**self._labels, **shard.names}.items():
            if name in column and label < columns:
                scores[:, label] = found[:, column[name]]
        return scores

    @property
    def _labels(self) -> dict[int, str]:
        return {label: name for shard in self.benchmark.experiences.values() for label, name in shard.names.items()}

    @property
    def columns(self) -> int:
        """One more than the highest label of the benchmark."""
        return 1 + max(self._labels)


def avalanche_strategy(strategy: str, benchmark: Any, *, seed: int = 0, **given: Any) -> Any:
    """An Avalanche strategy that learns with one of ours: `train(experience)`, `eval(stream)`.

    benchmark: what `streams.avalanche.from_avalanche` makes of the benchmark; experiences must be of it, in its order.
    given: `backbone`, `presets`, `settings`, `home`, `device`, `threads` as for `cl.run`; all others, such as
    `evaluator`, `plugins`, `eval_every` and `eval_mb_size`, as for Avalanche's own. Its metrics, plugins and loggers
    work; a class not learnt yet scores far below all others. What is built goes to the home's store. Raises
    PalimpsestError with one line.
    """
    release()
    from avalanche.training.templates import SupervisedTemplate

    ours = {name: given.pop(name) for name in OURS if name in given}
    inside = _Inside(benchmark, assembled(strategy, seed=seed, **ours))
    device = inside.strategy.numerics.device
    guard = Seeds(f"{seed}|avalanche")

    class Ours(SupervisedTemplate):  # type: ignore[misc]
        """Avalanche's loop, with our learning and our scores in it."""

        def train(self, experiences: Any, eval_streams: Any = None, **more: Any) -> Any:
            with guard.forked("train"), _quietly():  # its loaders draw, even those that nobody reads
                return super().train(experiences, [] if eval_streams is None else eval_streams, **more)

        def eval(self, experiences: Any, **more: Any) -> Any:
            with guard.forked("eval"), _quietly():
                return super().eval(experiences, **more)

        def _train_exp(self, experience: Any, eval_streams: Any = None, **more: Any) -> None:
            self._before_training_epoch(**more)
            inside.learn(experience.current_experience)
            self._after_training_epoch(**more)

        def _before_eval_exp(self, **more: Any) -> None:
            stream, number = self.experience.origin_stream.name, self.experience.current_experience
            self._rest = inside.scores(stream, number, inside.columns)
            super()._before_eval_exp(**more)

        def forward(self) -> Tensor:
            count = len(self.mb_y)
            mine, self._rest = self._rest[:count], self._rest[count:]
            return mine.to(self.device)

        def model_adaptation(self, model: Any = None) -> Any:
            return self.model if model is None else model

        def make_optimizer(self, **_: Any) -> None: ...

        def check_model_and_optimizer(self, **_: Any) -> None: ...

    with guard.forked("init"), _quietly():
        stand_in = nn.Linear(1, 1)  # Avalanche wants a module, and an optimiser of it
        optimizer = torch.optim.SGD(stand_in.parameters(), lr=0.0)
        return Ours(model=stand_in, optimizer=optimizer, train_epochs=1, device=device, **given)
