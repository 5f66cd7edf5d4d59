"""Streams from what names them: a registered name, `module:factory`, a TOML file, or the recipe of an earlier run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from cl import registry
from cl.data.stream import Recipe, Stream
from cl.digests import digest_json
from cl.documents import plain
from cl.errors import BadInput, first_line, shown
from cl.home.files import Files
from cl.tables import read_toml

if TYPE_CHECKING:
    pass


TOML = ".toml"
OBJECT = "it was made from Python objects without a name; run it by names, or from importable code"


HUSHED = "the stream cannot be read now; palimpsest access, or a run without --as, tells whoever keeps it why"


def resolve_stream(
    stream: str | Path | Recipe | Stream,
    data: str | Path | None = None,
    home: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Stream:
    """The stream that `stream` names, or the object itself.

    data: where the files of a named stream lie. home: where a run remembers digests of files; None for nowhere.
    arguments: of the factory of a named stream, as text or typed. Raises UnknownName for a name that is not registered,
    BadInput for a file, folder or argument that cannot be used.
    """
    found = declared_stream(stream, data, home, arguments)
    found.check()
    return found


def declared_stream(
    stream: str | Path | Recipe | Stream,
    data: str | Path | None = None,
    home: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    user: str | None = None,
) -> Stream:
    """The same with its faults, for a view to be taken of it. user: whom the view is for, if anybody: what is wrong
    with the source as a whole is not for every user, who gets one neutral line."""
    if arguments and (isinstance(stream, Stream | Recipe) or str(stream).endswith(TOML)):
        raise BadInput(f"this stream takes no {next(iter(arguments))}; arguments belong to a stream by name")
    if isinstance(stream, Stream):
        return stream
    if isinstance(stream, Recipe):
        with _hushed(user):
            return _again(stream, Files(home, keeps=False))
    if str(stream).endswith(TOML):
        if data is not None:
            raise BadInput(f"{shown(stream)} names its own data; leave --data out")
        return _from_toml(Path(stream), Files(home), user)
    place = {} if data is None else {"data": str(data)}
    return _from_factory(str(stream), {**(arguments or {}), **place}, user)


def arguments_of(stream: str) -> list[str]:
    """What the factory of a stream takes beside `data`; nothing for a TOML file. Raises UnknownName or BadInput."""
    if stream.endswith(TOML):
        return []
    return [name for name in _parameters(stream, _factory(stream)) if name != "data"]


def content_digest(stream: Stream) -> str:
    """Digest of all that a stream holds: names, order, subjects, access labels, policy and pixels."""
    shards = [shard.digest for shard in stream.shards]
    return digest_json([plain(stream.resolution()), stream.policy.as_json(), shards])


def _again(recipe: Recipe, files: Files) -> Stream:
    if "file" in recipe.place:
        return _from_toml(Path(recipe.place["file"]), files)
    return _from_factory(recipe.name, {**recipe.arguments, **recipe.place})


@contextmanager
def _hushed(user: str | None) -> Iterator[None]:
    """For a user, no word of what is wrong: it may name files that not every user may know of."""
    try:
        yield
    except BadInput as error:
        if user is None:
            raise
        raise BadInput(HUSHED) from error


def _from_toml(path: Path, files: Files, user: str | None = None) -> Stream:
    """The engine knows no kind of stream: the factory registered for the file's `kind` reads the rest."""
    table = read_toml(path)
    kind = table.get("kind")
    if not isinstance(kind, str):
        known = ", ".join(registry.stream_kinds.names())
        raise BadInput(f'{shown(path)} has no kind; add kind = "..." (one of {known})')
    factory = registry.stream_kinds.get(kind)
    with _hushed(user):
        made: Stream = factory(path, table, files)
    return made


def _from_factory(name: str, arguments: Mapping[str, Any], user: str | None = None) -> Stream:
    factory = _factory(name)
    accepted = _parameters(name, factory)
    unknown = sorted(set(arguments) - set(accepted))
    if unknown:
        mend = "leave --data out" if unknown == ["data"] else f"it takes {', '.join(accepted) or 'none'}"
        raise BadInput(f"stream '{name}' takes no {unknown[0]}; {mend}")
    missing = [key for key, one in accepted.items() if one.default is one.empty and key not in arguments]
    if missing:
        raise BadInput(f"stream '{name}' needs {missing[0]}; give it as --set {missing[0]}=...")
    given = {key: _typed(name, accepted[key], value) for key, value in arguments.items()}
    with _hushed(user):
        made = factory(**given)
    if not isinstance(made, Stream):
        raise BadInput(f"'{name}' made a {type(made).__name__}, not a Stream; check the factory")
    return made


def _factory(name: str) -> Callable[..., Any]:
    factory: Callable[..., Any] = (
        registry.streams.get(name) if registry.streams.knows(name) else registry.imported(name, "stream")
    )
    return factory


def _parameters(name: str, factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory, eval_str=True).parameters
    except (ValueError, TypeError, NameError) as error:  # not every callable tells what it takes
        raise BadInput(f"'{shown(name)}' makes no stream ({first_line(error)}); name a function") from error


def _typed(stream: str, parameter: inspect.Parameter, value: Any) -> Any:
    """`value` as the parameter's annotation wants it; lists may be given as JSON. Raises BadInput."""
    if parameter.annotation is parameter.empty:
        return value
    wanted: TypeAdapter[Any] = TypeAdapter(parameter.annotation)
    try:
        return (
            wanted.validate_json(value)
            if isinstance(value, str) and value.startswith("[")
            else wanted.validate_python(value)
        )
    except ValidationError as error:
        what = error.errors()[0]["msg"].lower()
        raise BadInput(f"stream '{stream}': {parameter.name} = {value!r}: {what}") from None
