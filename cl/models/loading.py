"""Backbones described by a TOML file: an architecture of timm, weights from a local file, and how pixels are scaled."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import timm
import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data.config import resolve_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cl.errors import BadInput, UnknownName, first_line, shown
from cl.models.cards import WEIGHTS, shipped
from cl.models.vit import TimmBackbone
from cl.registry import imported
from cl.seeds import Seeds
from cl.tables import Table, check_table, read_toml

DEFAULT = "PALIMPSEST_BACKBONE"  # names the backbone of commands that name none


def default_backbone() -> str:
    """What is used where no backbone is named: `PALIMPSEST_BACKBONE`, else `glyph-vit`."""
    return os.environ.get(DEFAULT) or "glyph-vit"


def load_backbone(name: str = "glyph-vit", device: str = "cpu") -> TimmBackbone:
    """The backbone called `name`: a shipped one, a timm name with its pretrained weights, `random:TIMM-NAME`, a TOML
    file (see `cl.models.loading`), or `module:factory`, a function of the device that returns a `TimmBackbone`.

    Raises UnknownName, or BadInput where the weights cannot be had or the network gives no features of an image.
    """
    return _tried(_loaded(name, device))


def _loaded(name: str, device: str) -> TimmBackbone:
    if name.endswith(".toml"):
        return load_described(Path(name), device)
    cards = shipped()
    if name in cards:
        return _load_shipped(name, cards[name], device)
    if ":" in name and not name.startswith("random:"):
        return _load_factory(name, device)
    plain = name.removeprefix("random:")
    if not timm.is_model(plain.partition(".")[0]):
        where = DEFAULT if name == os.environ.get(DEFAULT) else None
        raise UnknownName("backbone", name, [*cards, *timm.list_models()], where)
    return _load_timm(name, plain, is_random=plain != name, device=device)


def _tried(backbone: TimmBackbone) -> TimmBackbone:
    """The backbone, once it has shown that it makes one row of features of an image."""
    size = backbone.image_size
    what = f"backbone '{shown(backbone.name)}' makes no features of an image of {size} x {size} pixels"
    try:
        with torch.no_grad():
            found = backbone.features(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    except Exception as error:  # whatever the network makes of an input that it was not made for
        raise BadInput(f"{what} ({first_line(error)}); correct its name or [kwargs]") from error
    if not isinstance(found, Tensor) or tuple(found.shape) != (1, backbone.dim):
        raise BadInput(f"{what}: not one row of {backbone.dim}; correct its name or [kwargs]")
    if not found.isfinite().all():
        raise BadInput(f"{what}: they are NaN or infinite; get its weights anew")
    backbone.passes = 0.0
    return backbone


def _load_shipped(name: str, card: dict[str, Any], device: str) -> TimmBackbone:
    arguments = card["arguments"]
    network = VisionTransformer(**arguments)
    with resources.as_file(WEIGHTS / f"{name}.safetensors") as path:
        network.load_state_dict(load_file(path), strict=True)
    return TimmBackbone(name, network, arguments["img_size"], card["mean"], card["std"], device)


def _load_factory(name: str, device: str) -> TimmBackbone:
    factory = imported(name, "backbone")
    try:
        made = factory(device)
    except TypeError as error:
        raise BadInput(f"'{shown(name)}' is no function of the device ({first_line(error)}); check it") from error
    if not isinstance(made, TimmBackbone):
        raise BadInput(f"'{shown(name)}' made a {type(made).__name__}, not a TimmBackbone; check the factory")
    return made


def _load_timm(name: str, plain: str, is_random: bool, device: str) -> TimmBackbone:
    network = _random(plain) if is_random else pretrained(plain)
    data = resolve_data_config({}, model=network)
    return TimmBackbone(name, network, int(data["input_size"][-1]), data["mean"], data["std"], device, plain)


def pretrained(plain: str, **arguments: Any) -> nn.Module:
    """timm's network of this name with its pretrained weights, without classifier. Raises BadInput."""
    try:
        with _no_logging():
            return timm.create_model(plain, pretrained=True, num_classes=0, **arguments)
    except Exception as error:  # hubs fail in many ways: no network, no such weights, no such tag
        mend = f"fetch them into timm's cache first, give a checkpoint, or use random:{plain} for random weights"
        raise BadInput(f"no pretrained weights for '{plain}' ({first_line(error)}); {mend}") from error


