"""Which names of a function are its own. Python's rules: a name belongs to the scope that binds it, class bodies are
not seen from the functions inside them, and `global` and `nonlocal` say otherwise."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from cl.code.sources import Function, Import, Origin, Source, bound, outer_parts


@dataclass(eq=False)
class Scope:
    """One scope inside a definition.

    imports: names that one import binds and nothing else, and where they come from. errors: names that hold an
    exception; they may be raised again, but who reads them reads a message. assigned: names and what they are given.
    """

    kind: Literal["function", "class"]
    outer: Scope | None
    bound: set[str]
    globals: set[str] = field(default_factory=set)
    nonlocals: set[str] = field(default_factory=set)
    imports: dict[str, Origin] = field(default_factory=dict)
    errors: set[str] = field(default_factory=set)
    assigned: list[tuple[str, ast.expr]] = field(default_factory=list)

    def owner(self, name: str) -> Scope | None:
        """The scope whose `name` is meant here; None for a global one."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.globals:
                return None
            if name in scope.bound - scope.nonlocals and (scope is self or scope.kind != "class"):
                return scope
            scope = scope.outer
        return None


def of_function(node: Function | ast.Lambda, outer: Scope | None, source: Source) -> Scope:
    arguments = {one.arg for one in parameters(node.args)}
    body: Sequence[ast.AST] = [node.body] if isinstance(node, ast.Lambda) else node.body
    return _scope("function", arguments, body, outer, source)


def of_class(node: ast.ClassDef, outer: Scope | None, source: Source) -> Scope:
    return _scope("class", set(), node.body, outer, source)


def of_comprehension(targets: Sequence[ast.expr], outer: Scope | None) -> Scope:
    return Scope("function", outer, bound(targets))


def parameters(arguments: ast.arguments) -> list[ast.arg]:
    """All parameters, in the order of the signature."""
    one = [*arguments.posonlyargs, *arguments.args, arguments.vararg, *arguments.kwonlyargs, arguments.kwarg]
    return [argument for argument in one if argument is not None]


def _scope(
    kind: Literal["function", "class"], first: set[str], body: Sequence[ast.AST], outer: Scope | None, source: Source
) -> Scope:
    inside = [node for part in body for node in _own(part)]
    declared = {type_: _declared(inside, type_) for type_ in (ast.Global, ast.Nonlocal)}
    names = (first | bound(body)) - declared[ast.Global]
    scope = Scope(kind, outer, names, declared[ast.Global], declared[ast.Nonlocal])
    found = [pair for node in inside if isinstance(node, Import) for pair in source.origins(node)]
    times = [name for node in inside for name in _bindings(node)]
    scope.imports = {name: origin for name, origin in found if times.count(name) == 1 and name not in first}
    scope.errors = {node.name for node in inside if isinstance(node, ast.ExceptHandler) and node.name}
    scope.assigned = [
        (target.id, node.value)
        for node in inside
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    return scope


def _declared(inside: Sequence[ast.AST], type_: type[ast.Global] | type[ast.Nonlocal]) -> set[str]:
    return {name for node in inside if isinstance(node, type_) for name in node.names}


def _own(node: ast.AST) -> list[ast.AST]:
    """The nodes of a statement that belong to the scope it stands in."""
    if isinstance(node, Function | ast.ClassDef | ast.Lambda):
        return [node, *(inner for part in outer_parts(node) for inner in _own(part))]
    return [node, *(inner for part in ast.iter_child_nodes(node) for inner in _own(part))]


def _bindings(node: ast.AST) -> list[str]:
    """The names that this very node binds, one entry a time."""
    if isinstance(node, Import):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        return [node.id]
    if isinstance(node, Function | ast.ClassDef | ast.ExceptHandler | ast.MatchAs):
        return [node.name] if node.name else []
    return []
