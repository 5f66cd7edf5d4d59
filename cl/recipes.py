"""Streams and strategies by what a run's request says of them, in any process."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cl import registry
from cl.digests import digest_json
from cl.errors import BadInput
from cl.stream import Stream

if TYPE_CHECKING:
    from cl.strategy import Strategy

OBJECT = "it was made from Python objects without a name; run it by names, or from importable code"


def stream_of(recipe: Mapping[str, Any]) -> Stream:
    """The stream of a recipe: {"name": registry name or `module:factory`, "arguments": its keyword arguments}.

    Raises UnknownName, or BadInput for a stream that was made from bare objects.
    """
    name = recipe["name"]
    if name == "object":
        raise BadInput(f"the stream of this run cannot be made again: {OBJECT}")
    factory: Callable[..., Stream] = _imported(name) if ":" in name else registry.streams.get(name)
    return factory(**recipe["arguments"])


def strategy_of(name: str) -> type[Strategy]:
    """The strategy of a registry name or of `module:Class`. Raises UnknownName or BadInput."""
    found: type[Strategy] = _imported(name) if ":" in name else registry.strategies.get(name)
    return found


def content_digest(stream: Stream) -> str:
    """Digest of all that a stream holds: names, order, subjects, access labels and pixels."""
    shards = [shard.digest for task in stream.tasks for shard in (task.train, task.test)]
    return digest_json([stream.resolution(), shards])


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(f"{place} cannot be imported ({error}): {OBJECT}") from error
