"""Keys of the project's own builds: its sources are edited in every place where an edit must, or must not, be seen."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import cl.code as code
import cl.data.images
import cl.models.vit
import strategies.adapterswap
import strategies.ease.method
import strategies.mos.method
import strategies.sema.scanning
import strategies.slda
import strategies.ssiat
import strategies.vida
from cl.code import effects, sources, speech
from cl.components import builder

Edit = Callable[[ast.Module], ast.Module]
OURS = ("cl.", "strategies.")


def project_builds() -> list[Callable[..., Any]]:
    """Every build of the project that is loaded here, the backbone, and what makes pixels of files."""
    found = [build for same in builder._builds.values() for build in same if build.__module__.startswith(OURS)]
    others = [cl.models.vit.TimmBackbone, cl.data.images.decode, cl.data.images.seen]
    return [*others, *(build for build in found if "." not in build.__qualname__)]


class Edited:
    """Computes digests as if the sources were edited. What runs stays as it is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch, self._text_of = monkeypatch, sources.text_of

    def digests(self, edit: Edit, module: str | None = None, only: Callable[..., Any] | None = None) -> dict[str, str]:
        """Digest of each build (or of `only`) with `edit` in every module of the project, or in `module`."""

        def text_of(name: str) -> str:
            text = self._text_of(name)
            changes = name == module if module else name.startswith(OURS)
            return ast.unparse(ast.fix_missing_locations(edit(ast.parse(text)))) if changes else text

        self._patch.setattr(sources, "text_of", text_of)
        forget()
        wanted = [only] if only else project_builds()
        found = {f"{one.__module__}.{one.__qualname__}": code.code_digest(one) for one in wanted}
        self._patch.setattr(sources, "text_of", self._text_of)
        forget()
        return found


def forget() -> None:
    """Read sources anew."""
    for cached in (sources.source_of, code._graph, code.code_digest, effects._of_definition):
        cached.cache_clear()
    speech._formatters.clear()


@pytest.fixture
def edited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Edited]:
    yield Edited(monkeypatch)
    forget()


class Words(ast.NodeTransformer):
    """Other words in all messages: of exceptions that are raised, of assertions, of progress and warnings."""

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        if isinstance(node.exc, ast.Call):
            node.exc.args = [_reworded(one) for one in node.exc.args]
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in ("track", "tell"):
            node.args = [_reworded(one) for one in node.args]
        return node


def _reworded(node: ast.expr) -> ast.expr:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return ast.Constant(f"{node.value}, so to say")
    if isinstance(node, ast.JoinedStr):
        return ast.JoinedStr([*(_reworded(one) for one in node.values), ast.Constant(" indeed")])
    return node


