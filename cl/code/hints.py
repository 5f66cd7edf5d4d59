"""What annotations say: which classes of the project they lead to, and who may read them when code runs."""

from __future__ import annotations

import ast

from cl.code import speech
from cl.code.names import Definition, Node, Outside, Project, Target, running
from cl.code.sources import Function, source_of
from cl.errors import BadInput

# These read no annotation of what they decorate, nor of the classes that inherit from them.
PLAIN = frozenset(
    [
        *("builtins.property", "builtins.staticmethod", "builtins.classmethod", "builtins.object"),
        *("functools.cache", "functools.lru_cache", "functools.cached_property", "functools.wraps"),
        *("functools.total_ordering", "contextlib.contextmanager", "abc.abstractmethod", "abc.ABC"),
        *("dataclasses.dataclass", "enum.Enum", "enum.StrEnum", "enum.IntEnum"),
        *("typing.Protocol", "typing.Generic", "typing.final", "typing.overload", "typing.override"),
        *("typing_extensions.override", "typing.runtime_checkable", "typing.NamedTuple"),
        *("torch.no_grad", "torch.inference_mode", "torch.enable_grad", "torch.nn.Module"),
        *("collections.abc.Mapping", "collections.abc.Sequence"),
        "cl.learning.hyper.hyperparameters",  # its values come from outside a build, and are arguments of it
    ]
)
# Annotations that say what a field is, not what it holds.
KINDS = ("ClassVar", "InitVar", "KW_ONLY", "Annotated")


def may_be_read_by(node: ast.expr, resolve: speech.Resolve, project: Project) -> bool:
    """Whether a decorator or base class may read annotations; one of the project's own would be seen to."""
    node = node.func if isinstance(node, ast.Call) else node.value if isinstance(node, ast.Subscript) else node
    target = resolve(node)
    if isinstance(target, Outside):
        return target.name not in PLAIN and not speech.is_error(target)
    if not isinstance(target, Definition):
        return not (isinstance(node, ast.Attribute) and node.attr in ("setter", "getter", "deleter"))
    statements = source_of(target.module).defined.get(target.name, [])
    if not all(isinstance(one, Function | ast.ClassDef) for one in statements):
        return f"{target.module}.{target.name}" not in PLAIN
    return any(_base_may_read(base, project) for base in getattr(running(target), "__mro__", ()))


def _base_may_read(kind: type, project: Project) -> bool:
    plain = f"{kind.__module__}.{kind.__qualname__}" in PLAIN or kind.__module__ == "builtins"
    return not plain and not project.holds(kind.__module__) and not issubclass(kind, BaseException)


def says_kind(written: str | None) -> bool:
    """Whether the annotation of a class's field says more than what the field holds."""
    return written is not None and any(kind in written for kind in KINDS)


def classes(node: ast.expr, module: str, project: Project, seen: frozenset[str] = frozenset()) -> set[Node]:
    """The project's classes that an annotation names, through the aliases that it uses."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            return classes(ast.parse(node.value, mode="eval").body, module, project, seen)
        except SyntaxError:
            return set()
    if not isinstance(node, ast.Name | ast.Attribute):
        parts = [one for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr)]
        return {found for one in parts for found in classes(one, module, project, seen)}
    target = _hinted(node, module, project)
    if not isinstance(target, Definition) or f"{target.module}.{target.name}" in seen:
        return set()
    found = source_of(target.module).defined.get(target.name, [])
    if found and all(isinstance(one, ast.ClassDef) for one in found):
        return {target}
    seen |= {f"{target.module}.{target.name}"}
    values = [one.value for one in found if isinstance(one, ast.Assign | ast.AnnAssign) and one.value is not None]
    return {one for value in values for one in classes(value, target.module, project, seen)}


def _hinted(node: ast.expr, module: str, project: Project) -> Target | None:
    if isinstance(node, ast.Name):
        return project.hinted(module, node.id)
    base = _hinted(node.value, module, project) if isinstance(node, ast.Attribute) else None
    try:
        return project.attribute(base, node.attr) if isinstance(node, ast.Attribute) else None
    except BadInput:
        return None
