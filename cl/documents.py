"""What files hold, as frozen dataclasses: written as canonical JSON, read back only as what their fields declare.

A document is the whole content of a file and carries a schema number; what lies inside one is a plain frozen dataclass.
Fields are texts, numbers, truth values, None, literals, tuples, mappings from texts, and frozen dataclasses of these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from cl.digests import canonical
from cl.errors import StoreError, Unusable

Kind = TypeVar("Kind")
_SCALARS = (str, int, bool)


class Document:
    """Base of a frozen dataclass that a file holds. SCHEMA counts up whenever what its fields say changes."""

    SCHEMA: ClassVar[int] = 1

    def to_json(self) -> bytes:
        """Canonical JSON: the fields, and the schema."""
        return canonical({"schema": self.SCHEMA, **plain(self)})

    @classmethod
    def from_json(cls, text: bytes, name: str, mend: str) -> Self:
        """The document in `text`. name, mend: what the file is and what helps, for the one line of a StoreError where
        it is damaged, or Unusable where a newer release wrote it."""
        try:
            content = json.loads(text)
            schema = content.pop("schema")
            if isinstance(schema, int) and schema > cls.SCHEMA:
                raise Unusable(f"{name} is of a newer release (schema {schema}); use that release or another --home")
            if schema != cls.SCHEMA:
                raise ValueError(f"schema {schema!r}")
            return typed(cls, content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{name} is damaged; {mend}") from error


Kept = TypeVar("Kept", bound=Document)


def read_document(path: Path, kind: type[Kept], name: str, mend: str) -> Kept:
    """The document in a file. Errors are those of `from_json`, and StoreError where the file cannot be read."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{name} cannot be read ({error.strerror}); {mend}") from error
    return kind.from_json(text, name, mend)


def plain(value: Any) -> Any:
    """`value` as JSON has it: dataclasses and mappings as objects, tuples as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    return value


def typed(kind: type[Kind], value: Any) -> Kind:
    """`value`, plain JSON, as an object of `kind`. Raises ValueError, or TypeError where a field without a default is
    missing, unless it is what `kind` declares."""
    made: Kind = _typed(kind, value)
    return made


def _typed(kind: Any, value: Any) -> Any:
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _object(kind, value)
    if kind in _SCALARS and type(value) is kind:
        return value
    if kind is float and type(value) in (int, float):
        return float(value)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if value is None else _typed(next(one for one in inner if one is not type(None)), value)
    if origin is Literal and value in inner:
        return value
    if origin is tuple and isinstance(value, list):
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return tuple(_typed(one, item) for one, item in zip(kinds, value, strict=True))
    if origin is Mapping and isinstance(value, dict):
        return {name: _typed(inner[1], one) for name, one in value.items()}
    raise ValueError(f"{value!r:.40} is not {kind}")


def _object(kind: Any, value: Any) -> Any:
    hints = _hints(kind)
    if not isinstance(value, dict) or not value.keys() <= hints.keys():
        raise ValueError(f"the fields of {kind.__name__} are {', '.join(hints)}")
    return kind(**{name: _typed(hints[name], one) for name, one in value.items()})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    known = get_type_hints(kind)
    return {field.name: known[field.name] for field in fields(kind)}