class Docstrings(ast.NodeTransformer):
    """Another docstring for every function and class; comments and layout are gone as well."""

    def visit(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            kept = node.body[1:] if ast.get_docstring(node) is not None else node.body
            node.body = [ast.Expr(ast.Constant("Something else.")), *kept]
        return node


class Annotations(ast.NodeTransformer):
    """Every annotation of a parameter, result or local as text, and optional."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = self._optional(node.annotation)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = self._optional(node.returns)
        for inner in ast.walk(node):
            if isinstance(inner, ast.AnnAssign):
                inner.annotation = ast.Constant("int")
        return node

    def _optional(self, node: ast.expr | None) -> ast.expr | None:
        return ast.Constant(f"None | ({ast.unparse(node)})") if node is not None else None


class Locals(ast.NodeTransformer):
    """Another name for every local variable that is no parameter anywhere in its function."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        beyond = sources.bound(node.body) | set(dir(builtins))
        for inner in ast.walk(node):
            if isinstance(inner, ast.FunctionDef):
                _rename(inner, beyond)
        return node


def _rename(function: ast.FunctionDef, beyond: set[str]) -> None:
    inside = list(ast.walk(function))
    stored = {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    other = {node.arg for node in inside if isinstance(node, ast.arg)}
    other |= {name for node in inside if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
    other |= {node.name for node in inside if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in inside:
        if isinstance(node, ast.Name) and node.id in stored - other - beyond:
            node.id = f"{node.id}_"


def backwards(tree: ast.Module) -> ast.Module:
    """The functions of a module in the opposite order."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    tree.body = [functions.pop() if isinstance(node, ast.FunctionDef) else node for node in tree.body]
    return tree


HARMLESS: dict[str, Edit] = {
    "words": lambda tree: Words().visit(tree),
    "docstrings": lambda tree: Docstrings().visit(tree),
    "annotations": lambda tree: Annotations().visit(tree),
    "locals": lambda tree: Locals().visit(tree),
    "order": backwards,
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_edits_of_all_sources_keep_all_keys(edited: Edited, kind: str) -> None:
    before = edited.digests(lambda tree: tree)
    assert len(before) > 60
    found = edited.digests(HARMLESS[kind])
    assert found == before


def test_each_harmless_edit_edits_something() -> None:
    text = sources.text_of("cl.learning.train")
    for name, edit in HARMLESS.items():
        assert ast.unparse(edit(ast.parse(text))) != ast.unparse(ast.parse(text)), name


class Arithmetic(ast.NodeTransformer):
    """One edit that computes something else: the `place`-th number or operator of one function or class."""

    def __init__(self, name: str, place: int) -> None:
        self._name, self._left = name, place

    def visit_Module(self, node: ast.Module) -> ast.Module:
        for one in node.body:
            if getattr(one, "name", None) == self._name:
                self.visit(one)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if isinstance(node.value, int | float) and self._due():
            return ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.BinOp:
        self.generic_visit(node)
        if self._due():
            node.op = ast.FloorDiv() if not isinstance(node.op, ast.FloorDiv) else ast.Add()
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.Compare:
        self.generic_visit(node)
        if self._due():
            node.ops[0] = ast.Is() if not isinstance(node.ops[0], ast.Is) else ast.Lt()
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        if any("unkeyed" in ast.unparse(mark) for mark in node.decorator_list):
            return node
        returns, node.returns = node.returns, None
        self.generic_visit(node)
        node.returns = returns
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        if isinstance(node.func, ast.Name) and node.func.id in ("tell", "track"):
            return node
        self.generic_visit(node)
        return node

    def _due(self) -> bool:
        self._left -= 1
        return self._left == -1


def reached(build: Callable[..., Any]) -> list[tuple[str, str]]:
    """Functions and classes that a build reaches."""
    graph = code._graph(code.Project(""), code.Canonical)
    nodes = graph.everything(code.Definition(build.__module__, build.__qualname__))
    return sorted((node.module, node.name) for node in nodes if isinstance(node, code.Definition))


def missed(edited: Edited, build: Callable[..., Any], each: int) -> Iterator[str]:
    """Edits of what `build` computes, at most `each` in one definition, that leave its key."""
    before = code.code_digest(build)
    for module, name in reached(build):
        plain = ast.unparse(ast.parse(sources.text_of(module)))
        for place in range(each):
            edit = partial(_calculated, name, place)
            if ast.unparse(edit(ast.parse(plain))) == plain:
                break
            if before in edited.digests(edit, module, build).values():
                yield f"{place} of {module}.{name}"


def _calculated(name: str, place: int, tree: ast.Module) -> ast.Module:
    return Arithmetic(name, place).visit(tree)


def test_a_number_or_operator_that_a_build_reaches_is_in_its_key(edited: Edited) -> None:
    assert not list(missed(edited, strategies.ease.method.train_adapter, each=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    "build",
    [
        strategies.ease.method.train_adapter,
        strategies.mos.method.aligned_head,
        strategies.sema.scanning.scan,
        cl.data.images.decode,
    ],
)
def test_every_number_and_operator_that_a_build_reaches_is_in_its_key(
    edited: Edited, build: Callable[..., Any]
) -> None:
    assert not list(missed(edited, build, each=1000))


def test_edits_of_arithmetic_edit_what_is_reached() -> None:
    text = ast.unparse(ast.parse(sources.text_of("cl.learning.train")))
    assert sum(ast.unparse(_calculated("descend", place, ast.parse(text))) != text for place in range(50)) > 5
