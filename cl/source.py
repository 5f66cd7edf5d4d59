"""What the source of a module says of a class or function, read without importing it.

A list of strategies shows their titles; importing the module of each would load torch and more. Only what stands there
plainly is told: a text assigned in the body of the class or of its one base, a docstring (of a decorated function too:
what wraps one passes it on). All else is left to an import.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, resolve_name

Definition = ast.ClassDef | ast.FunctionDef


def texts(module: str, name: str, attributes: Sequence[str]) -> dict[str, str] | None:
    """Attributes of `name` in `module` that are texts; None where the source does not say each of them plainly."""
    try:
        where, node = _definition(module, name)
        return {attribute: _text(where, node, attribute) for attribute in attributes}
    except Exception:  # whatever is wrong with a foreign module: importing it says it better
        return None


def _text(module: str, node: Definition, attribute: str) -> str:
    if attribute == "__doc__":
        return ast.get_docstring(node) or ""
    if not isinstance(node, ast.ClassDef):
        raise LookupError(attribute)
    match [one for one in node.body if attribute in _bound(one)]:
        case [ast.Assign(value=ast.Constant(value=str(text))) | ast.AnnAssign(value=ast.Constant(value=str(text)))]:
            return text
        case []:
            return _text(*_definition(module, _base(node)), attribute)
    raise LookupError(attribute)


def _base(node: ast.ClassDef) -> str:
    """The one base of a class; `Strategy` of `Strategy[Hyper]`."""
    match node.bases:
        case [ast.Name(id=name) | ast.Subscript(value=ast.Name(id=name))]:
            return name
    raise LookupError(node.name)


def _definition(module: str, name: str) -> tuple[str, Definition]:
    """The class or function that `name` is in `module`, after the module that it is written in."""
    spec = _spec(module)
    match [one for one in _statements(_body(spec)) if name in _bound(one)]:
        case [ast.ClassDef(decorator_list=[], keywords=[]) | ast.FunctionDef() as found]:
            return module, found
        case [ast.ImportFrom(module=origin, names=aliases, level=level)]:
            original = next(one.name for one in aliases if name == (one.asname or one.name))
            return _definition(resolve_name("." * level + (origin or ""), spec.parent), original)
    raise LookupError(name)


def _spec(module: str) -> ModuleSpec:
    """How `module` would be imported; the packages above it, which `find_spec` alone would import, are not."""
    top, *below = module.split(".")
    spec = find_spec(top)
    for name in below:
        spec = PathFinder.find_spec(f"{spec.name}.{name}", spec.submodule_search_locations) if spec else None
    if spec is None:
        raise LookupError(module)
    return spec


def _body(spec: ModuleSpec) -> list[ast.stmt]:
    source = spec.loader.get_source(spec.name) if isinstance(spec.loader, InspectLoader) else None
    if source is None:
        raise LookupError(spec.name)
    return ast.parse(source).body


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module; what it imports for type checkers alone is taken to be there, as `from cl import Strategy`."""
    for one in body:
        if isinstance(one, ast.If) and isinstance(one.test, ast.Name) and one.test.id == "TYPE_CHECKING":
            yield from _statements(one.body)
        else:
            yield one


def _bound(statement: ast.stmt) -> set[str]:
    """The names that a statement gives a value, or an attribute."""
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        return {statement.name}
    return {name for node in ast.walk(statement) if (name := _name(node)) is not None}


def _name(node: ast.AST) -> str | None:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.alias(name=name, asname=None):
            return name
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(value=ast.Name(id=name), ctx=ast.Store()):
            return name
        case ast.alias(asname=str(name)):
            return name
    return None
