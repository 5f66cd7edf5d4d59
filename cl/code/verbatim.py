"""One definition to the letter: for code that reads messages, docstrings, annotations or names."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from cl.code.canonical import Canonical
from cl.code.scopes import Scope
from cl.code.sources import Function


class Verbatim(Canonical):
    """Writes everything as it stands, words and names of locals too: for code that reads them."""

    def statement(self, node: ast.stmt) -> list[Any]:
        if isinstance(node, ast.Global | ast.Nonlocal):
            return []
        if isinstance(node, ast.AnnAssign) and self._kind != "class":
            self.annotation(node.annotation)
            return [self._assign(node), self._written(node.annotation)]
        return [self.form(node)]

    def doings(self, words: Sequence[ast.expr]) -> list[Any]:
        return [self.form(one) for one in words]

    def slot(self, owner: Scope, name: str) -> Any:
        return [*super().slot(owner, name), name]

    def _error(self, node: ast.expr) -> Any:
        return None

    def _gone_through(self, node: ast.expr) -> Any:
        return self.form(node)

    def _Call(self, node: ast.Call) -> Any:
        return self._fields(node)

    def _annotations(self, node: Function, plain: bool) -> Any:
        return super()._annotations(node, plain=False)

    def _kind_of_error(self, node: ast.expr) -> Any:
        return self.form(node)

    def _member(self, node: ast.stmt, plain: bool) -> list[Any]:
        return super()._member(node, plain=False)
