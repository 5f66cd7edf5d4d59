"""Hyperparameters: frozen, validated dataclasses; settings that several methods share are declared here once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo

from cl.adapters.bottleneck import Shape
from cl.code import unkeyed
from cl.errors import BadInput, UnknownName
from cl.learning.train import Optimisation, Tuning

Hyper = TypeVar("Hyper")


@unkeyed("values count where they are given")
def setting(default: Any, doc: str, source: str, **bounds: Any) -> Any:
    """One hyperparameter: default, what it does, where the default comes from, and pydantic bounds (ge, gt, le, lt)."""
    return Field(default=default, description=doc, json_schema_extra={"source": source}, **bounds)


hyperparameters = dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))


@hyperparameters
class Training:
    """What every method that trains by gradient takes."""

    epochs: int = setting(20, "passes over a task's images", "EASE, section 4.1", ge=1, le=10_000)
    batch_size: int = setting(48, "images a step", "EASE, section 4.1", ge=1, le=65_536)
    lr: float = setting(
        0.01, "learning rate of the first epoch; cosine to 0, stepped per epoch", "EASE, section 4.1", gt=0
    )
    weight_decay: float = setting(5e-4, "L2 on everything that is trained", "EASE, released presets", ge=0)

    @property
    def optimisation(self) -> Optimisation:
        """How a build trains by these settings."""
        return Optimisation(self.epochs, self.batch_size, self.lr, self.weight_decay)


@hyperparameters
class AdapterTraining(Training):
    """What every method with bottleneck adapters takes."""

    bottleneck: int = setting(16, "hidden width r of the adapter", "EASE, section 4.1", ge=1)
    scale: float = setting(0.1, "factor s of the adapter's branch", "released code of EASE", ge=0)
    dropout: float = setting(
        0.1, "dropout on the adapter's hidden units, in training", "released code of EASE", ge=0, lt=1
    )

    @property
    def shape(self) -> Shape:
        """The adapter that a build trains by these settings."""
        return Shape(self.bottleneck, self.scale, self.dropout)

    @property
    def tuning(self) -> Tuning:
        """How a build trains it, with a head above."""
        return Tuning(self.shape, self.optimisation)


def resolve(
    hyper: type[Hyper], presets: Mapping[str, Mapping[str, Any]], chosen: list[str], sets: Mapping[str, Any]
) -> Hyper:
    """Defaults, then the chosen presets in order, then `sets` (text or typed values).

    Raises UnknownName for a preset or setting that is not there, BadInput for a value out of range.
    """
    values: dict[str, Any] = {}
    for name in chosen:
        if name not in presets:
            raise UnknownName("preset", name, presets)
        values |= presets[name]
    names = [field.name for field in dataclasses.fields(hyper)]  # type: ignore[arg-type]
    for name in sets:
        if name not in names:
            raise UnknownName("hyperparameter", name, names)
    try:
        return TypeAdapter(hyper).validate_python({**values, **sets})
    except ValidationError as error:
        raise BadInput(_refused(error)) from None


def _refused(error: ValidationError) -> str:
    """What is wrong with the first setting that is refused; where it may be one of several types, with each of them."""
    first = error.errors()[0]
    same = [one for one in error.errors() if one["loc"][0] == first["loc"][0] and one["input"] == first["input"]]
    place = ".".join(str(part) for part in (first["loc"] if len(same) == 1 else first["loc"][:1]))
    return f"hyperparameter {place} = {first['input']!r}: {', or '.join(one['msg'].lower() for one in same)}"


def describe(hyper: type) -> list[dict[str, Any]]:
    """Name, type, default, range, meaning and source of every hyperparameter."""
    hints = get_type_hints(hyper)
    return [_describe_one(field, hints[field.name]) for field in dataclasses.fields(hyper)]


def _describe_one(field: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    info = field.default
    assert isinstance(info, FieldInfo)
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    schema = TypeAdapter(hint).json_schema()
    return {
        "name": field.name,
        "type": "|".join(map(str, schema["enum"])) if "enum" in schema else schema.get("type", "value"),
        "default": info.default,
        "range": " and ".join(_bound(meta) for meta in info.metadata) or None,
        "about": info.description,
        "source": extra.get("source"),
    }


def _bound(meta: Any) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return " and ".join(f"{sign} {getattr(meta, name)}" for name, sign in signs.items() if hasattr(meta, name))