@contextmanager
def _no_logging() -> Iterator[None]:
    """Hubs log every failed attempt; the one line that follows says it all."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _random(plain: str) -> nn.Module:
    try:
        with Seeds(f"random weights|{plain}").forked("init"):
            return timm.create_model(plain, pretrained=False, num_classes=0)
    except Exception as error:  # timm knows the family, but not this tag
        raise BadInput(f"timm cannot make '{plain}': {first_line(error)}") from error


PLAIN = "VisionTransformer"
Channels = Annotated[list[float], Field(min_length=3, max_length=3)]
Positive = Annotated[float, Field(gt=0)]


class BackboneTable(Table):
    """What a backbone's TOML file holds."""

    timm: str
    checkpoint: str | None = None
    mean: Channels | None = None
    std: Annotated[list[Positive], Field(min_length=3, max_length=3)] | None = None
    preprocess: Literal["raw01"] | None = None
    kwargs: dict[str, Any] = {}

    @model_validator(mode="after")
    def _consistent(self) -> BackboneTable:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std belong together; give both")
        if self.mean is not None and self.preprocess is not None:
            raise ValueError("mean and std, or preprocess: keep one of them")
        if self.timm == PLAIN and self.checkpoint is None:
            raise ValueError(f'timm = "{PLAIN}" has no weights of its own; add checkpoint = "FILE"')
        if self.timm == PLAIN and self.mean is None and self.preprocess is None:
            raise ValueError('say how pixels are scaled: mean and std, or preprocess = "raw01"')
        return self


def load_described(path: Path, device: str = "cpu") -> TimmBackbone:
    """The backbone that the TOML file at `path` describes, named by the file. Raises BadInput, UnknownName."""
    told = check_table(BackboneTable, read_toml(path), path)
    network = _network(told, path)
    if told.checkpoint is not None:
        _fill(network, path.parent / told.checkpoint)
    config = _config(network, told)
    size = int(config["input_size"][-1])
    architecture = [told.timm, told.kwargs]
    return TimmBackbone(path.stem, network, size, config["mean"], config["std"], device, architecture)


def _network(told: BackboneTable, path: Path) -> nn.Module:
    """The network that the file names: empty if a checkpoint will fill it, else with timm's pretrained weights."""
    if told.timm != PLAIN and not timm.is_model(told.timm.partition(".")[0]):
        raise UnknownName("timm network", told.timm, [PLAIN, *timm.list_models()], where=shown(path))
    if told.checkpoint is None:
        return pretrained(told.timm, **told.kwargs)
    try:
        with warnings.catch_warnings(), Seeds("overwritten by the checkpoint").forked("init"):
            warnings.simplefilter("ignore")  # torch tells of odd sizes in lines of its own
            if told.timm == PLAIN:
                return VisionTransformer(**{"num_classes": 0, **told.kwargs})
            return timm.create_model(told.timm, pretrained=False, num_classes=0, **told.kwargs)
    except Exception as error:  # whatever the architecture makes of its arguments
        raise BadInput(f"{shown(path)}: timm cannot make '{told.timm}' of these kwargs: {first_line(error)}") from error


def _config(network: nn.Module, told: BackboneTable) -> dict[str, Any]:
    """Input size and normalisation: the file's, else those that timm knows for the network."""
    config: dict[str, Any] = resolve_data_config({}, model=network)
    size = told.kwargs.get("img_size")
    if isinstance(size, int):
        config["input_size"] = (3, size, size)
    if told.preprocess == "raw01":
        config |= {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
    elif told.mean is not None:
        config |= {"mean": told.mean, "std": told.std}
    return config


def _fill(network: nn.Module, path: Path) -> None:
    """Load the checkpoint; only a classifier that the network has not may be left over."""
    weights, expected = _without_classifier(read_checkpoint(path), network), network.state_dict()
    for fault, names in (
        ("lacks", sorted(expected.keys() - weights.keys())),
        ("has an unknown key,", sorted(weights.keys() - expected.keys())),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise BadInput(f"checkpoint {shown(path)} {fault} '{shown(names[0])}'{more}; it must hold timm's key names")
    for name, value in weights.items():
        if value.shape != expected[name].shape:
            shapes = f"{tuple(value.shape)}, the network's is {tuple(expected[name].shape)}"
            raise BadInput(f"checkpoint {shown(path)}: '{name}' has shape {shapes}; correct timm or [kwargs]")
    network.load_state_dict(weights, strict=True)


def _without_classifier(weights: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    classifier = getattr(network, "pretrained_cfg", {}).get("classifier") or "head"
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    extra = {f"{name}.{part}" for name in names for part in ("weight", "bias")} - network.state_dict().keys()
    return {name: value for name, value in weights.items() if name not in extra}


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU. Nothing in the file is run. Raises BadInput."""
    where = f"checkpoint {shown(path)}"
    if not os.path.isfile(path):
        raise BadInput(f"{where} is missing; correct the path, which is relative to the TOML file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():  # torch tells of unusual files in lines of its own
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise BadInput(f"{where} is damaged or truncated ({first_line(error)}); get it anew") from error
    except Exception as error:  # damaged files make torch fail in many ways
        if type(error).__name__ == "UnpicklingError":  # torch's own text proposes to run the file
            mend = "nothing in it was run; save the state_dict alone"
            raise BadInput(f"{where} holds more than weights, or is damaged: {mend}") from error
        raise BadInput(f"{where} is damaged, truncated or no checkpoint ({first_line(error)}); get it anew") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise BadInput(f"{where} is no table of weights; save the state_dict alone")
    return {str(name): value for name, value in content.items()}
