"""The digest of a build function's code: its own source and everything in the same project that it reaches by name.

Comments, docstrings and layout do not count. Code of installed libraries is not walked; their releases are part of
the numerics instead. What a build calls through an object is reached through the parameter's annotation, so build
functions annotate what they take.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from cl.digests import digest_json
from cl.errors import BadInput

ROOMS = frozenset({"cl", "strategies", "streams", "reports"})
Symbol = tuple[str, str]  # module, top-level name; "*" is the whole module


@cache
def code_digest(function: Callable[..., Any]) -> str:
    """Digest of `function` and of all project code it reaches. Raises BadInput if its source cannot be read."""
    module, name = function.__module__, function.__qualname__
    if "." in name:
        raise BadInput(f"build function {module}.{name} is not at module level; move it there")
    project = ROOMS | {module.partition(".")[0]}
    seen: dict[Symbol, str] = {}
    todo = [(module, name)]
    while todo:
        symbol = todo.pop()
        if symbol in seen:
            continue
        source = _module(symbol[0])
        seen[symbol] = source.text(symbol[1])
        todo += [found for found in source.reached(symbol[1]) if found[0].partition(".")[0] in project]
    return digest_json(sorted([*symbol, text] for symbol, text in seen.items()))


class _Module:
    """The top-level names of one module: what they are defined as, or where they are imported from."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self.name = name
        self.defined: dict[str, list[ast.stmt]] = {}
        self.imported: dict[str, Symbol] = {}
        self.body = tree.body
        for node in _flat(tree.body):
            self._index(node)

    def _index(self, node: ast.stmt) -> None:
        if isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), _package(self.name))
            for alias in node.names:
                self.imported[alias.asname or alias.name] = _member(origin, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                target = alias.name if alias.asname else alias.name.partition(".")[0]
                self.imported[alias.asname or target] = (target, "*")
        else:
            for name in _bound(node):
                self.defined.setdefault(name, []).append(node)

    def text(self, name: str) -> str:
        if name == "*":
            return "".join(ast.dump(_bare(node)) for node in self.body)
        if name in self.defined:
            return "".join(ast.dump(_bare(node)) for node in self.defined[name])
        return repr(self.imported.get(name))

    def reached(self, name: str) -> Iterator[Symbol]:
        if name in self.imported:
            yield self.imported[name]
            return
        for node in self.body if name == "*" else self.defined.get(name, []):
            yield from self._reached_from(node)

    def _reached_from(self, node: ast.stmt) -> Iterator[Symbol]:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name):
                origin = self.imported.get(inner.value.id)
                if origin and origin[1] == "*":
                    yield _member(origin[0], inner.attr)
            elif isinstance(inner, ast.Name) and inner.id in self.defined:
                yield self.name, inner.id
            elif isinstance(inner, ast.Name) and inner.id in self.imported and self.imported[inner.id][1] != "*":
                yield self.imported[inner.id]
            elif isinstance(inner, ast.ImportFrom) and inner not in self.body:
                origin_name = importlib.util.resolve_name("." * inner.level + (inner.module or ""), _package(self.name))
                yield from (_member(origin_name, alias.name) for alias in inner.names)


def _flat(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Top-level statements, those under `if TYPE_CHECKING:` and the like included."""
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            yield from _flat(node.body)
        else:
            yield node


def _bound(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)]


def _bare(node: ast.stmt) -> ast.stmt:
    """`node` without docstrings."""
    copy = ast.parse(ast.unparse(node)).body[0]
    for inner in ast.walk(copy):
        if isinstance(inner, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(inner) is not None:
            inner.body = inner.body[1:] or [ast.Pass()]
    return copy


def _package(module: str) -> str:
    return module if hasattr(sys.modules.get(module), "__path__") else module.rpartition(".")[0]


def _member(module: str, name: str) -> Symbol:
    """`from module import name` may name a submodule."""
    submodule = f"{module}.{name}"
    return (submodule, "*") if submodule in sys.modules else (module, name)


@cache
def _module(name: str) -> _Module:
    try:
        module = sys.modules.get(name) or importlib.import_module(name)
        return _Module(name, ast.parse(inspect.getsource(module)))
    except (OSError, TypeError) as error:
        raise BadInput(f"the source of module {name} cannot be read; put build functions into a file") from error
