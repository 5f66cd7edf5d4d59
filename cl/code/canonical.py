"""One definition in canonical form: what it computes, without names of locals, words, or where things lie.

What it reaches stands as numbers into a list of references, so that the form knows no module. Forms are JSON.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cl.code import hints, scopes, speech
from cl.code.names import Definition, Effects, Node, Outside, Project, Raised, Target, Whole
from cl.code.scopes import Scope, parameters
from cl.code.sources import Comprehension, Function, Import, Source, is_text, source_of
from cl.digests import digest_json
from cl.errors import BadInput

# Names that every module has, and that say where it lies; `__class__` is what `super()` needs.
OF_PLACE = ("__class__", "__file__", "__path__", "__spec__", "__loader__", "__package__", "__builtins__")
# By these, code is reached that no source names.
BY_NAME = ("builtins.__import__", "importlib.import_module", "importlib.reload", "importlib.util", "sys.modules")


@dataclass(frozen=True)
class Form:
    """What one definition computes. references: what its numbers stand for. annotated: classes that its annotations
    name. loads: modules that it imports when it runs. reads_words: whether messages or texts of code may steer it."""

    digest: str
    references: tuple[Node, ...]
    annotated: frozenset[Node]
    loads: frozenset[str]
    reads_words: bool


def form_of(node: Node, project: Project, writer: type[Canonical]) -> Form:
    """The form of one node of the graph of code."""
    source = source_of(node.module)
    written = writer(source, project)
    if isinstance(node, Whole):
        names = sorted({*source.defined, *source.imported})
        text: Any = ["module", [[name, written.name(name)] for name in names]]
    elif isinstance(node, Effects):
        text = ["effects", written.block([source.statements[place] for place in node.places])]
    elif isinstance(node, Raised):
        text = ["raised", *written.raised(node.name)]
    else:
        text = ["definition", *written.definition(node.name)]
    return Form(
        digest_json(text),
        tuple(written.references),
        frozenset(written.annotated),
        frozenset(written.loads),
        written.reads_words,
    )


class Canonical:
    """Writes statements of one module as canonical JSON."""

    def __init__(self, source: Source, project: Project) -> None:
        self._source, self._project = source, project
        self._scope: Scope | None = None
        self._slots: dict[tuple[Scope, str], list[Any]] = {}
        self._scopes: dict[Scope, int] = {}
        self.references: dict[Node, int] = {}
        self.annotated: set[Node] = set()
        self.loads: set[str] = set()
        self.reads_words = False

    def definition(self, name: str) -> Iterator[Any]:
        """The statements that bind a top-level name, what an import gave it before, and who else writes it."""
        if self.is_unkeyed(name):
            yield ["unkeyed", name]
            return
        if name in self._source.imported:
            yield self.reference(self._project.origin(*self._source.imported[name]))
        yield self.block(self._source.defined.get(name, []))
        yield [self.name(writer) for writer in self._source.writers.get(name, []) if writer != name]

    def raised(self, name: str) -> Iterator[Any]:
        """A top-level class of exceptions, without what only makes its message."""
        match self._source.defined.get(name):
            case [ast.ClassDef(keywords=[]) as node] if speech.is_message_of(node, self._source.name):
                yield from (name, [self._kind_of_error(base) for base in node.bases])
            case _:
                yield self.name(name)

    def is_unkeyed(self, name: str) -> bool:
        """Whether a top-level name is marked by `unkeyed`."""
        return any(map(self._is_unkeyed, self._source.defined.get(name, [])))

    def is_interface(self, name: str) -> bool:
        """Whether a top-level name is a protocol without code."""
        statements = self._source.defined.get(name, [])
        classes = [one for one in statements if isinstance(one, ast.ClassDef)]
        bases = [self.target(base) for one in classes for base in one.bases]
        methods = [method for one in classes for method in one.body if isinstance(method, Function)]
        protocol = Outside("typing.Protocol") in bases and len(classes) == len(statements)
        return protocol and all(map(is_text, [line for method in methods for line in method.body]))

    def block(self, body: Sequence[ast.stmt]) -> list[Any]:
        """Statements, without those that do nothing or only speak."""
        return [form for node in body for form in self.statement(node)]

    def statement(self, node: ast.stmt) -> list[Any]:
        """The forms of one statement."""
        if is_text(node) or isinstance(node, ast.Global | ast.Nonlocal):
            return []
        if isinstance(node, ast.AnnAssign) and self._kind != "class":
            self.annotation(node.annotation)
            return [self._assign(node)] if node.value is not None else []
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            words = speech.said(node.value, self.target)
            return self.doings(words) if words is not None else [self.form(node)]
        if isinstance(node, ast.With):
            return self._with(node)
        return [self.form(node)]

    def form(self, node: Any) -> Any:
        """The form of any node, by the method of its kind or else field by field."""
        if isinstance(node, list):
            return [self.form(one) for one in node]
        if not isinstance(node, ast.AST):
            return [type(node).__name__, repr(node)]
        own = getattr(self, f"_{type(node).__name__}", None)
        return own(node) if own is not None else self._fields(node)

    def _fields(self, node: ast.AST) -> Any:
        fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
        skipped = ("ctx", "type_comment", "kind", "type_params")
        return [type(node).__name__, *([name, self._field(value)] for name, value in fields if name not in skipped)]

    def _field(self, value: Any) -> Any:
        if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
            return self.block(value)
        return self.form(value)

    # Names.

    def target(self, node: ast.expr) -> Target | None:
        """What an expression stands for, if it names something beyond this definition."""
        if isinstance(node, ast.Attribute):
            return self._project.attribute(self.target(node.value), node.attr)
        if not isinstance(node, ast.Name):
            return None
        owner = self._scope.owner(node.id) if self._scope else None
        if owner is None:
            return self._project.called(self._source.name, node.id)
        return self._project.origin(*owner.imports[node.id]) if node.id in owner.imports else None

    def reference(self, target: Target | None) -> Any:
        """How a form names what it reaches."""
        if isinstance(target, Outside):
            self.reads_words |= speech.reads_words(target)
            if any(target.name == name or target.name.startswith(f"{name}.") for name in BY_NAME):
                raise BadInput(f"{self._source.name}, which a build reaches, imports by name; import what it needs")
            if target.name in ("builtins.globals", "builtins.eval", "builtins.exec"):
                return ["outside", target.name, self._number(Whole(self._source.name))]
            return ["outside", target.name]
        if target is None:
            raise BadInput(f"a build reaches a name in {self._source.name} that is defined nowhere")
        return self._number(target)

    def _number(self, node: Node) -> list[Any]:
        return ["reference", self.references.setdefault(node, len(self.references))]

    def name(self, name: str, binds: bool = False) -> Any:
        """A name as it is written here: a slot for a local one, what it leads to for any other."""
        owner = self._scope.owner(name) if self._scope else None
        if owner is None:
            return self._global(name)
        if owner.kind == "class":  # an attribute; while it is not bound yet, a name from outside the class
            return ["own", name, None if binds else self._beyond(owner, name)]
        if name in owner.imports:
            return self.reference(self._project.origin(*owner.imports[name]))
        return self.slot(owner, name)

    def _beyond(self, scope: Scope, name: str) -> Any:
        outer = scope.outer.owner(name) if scope.outer else None
        if outer is not None and outer.kind != "class":
            return self.slot(outer, name)
        target = self._project.called(self._source.name, name)
        return self.reference(target) if target is not None else None

    def slot(self, owner: Scope, name: str) -> Any:
        """A local name: which scope, and which of its names, counted as they are met."""
        place = self._scopes.setdefault(owner, len(self._scopes))
        taken = sum(scope is owner for scope, _ in self._slots)
        return self._slots.setdefault((owner, name), ["local", place, taken])

    def _global(self, name: str) -> Any:
        if name in OF_PLACE:
            return ["module", name]
        target = self._project.called(self._source.name, name)
        if target is None:
            raise BadInput(f"'{name}' in {self._source.name}, which a build reaches, is defined nowhere")
        return self.reference(target)

    def _Name(self, node: ast.Name) -> Any:
        owner = self._scope.owner(node.id) if self._scope else None
        if owner is not None and node.id in owner.errors and isinstance(node.ctx, ast.Load):
            self.reads_words = True
        return self.name(node.id, binds=isinstance(node.ctx, ast.Store))

    def _Attribute(self, node: ast.Attribute) -> Any:
        self.reads_words |= node.attr in speech.READ_ATTRIBUTES
        target = self.target(node)
        return self.reference(target) if target is not None else self._fields(node)

    def _Constant(self, node: ast.Constant) -> Any:
        self.reads_words |= isinstance(node.value, str) and node.value in speech.READ_ATTRIBUTES - {"exception"}
        return [type(node.value).__name__, repr(node.value)]

    def _Import(self, node: Import) -> Any:
        self.loads |= set(self._source.loaded_by(node))
        targets = [self._project.origin(*origin) for _, origin in self._source.origins(node)]
        known = self._scope.imports if self._scope else {}
        names = [name for name, _ in self._source.origins(node) if name not in known]
        return [
            "import",
            [self.reference(target) for target in targets],
            [self.name(name, binds=True) for name in names],
        ]

    _ImportFrom = _Import

    def _ExceptHandler(self, node: ast.ExceptHandler) -> Any:
        name = self.name(node.name) if node.name else None
        return ["except", self._kind_of_error(node.type) if node.type else None, name, self.block(node.body)]

    def _MatchAs(self, node: ast.MatchAs) -> Any:
        pattern = self.form(node.pattern) if node.pattern else None
        return ["as", pattern, self.name(node.name) if node.name else None]

    def _MatchStar(self, node: ast.MatchStar) -> Any:
        return ["star", self.name(node.name) if node.name else None]

    def _MatchMapping(self, node: ast.MatchMapping) -> Any:
        rest = self.name(node.rest) if node.rest else None
        return ["mapping", self.form(node.keys), self.form(node.patterns), rest]

    # What is said.

    def doings(self, words: Sequence[ast.expr]) -> list[Any]:
        """What of an utterance could change something."""
        return [self.form(part) for one in words for part in speech.doings(one, self.target)]

    def _Raise(self, node: ast.Raise) -> Any:
        if node.exc is None:
            return ["raise"]
        cause = self.doings([node.cause]) if node.cause else []
        if isinstance(node.exc, ast.Name) and self._holds_error(node.exc.id):
            return ["raise", self.name(node.exc.id), cause]
        return ["raise", self._error(node.exc) or self.form(node.exc), cause]

    def _error(self, node: ast.expr) -> Any:
        """An exception that is made, without its message; None where `node` is something else."""
        called = node.func if isinstance(node, ast.Call) else node
        target = self.target(called)
        if not speech.is_error(target):
            return None
        positional = node.args if isinstance(node, ast.Call) else []
        named = node.keywords if isinstance(node, ast.Call) else []
        given = [len(positional), [one.arg for one in named]] if isinstance(target, Definition) else []
        return ["error", self._kind_of_error(called), given, self.doings([*positional, *(one.value for one in named)])]

    def _kind_of_error(self, node: ast.expr) -> Any:
        """A class of exceptions, or several, where they are raised or caught."""
        if isinstance(node, ast.Tuple):
            return [self._kind_of_error(one) for one in node.elts]
        target = self.target(node)
        if isinstance(target, Definition) and speech.is_error(target):
            return self._number(Raised(target.module, target.name))
        return self.form(node)

    def _holds_error(self, name: str) -> bool:
        owner = self._scope.owner(name) if self._scope else None
        return owner is not None and name in owner.errors

    def _Assert(self, node: ast.Assert) -> Any:
        return ["assert", self.form(node.test), self.doings([node.msg] if node.msg else [])]

    def _Assign(self, node: ast.Assign) -> Any:
        return self._assign(node)

    def _assign(self, node: ast.Assign | ast.AnnAssign) -> Any:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [target for target in targets if isinstance(target, ast.Name) and self._holds_error(target.id)]
        error = self._error(node.value) if node.value and len(names) == len(targets) else None
        return ["assign", error or self.form(node.value), self.form(targets)]

    def _with(self, node: ast.With) -> list[Any]:
        words = [speech.reported(item.context_expr, self.target) for item in node.items]
        if None in words or any(item.optional_vars for item in node.items):
            return [self.form(node)]
        return [*self.doings([one for each in words for one in each or ()]), *self.block(node.body)]

    def _withitem(self, node: ast.withitem) -> Any:
        if node.optional_vars is not None and isinstance(node.context_expr, ast.Call):
            self.reads_words |= self.target(node.context_expr.func) == Outside("warnings.catch_warnings")
        return self._fields(node)

    def _For(self, node: ast.For | ast.AsyncFor) -> Any:
        body, orelse = self.block(node.body), self.block(node.orelse)
        return [type(node).__name__, self._gone_through(node.iter), self.form(node.target), body, orelse]

    _AsyncFor = _For

    def _gone_through(self, node: ast.expr) -> Any:
        """What a loop goes through, without the progress that is told on the way."""
        if isinstance(node, ast.IfExp):
            ways = [self._gone_through(node.body), self._gone_through(node.orelse)]
            return ["choice", self.form(node.test), *ways]
        found = speech.tracked(node, self.target)
        if found is None:
            return self.form(node)
        done = self.doings(found[1])
        return [self.form(found[0]), "and", done] if done else self.form(found[0])

    def _Call(self, node: ast.Call) -> Any:
        found = speech.tracked(node, self.target)
        if found is None:
            return self._fields(node)
        return ["iterator", self.form(found[0]), self.doings(found[1])]

    # Functions and classes.

    @property
    def _kind(self) -> str | None:
        return self._scope.kind if self._scope else None

    @contextmanager
    def _inside(self, scope: Scope) -> Iterator[None]:
        before, self._scope = self._scope, scope
        scope.errors |= {name for name, value in scope.assigned if name in scope.bound and self._makes_error(value)}
        try:
            yield
        finally:
            self._scope = before

    @contextmanager
    def _generic(self, node: ast.AST) -> Iterator[None]:
        """Where the type parameters of a function or class stand (Python 3.12)."""
        names = {one.name for one in getattr(node, "type_params", [])}
        before, self._scope = self._scope, Scope("function", self._scope, names) if names else self._scope
        try:
            yield
        finally:
            self._scope = before

    def _makes_error(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Call) and speech.is_error(self.target(node.func))

    def _FunctionDef(self, node: Function) -> Any:
        binding = self.name(node.name, binds=True) if self._scope else None
        with self._generic(node):
            return [type(node).__name__, node.name, binding, *self._function(node)]

    _AsyncFunctionDef = _FunctionDef

    def _function(self, node: Function) -> list[Any]:
        decorators, defaults = self.form(node.decorator_list), self._defaults(node.args)
        scope = scopes.of_function(node, self._scope, self._source)
        if node.name in ("__exit__", "__aexit__"):
            scope.errors |= {one.arg for one in parameters(node.args)[1:]}
        written = self._annotations(node, not self._read_by(node.decorator_list))
        with self._inside(scope):
            return [decorators, defaults, written, self._signature(node.args), self.block(node.body)]

    def _Lambda(self, node: ast.Lambda) -> Any:
        defaults = self._defaults(node.args)
        with self._inside(scopes.of_function(node, self._scope, self._source)):
            return ["lambda", defaults, self._signature(node.args), self.form(node.body)]

    def _defaults(self, arguments: ast.arguments) -> Any:
        return [self.form(arguments.defaults), [self.form(one) for one in arguments.kw_defaults]]

    def _signature(self, arguments: ast.arguments) -> Any:
        """Parameters by kind, name and slot: whoever calls may name them."""
        one = [arguments.vararg] if arguments.vararg else []
        more = [arguments.kwarg] if arguments.kwarg else []
        kinds = [arguments.posonlyargs, arguments.args, one, arguments.kwonlyargs, more]
        return [[[argument.arg, self.name(argument.arg)] for argument in kind] for kind in kinds]

    def _annotations(self, node: Function, plain: bool) -> Any:
        """Annotations lead to classes; they count themselves where a decorator from outside may read them."""
        given = [one.annotation for one in parameters(node.args)] + [node.returns]
        for one in given:
            self.annotation(one)
        return [] if plain else [self._written(one) for one in given]

    def annotation(self, node: ast.expr | None) -> None:
        """Note the project's classes that an annotation names."""
        if node is not None:
            self.annotated |= hints.classes(node, self._source.name, self._project)

    def _read_by(self, others: Sequence[ast.expr]) -> bool:
        """Whether any of these decorators or base classes may read annotations."""
        return any(hints.may_be_read_by(one, self.target, self._project) for one in others)

    def _written(self, node: ast.expr | None) -> Any:
        return ast.unparse(node) if node is not None else None

    def _ClassDef(self, node: ast.ClassDef) -> Any:
        binding = self.name(node.name, binds=True) if self._scope else None
        with self._generic(node):
            return ["class", node.name, binding, *self._class(node)]

    def _class(self, node: ast.ClassDef) -> list[Any]:
        decorators, bases = self.form(node.decorator_list), self.form([*node.bases, *node.keywords])
        plain = not node.keywords and not self._read_by([*node.decorator_list, *node.bases])
        with self._inside(scopes.of_class(node, self._scope, self._source)):
            body = [form for one in node.body for form in self._member(one, plain)]
        return [decorators, bases, body]

    def _member(self, node: ast.stmt, plain: bool) -> list[Any]:
        if self._is_unkeyed(node):
            return []
        if not isinstance(node, ast.AnnAssign):
            return self.statement(node)
        self.annotation(node.annotation)
        written = self._written(node.annotation)
        counts = not plain or hints.says_kind(written)
        value = self.form(node.value) if node.value else None
        return [["field", self.form(node.target), value, written if counts else None]]

    def _is_unkeyed(self, node: ast.stmt) -> bool:
        marks = node.decorator_list if isinstance(node, Function | ast.ClassDef) else []
        return any(isinstance(mark, ast.Call) and self.target(mark.func) == speech.UNKEYED for mark in marks)

    # Comprehensions.

    def _ListComp(self, node: Comprehension) -> Any:
        first, *_ = node.generators
        source = self._gone_through(first.iter)  # where the comprehension stands; all else in a scope of its own
        with self._inside(scopes.of_comprehension([one.target for one in node.generators], self._scope)):
            loops = [self._loop(one, source if one is first else None) for one in node.generators]
            made = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
            return [type(node).__name__, loops, self.form(made)]

    _SetComp = _DictComp = _GeneratorExp = _ListComp

    def _loop(self, node: ast.comprehension, source: Any) -> Any:
        source = self._gone_through(node.iter) if source is None else source
        return [node.is_async, source, self.form(node.target), self.form(node.ifs)]
