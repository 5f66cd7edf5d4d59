"""Classic benchmarks by name: `avalanche:SplitMNIST`."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cl import Recipe, Seeds, Stream
from cl.errors import BadInput
from streams.avalanche.conversion import from_avalanche
from streams.avalanche.present import require_avalanche

OURS = ("data", "image_size")


class Classic:
    """The factory of one classic benchmark. Its arguments are Avalanche's own, and `image_size`."""

    def __init__(self, name: str, about: str) -> None:
        self.name, self.__doc__ = name, about

    def __call__(self, data: str | None = None, image_size: int | None = None, **arguments: Any) -> Stream:
        if data is None:
            raise BadInput(f"stream 'avalanche:{self.name}' needs --data DIR, the folder that holds its files")
        stream = from_avalanche(self._benchmark(data, arguments), f"avalanche:{self.name}", image_size)
        given = arguments if image_size is None else {**arguments, "image_size": image_size}
        return replace(stream, recipe=Recipe(stream.name, given, place={"data": os.path.abspath(data)}))

    @property
    def __signature__(self) -> inspect.Signature:
        """Avalanche's arguments beside those that are ours to give."""
        own = inspect.signature(Classic.__call__, eval_str=True).parameters
        theirs = inspect.signature(self._function()).parameters.values()
        kept = [_typed(one) for one in theirs if not one.name.endswith("_transform") and "_root" not in one.name]
        return inspect.Signature([*kept, *(own[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in OURS)])

    def _function(self) -> Callable[..., Any]:
        require_avalanche()
        from avalanche.benchmarks import classic

        found: Callable[..., Any] = getattr(classic, self.name)
        return found

    def _benchmark(self, data: str, arguments: Mapping[str, Any]) -> Any:
        """Avalanche's benchmark. What it draws comes from here, even where its own seed is left out."""
        function = self._function()
        roots = [name for name in inspect.signature(function).parameters if name.startswith("dataset_root")]
        with Seeds(f"avalanche|{self.name}").forked("benchmark"), contextlib.redirect_stdout(io.StringIO()):
            try:
                return function(**arguments, **dict.fromkeys(roots, Path(data)))
            except Exception as error:  # a library, its mirrors and foreign files fail in many ways
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
                raise BadInput(f"avalanche:{self.name} cannot be made from {data}: {reason}") from error


def _typed(parameter: inspect.Parameter) -> inspect.Parameter:
    """A keyword with a type, its default's where Avalanche names none."""
    kind: Any = parameter.annotation
    if kind is parameter.empty:
        kind = Any if parameter.default in (None, parameter.empty) else type(parameter.default)
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind)
