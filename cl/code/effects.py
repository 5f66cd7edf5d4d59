"""What importing a module does beside binding names, and to what: registrations, patches, settings of libraries.

`@register` may put a function into a table from which a build takes it under no name; `torch.set_default_dtype(...)`
changes what every build computes. A statement that changes a name of the project counts for code that reaches the
name, one that changes anything else for all code that loads the module. The engine's functions are taken to change
nothing that a build reads, and an assignment or definition no more than its own name unless what it calls does.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache

from cl.code import speech
from cl.code.names import Definition, Outside, Project, running
from cl.code.scopes import parameters
from cl.code.sources import Function, Source, bound, source_of
from cl.code.speech import Resolve, in_module

ENGINE = "cl"
Call = tuple[Definition, tuple[str, ...]]
MAKING = ("__init__", "__new__", "__post_init__")


@dataclass(frozen=True)
class Change:
    """What a statement may change. beyond: also what the project does not define. calls: functions and classes of the
    project that it calls, and which methods of these; what they change is not among the others yet."""

    names: frozenset[Definition] = frozenset()
    beyond: bool = False
    calls: frozenset[Call] = frozenset()

    def concerns(self, reached: Iterable[object]) -> bool:
        """Whether code that reaches these definitions may see it."""
        return self.beyond or not self.names.isdisjoint(reached)


NOTHING = Change()


def changes(source: Source, project: Project) -> dict[int, Change]:
    """The top-level statements that may change something else than the names they bind, by their place."""
    found = {place: _with_calls(_of_statement(node, source, project)) for place, node in enumerate(source.statements)}
    return {place: change for place, change in found.items() if change != NOTHING}


def _with_calls(change: Change) -> Change:
    """What a statement changes itself or by any function that it calls."""
    seen: set[Call] = set()
    found = [change]
    for one in found:
        new = one.calls - seen
        seen |= new
        found += [_of_definition(*call) for call in new]
    return replace(_all(found), calls=frozenset())


def _of_statement(node: ast.stmt, source: Source, project: Project) -> Change:
    resolve = in_module(source.name)
    if isinstance(node, ast.ClassDef):
        marks = [_of_call(mark, resolve) for mark in node.decorator_list]
        return _all([*marks, *_of_hooks(Definition(source.name, node.name), project)])
    if isinstance(node, Function):
        return _all(_of_call(mark, resolve) for mark in node.decorator_list)
    own = bound([node]) - {"_"}
    found = _all(_of_node(inner, resolve) for inner in ast.walk(node))
    return replace(found, names=found.names - {Definition(source.name, name) for name in own})


def _of_hooks(target: Definition, project: Project) -> Iterator[Change]:
    """What base classes and metaclasses of the project do when a class is made."""
    found = running(target)
    kinds = [*found.__mro__[1:], type(found)] if isinstance(found, type) else []
    for kind in kinds:
        if project.holds(kind.__module__):
            methods = MAKING if issubclass(kind, type) else ("__init_subclass__",)
            yield Change(calls=frozenset([(Definition(kind.__module__, kind.__qualname__), methods)]))


def _of_node(node: ast.AST, resolve: Resolve) -> Change:
    """What evaluating one node may change, without the nodes inside it."""
    if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
        return _all([_of_target(node, resolve), _of_target(_root(node), resolve)])
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        return _all([Change(beyond=_sets_beyond(node.value, resolve)), _given(node.value, resolve)])
    return _of_call(node, resolve) if isinstance(node, ast.Call) else NOTHING


def _sets_beyond(call: ast.Call, resolve: Resolve) -> bool:
    """Whether a call whose result is not used changes something outside the project: what else would it be for?"""
    target = resolve(call.func)
    if not isinstance(target, Outside) or speech.said(call, resolve) is not None:
        return False
    if target.name in ("builtins.setattr", "builtins.delattr"):
        return bool(call.args) and isinstance(resolve(_root(call.args[0])), Outside)
    return not target.name.startswith("builtins.") or target.name in ("builtins.exec", "builtins.eval")


def _of_target(node: ast.expr, resolve: Resolve) -> Change:
    target = resolve(node)
    if isinstance(target, Definition):
        return Change(frozenset([target]))
    return Change(beyond=isinstance(target, Outside))


def _of_call(node: ast.expr, resolve: Resolve) -> Change:
    """What calling an expression, or decorating by it, may change. A library's function whose result is used is taken
    to change nothing."""
    if isinstance(node, ast.Call) and speech.said(node, resolve) is not None:
        return NOTHING
    function = node.func if isinstance(node, ast.Call) else node
    target = resolve(function)
    if isinstance(target, Definition):
        return replace(_given(node, resolve), calls=frozenset([(target, MAKING)]))
    root = resolve(_root(function)) if target is None else None
    return Change(frozenset([root])) if isinstance(root, Definition) else NOTHING


def _given(node: ast.expr, resolve: Resolve) -> Change:
    """What a call is given, all of which it may change; the engine changes nothing."""
    target = resolve(node.func if isinstance(node, ast.Call) else node)
    if isinstance(target, Definition) and _is_engine(target):
        return NOTHING
    arguments = [*node.args, *(one.value for one in node.keywords)] if isinstance(node, ast.Call) else []
    roots = [resolve(_root(one)) for one in arguments]
    return Change(frozenset(root for root in roots if isinstance(root, Definition)))


@cache
def _of_definition(target: Definition, methods: tuple[str, ...]) -> Change:
    """What calling a function or making an object of a class may change."""
    if _is_engine(target):
        return NOTHING
    statements = source_of(target.module).defined.get(target.name, [])
    return _all(_of_body(one, target, methods) for one in statements)


def _of_body(node: ast.stmt, target: Definition, methods: tuple[str, ...]) -> Change:
    if isinstance(node, ast.ClassDef):
        made = [one for one in node.body if isinstance(one, Function) and one.name in methods]
        return _all(_of_body(one, target, methods) for one in made)
    if isinstance(node, Function):
        resolve = in_module(target.module, frozenset(_own_names(node)))
        names = {name for inner in ast.walk(node) if isinstance(inner, ast.Global) for name in inner.names}
        written = Change(frozenset(Definition(target.module, name) for name in names))
        return _all([written, *(_of_node(inner, resolve) for inner in ast.walk(node))])
    called = node.value.func if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) else None
    made_here = called is not None and isinstance(in_module(target.module)(called), Definition)
    return Change(frozenset([target])) if made_here else NOTHING  # an object of the project may change when called


def _is_engine(target: Definition) -> bool:
    return target.module.partition(".")[0] == ENGINE


def _own_names(node: ast.AST) -> Iterator[str]:
    """Every name that a function or a function inside it binds."""
    for inner in ast.walk(node):
        if isinstance(inner, Function | ast.Lambda):
            yield from (one.arg for one in parameters(inner.args))
            yield from bound(inner.body) if isinstance(inner, Function) else ()
        elif isinstance(inner, ast.comprehension):
            yield from bound([inner.target])


def _all(parts: Iterable[Change]) -> Change:
    found = list(parts)
    names = frozenset(name for one in found for name in one.names)
    calls = frozenset(call for one in found for call in one.calls)
    return Change(names, any(one.beyond for one in found), calls)


def _root(node: ast.expr) -> ast.expr:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node
