"""The project's modules as syntax trees: which statements bind each top-level name."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

from cl.errors import BadInput

Import = ast.Import | ast.ImportFrom
Function = ast.FunctionDef | ast.AsyncFunctionDef
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
Origin = tuple[str, str | None]  # module, and the name there; None for the module itself


class Source:
    """One module: what its top-level names are bound by.

    defined: name -> the statements that bind it. imported: name -> where it comes from. hinted: the same of imports
    under `if TYPE_CHECKING`, which bind nothing when the module runs. writers: name -> top-level functions and classes
    that declare it `global`. statements: those that run on import. loads: modules that
    these may import.
    """

    def __init__(self, name: str, tree: ast.Module) -> None:
        self.name = name
        self.defined: dict[str, list[ast.stmt]] = {}
        self.imported: dict[str, Origin] = {}
        self.hinted: dict[str, Origin] = {}
        self.writers: dict[str, list[str]] = {}
        self.loads: list[str] = []
        self.statements = list(_run(tree.body))
        for node in self.statements:
            self._index(node)
        for node in tree.body:
            if isinstance(node, ast.If) and _is_for_types(node.test):
                self.hinted |= {n: o for one in node.body if isinstance(one, Import) for n, o in self.origins(one)}

    def origins(self, node: Import) -> Iterator[tuple[str, Origin]]:
        """The names that an import binds, and where each comes from; those that a star binds are not known here."""
        if isinstance(node, ast.ImportFrom):
            origin = self._origin(node)
            yield from ((alias.asname or alias.name, (origin, alias.name)) for alias in node.names if alias.name != "*")
            return
        for alias in node.names:
            whole = alias.name if alias.asname else alias.name.partition(".")[0]
            yield alias.asname or whole, (whole, None)

    def loaded_by(self, node: Import) -> list[str]:
        """Modules that an import may run."""
        if isinstance(node, ast.Import):
            return [alias.name for alias in node.names]
        origin = self._origin(node)
        return [origin, *(f"{origin}.{alias.name}" for alias in node.names)]

    def _origin(self, node: ast.ImportFrom) -> str:
        package = self.name if hasattr(sys.modules.get(self.name), "__path__") else self.name.rpartition(".")[0]
        return importlib.util.resolve_name("." * node.level + (node.module or ""), package)

    def _index(self, node: ast.stmt) -> None:
        for inner in ast.walk(node) if not isinstance(node, Function | ast.ClassDef) else ():
            self.loads += self.loaded_by(inner) if isinstance(inner, Import) else []
        if isinstance(node, Import):
            self.imported |= self.origins(node)
            return
        names = bound([node])
        for name in names:
            self.defined.setdefault(name, []).append(node)
        if isinstance(node, Function | ast.ClassDef):
            for name in {name for inner in ast.walk(node) if isinstance(inner, ast.Global) for name in inner.names}:
                self.writers.setdefault(name, []).append(node.name)


@cache
def source_of(module: str) -> Source:
    """The parsed module. Raises BadInput if its source cannot be read."""
    try:
        return Source(module, ast.parse(text_of(module)))
    except (SyntaxError, ValueError) as error:
        raise BadInput(f"the source of module {module} changed and is no Python now ({error}); mend it") from error


def text_of(module: str) -> str:
    """The module's source; empty for a folder without `__init__.py`. Raises BadInput if it cannot be read."""
    found = live(module)
    file = getattr(found, "__file__", None) or ""
    try:
        if not file and hasattr(found, "__path__"):
            return ""
        if file.endswith(".py"):
            return importlib.util.decode_source(Path(file).read_bytes())
        return inspect.getsource(found)
    except (OSError, TypeError, SyntaxError, UnicodeError) as error:
        raise BadInput(f"the source of module {module} cannot be read; put build functions into a file") from error


def live(module: str) -> ModuleType:
    """The imported module. Raises BadInput if it cannot be imported."""
    try:
        return sys.modules.get(module) or importlib.import_module(module)
    except ImportError as error:
        raise BadInput(f"module {module}, which a build reaches, cannot be imported ({error}); install it") from error


def bound(nodes: Sequence[ast.AST]) -> set[str]:
    """Names that statements or expressions bind in their own scope, which is not that of functions inside them."""
    return {name for node in nodes for name in _bound_by(node)}


def _bound_by(node: ast.AST) -> set[str]:
    if isinstance(node, Function | ast.ClassDef):
        return {node.name, *bound(outer_parts(node))}
    if isinstance(node, ast.Lambda):
        return bound(outer_parts(node))
    if isinstance(node, Comprehension):  # its own names stay inside, all but those of `:=`
        return bound([inner.target for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr)])
    return {*_name_bound(node), *bound(list(ast.iter_child_nodes(node)))}


def _name_bound(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Name):
        return set() if isinstance(node.ctx, ast.Load) else {node.id}
    if isinstance(node, ast.alias):
        return {node.asname or node.name.partition(".")[0]}
    if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
        return {node.name} if node.name else set()
    return {node.rest} if isinstance(node, ast.MatchMapping) and node.rest else set()


def outer_parts(node: Function | ast.ClassDef | ast.Lambda) -> list[ast.AST]:
    """What of a function or class is evaluated where it stands: decorators, defaults, bases."""
    if isinstance(node, ast.ClassDef):
        return [*node.decorator_list, *node.bases, *node.keywords]
    decorators = [] if isinstance(node, ast.Lambda) else node.decorator_list
    return [*decorators, *node.args.defaults, *filter(None, node.args.kw_defaults)]


def is_text(node: ast.stmt) -> bool:
    """Whether a statement is a docstring, `pass` or `...`: it does nothing."""
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _run(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported."""
    for node in body:
        if isinstance(node, ast.If) and (
            _is_for_types(node.test) or ast.unparse(node.test) == "__name__ == '__main__'"
        ):
            yield from _run(node.orelse)
        else:
            yield node


def _is_for_types(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _is_for_scripts(test: ast.expr) -> bool:
    return ast.unparse(test) == "__name__ == '__main__'"
