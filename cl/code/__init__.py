"""What a key knows of code: a digest of what decides bits, and of nothing else.

`code_digest(build)` digests a function and everything in the project that it reaches by name: helpers, constants,
classes, decorators, however many imports, aliases and front doors lie between. Installed libraries are not walked;
their releases are part of the numerics.

    counts                                             does not count
    statements, operators, constants, their order      comments, layout, docstrings
    defaults and names of parameters                   names of locals and of module constants, names of imports
    names of functions and classes                     the module they are in, their order there
    decorators, base classes, fields of classes        annotations; but a class that one names is reached
    which exception is raised, where it is caught      the message, and what only formats it
    what an utterance does (`log(next(rows))`)         what it says: `tell`, `track`, logging, warnings, print, assert
    statements that change something on import         classes and functions marked `unkeyed`, protocols without code

In doubt code counts: a false new key costs time, a false old one breaks exactness. So everything counts to the letter
where code reads what else would not (a caught exception's text, `__doc__`, annotations, `locals()`), and what leads to
no source is refused.

How: `sources` (modules as syntax trees), `names` (where a name leads), `scopes` (which names are local), `speech` (what
is only said), `hints` (annotations), `effects` (what importing does), `canonical` and `verbatim` (one definition), and
here the graph of definitions. A definition stands in it by what it is and what it reaches, never by where it lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TypeVar

from cl.code.canonical import Canonical, Form, form_of
from cl.code.effects import Change, changes
from cl.code.names import ROOMS, Definition, Effects, Node, Project, is_module
from cl.code.sources import live, source_of
from cl.code.verbatim import Verbatim
from cl.digests import digest_json
from cl.errors import BadInput

Marked = TypeVar("Marked", bound=Callable[..., Any])

_NO_EFFECTS = digest_json(["effects", []])


def unkeyed(why: str) -> Callable[[Marked], Marked]:
    """Mark a function or class whose code decides no bits of what is built with it, and say why. Keys leave it out."""

    def mark(marked: Marked) -> Marked:
        return marked

    return mark


@unkeyed("it makes keys")
@cache
def code_digest(function: Callable[..., Any]) -> str:
    """Digest of `function` and of all project code it reaches; 64 hexadecimal digits.

    Raises BadInput for a function that is not at module level or reaches what has no source.
    """
    root = _root(function)
    own = root.module.partition(".")[0]
    project = Project("" if own in ROOMS else own)
    graph = _graph(project, Canonical)
    if any(graph.form(node).reads_words for node in graph.everything(root)):
        graph = _graph(project, Verbatim)
    beside = graph.everything(root) - graph.reached(root).keys()
    return digest_json([graph.digest(root), sorted({graph.digest(node) for node in beside})])


def _root(function: Callable[..., Any]) -> Definition:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if module is None or name is None:
        raise BadInput(f"{function!r} is no function of its own; define one with `def` at module level")
    if "." in name:
        raise BadInput(f"build function {module}.{name} is not at module level; move it there")
    if name not in source_of(module).defined or getattr(live(module), name, None) is not function:
        raise BadInput(f"{module}.{name} is not what its module defines under this name; define it with `def` there")
    return Definition(module, name)


class _Graph:
    """Definitions and what they reach, of one project and in one kind of writing."""

    def __init__(self, project: Project, writer: type[Canonical]) -> None:
        self._project, self._writer = project, writer
        self._forms: dict[Node, Form] = {}
        self._digests: dict[Node, str] = {}
        self._changed: dict[str, dict[int, Change]] = {}

    def form(self, node: Node) -> Form:
        if node not in self._forms:
            self._forms[node] = form_of(node, self._project, self._writer)
        return self._forms[node]

    def reached(self, root: Node) -> dict[Node, int]:
        """All that running `root` may reach by name, numbered in the order in which it is met."""
        numbers = {root: 0}
        for node in (order := [root]):
            for one in self.form(node).references:
                if one not in numbers:
                    numbers[one] = len(order)
                    order.append(one)
        return numbers

    def digest(self, root: Node) -> str:
        """Digest of `root` and of all that it reaches: the same wherever these lie."""
        if root not in self._digests:
            numbers = self.reached(root)
            rows = [[self.form(node).digest, [numbers[one] for one in self.form(node).references]] for node in numbers]
            self._digests[root] = digest_json(rows)
        return self._digests[root]

    def everything(self, root: Node) -> set[Node]:
        """What `root` reaches, the classes of what it is handed, and what importing all their modules changes of it."""
        found = self._with_handed({root})
        effects: set[Node] = set()
        while (now := self._effects(found)) != effects:
            effects = now
            found |= self._with_handed(effects) - effects
        return found | effects

    def _with_handed(self, roots: set[Node]) -> set[Node]:
        found: set[Node] = set()
        while roots:
            new = {one for root in roots for one in self.reached(root)} - found
            found |= new
            roots = {one for node in new for one in self._handed(node)} - found
        return found

    def _handed(self, node: Node) -> Iterable[Node]:
        """Classes that annotations name, where their code may decide bits."""
        todo, seen = list(self.form(node).annotated), set[Node]()
        while todo:
            one = todo.pop()
            if one in seen or not isinstance(one, Definition):
                continue
            seen.add(one)
            written = self._writer(source_of(one.module), self._project)
            if written.is_interface(one.name):
                todo += self.form(one).annotated
            elif not written.is_unkeyed(one.name):
                yield one

    def _effects(self, found: set[Node]) -> set[Node]:
        """What running the modules of these definitions changes that they may see."""
        loaded = {name for node in found for name in self.form(node).loads if self._project.holds(name)}
        modules = {node.module for node in found} | {live(name).__name__ for name in loaded if is_module(name)}
        effects = set[Node]()
        for module in self._project.loaded_with(modules):
            places = [place for place, change in self._changes(module).items() if change.concerns(found)]
            effects |= {Effects(module, tuple(places))} if places else set()
        return {node for node in effects if self.form(node).digest != _NO_EFFECTS}

    def _changes(self, module: str) -> dict[int, Change]:
        if module not in self._changed:
            self._changed[module] = changes(source_of(module), self._project)
        return self._changed[module]


@cache
def _graph(project: Project, writer: type[Canonical]) -> _Graph:
    return _Graph(project, writer)
