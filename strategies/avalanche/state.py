"""What one of Avalanche's strategies has learnt, as tensors and a plan of what they are; and back."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cl import Tensors
from strategies.avalanche.objects import data_set

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


def state_of(strategy: Any, kind: str) -> Tensors:
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


def load_state(strategy: Any, kind: str, state: Tensors) -> None:
    """Put a fresh `strategy` where the one was that `state` was taken of."""
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
    data = data_set(tensors[inputs["tensor"]], targets, ids)
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
