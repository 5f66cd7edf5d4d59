"""What importing a module does beside binding names: statements that change something, registrations among them.

An assignment or definition is taken to do no more than to bind its name, unless it calls project code that changes what
is not its own: `@register` puts a function into a table from which a build may take it under no name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from cl.code import speech
from cl.code.names import Definition, Outside, Project, Target, running
from cl.code.scopes import parameters
from cl.code.sources import Function, Source, bound, source_of
from cl.code.speech import Resolve, in_module

MAKING = ("__init__", "__new__", "__post_init__")

_acting: dict[Definition, bool] = {}


def effects(source: Source, project: Project) -> list[ast.stmt]:
    """The top-level statements that change something when the module is imported, in their order."""
    resolve = in_module(source.name)
    return [node for node in source.statements if node in source.effects or _acts(node, source, project, resolve)]


def _acts(node: ast.stmt, source: Source, project: Project, resolve: Resolve) -> bool:
    if isinstance(node, Function | ast.ClassDef):
        registered = isinstance(node, ast.ClassDef) and _is_registered(node, source, project)
        return registered or any(_call_acts(mark, resolve) for mark in node.decorator_list)
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        return any(_call_acts(inner, resolve) for inner in ast.walk(node.value) if isinstance(inner, ast.Call))
    return False


def _is_registered(node: ast.ClassDef, source: Source, project: Project) -> bool:
    """Whether a base class of the project runs code for each of its subclasses."""
    found = running(Definition(source.name, node.name))
    if not isinstance(found, type):
        return False
    hooked = [base for base in found.__mro__[1:] if "__init_subclass__" in vars(base)]
    return any(project.holds(base.__module__) for base in hooked) or project.holds(type(found).__module__)


def _call_acts(node: ast.expr, resolve: Resolve) -> bool:
    """Whether calling (or decorating by) an expression changes what is not its own."""
    function = node.func if isinstance(node, ast.Call) else node
    target = resolve(function)
    if isinstance(target, Definition):
        return _definition_acts(target)
    return target is None and isinstance(resolve(_root(function)), Definition)  # a method of something of the project


def _definition_acts(target: Definition) -> bool:
    if target not in _acting:
        _acting[target] = False
        statements = source_of(target.module).defined.get(target.name, [])
        _acting[target] = any(_statement_acts(one, target.module) for one in statements)
    return _acting[target]


def _statement_acts(node: ast.stmt, module: str) -> bool:
    if isinstance(node, ast.ClassDef):
        making = [one for one in node.body if isinstance(one, Function) and one.name in MAKING]
        return any(_statement_acts(one, module) for one in making)
    if isinstance(node, ast.Assign | ast.AnnAssign):  # an object that is called: what is it?
        made = node.value.func if isinstance(node.value, ast.Call) else None
        return made is not None and isinstance(in_module(module)(made), Definition)
    if not isinstance(node, Function):
        return True
    resolve = in_module(module, frozenset(_own_names(node)))
    return not _is_marked(node, resolve) and any(_node_acts(inner, resolve) for inner in ast.walk(node))


def _node_acts(node: ast.AST, resolve: Resolve) -> bool:
    if isinstance(node, ast.Global):
        return True
    if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
        return resolve(_root(node)) is not None
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return speech.said(node.value, resolve) is None and _is_beyond(resolve(_root(node.value.func)))
    if isinstance(node, ast.Call):
        return _call_acts(node, resolve)
    return False


def _is_beyond(target: Target | None) -> bool:
    return isinstance(target, Outside) and not target.name.startswith("builtins.")


def _is_marked(node: ast.FunctionDef | ast.AsyncFunctionDef, resolve: Resolve) -> bool:
    return any(isinstance(mark, ast.Call) and resolve(mark.func) == speech.UNKEYED for mark in node.decorator_list)


def _own_names(node: ast.AST) -> Iterator[str]:
    """Every name that a function or a function inside it binds."""
    for inner in ast.walk(node):
        if isinstance(inner, Function | ast.Lambda):
            yield from (one.arg for one in parameters(inner.args))
            yield from bound(inner.body) if isinstance(inner, Function) else ()
        elif isinstance(inner, ast.comprehension):
            yield from bound([inner.target])


def _root(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node
