"""TOML files: read and checked, with every fault in one line that names the file and the place."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from cl.errors import BadInput, UnknownName, shown


class Table(BaseModel):
    """Base of what a TOML file may hold: unknown keys are refused, types are strict (`1` is no string)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Checked = TypeVar("Checked", bound=Table)


def read_toml(path: Path) -> dict[str, Any]:
    """The file's content. Raises BadInput where it is missing, unreadable or not TOML, or its name, which names what it
    describes, is no text."""
    try:
        path.name.encode("utf-8")
    except UnicodeEncodeError:
        raise BadInput(f"file name {shown(path)} is not UTF-8; rename it") from None
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise BadInput(f"{shown(path)} cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{shown(path)} is not UTF-8 text; save it as UTF-8") from error
    except RecursionError as error:
        raise BadInput(f"{shown(path)} is nested too deeply; a stream or backbone needs two levels") from error
    except ValueError as error:  # tomllib's own, and numbers of too many digits
        raise BadInput(f"{shown(path)} is not valid TOML: {error}") from error


def check_table(model: type[Checked], content: dict[str, Any], path: Path) -> Checked:
    """`content` as `model`. Raises BadInput naming the key; UnknownName, with the nearest, for a key not known."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UnknownName("key", key, _keys(model), where=shown(path)) from None
        if first["type"] == "missing":
            raise BadInput(f"{shown(path)} has no '{key}'; add it") from None
        told = str(first.get("ctx", {}).get("error", first["msg"]))
        raise BadInput(f"{shown(path)}: {f'{key}: ' if key else ''}{told}") from None


def _keys(model: type[BaseModel], before: str = "") -> Iterator[str]:
    """Every key that the file may hold; those of a table in it as `table.key`."""
    for name, field in model.model_fields.items():
        yield before + name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _keys(kind, f"{before}{name}.")
