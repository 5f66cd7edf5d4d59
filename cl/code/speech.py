"""What code only says: error messages, progress, logging, warnings, and the functions that format them.

Words are no identity, but evaluating them may do something: `log(next(batches))` takes a batch away. So of what is
said, those parts are kept that could change anything, or fail where that is caught; reading attributes, operators but
division, and formatting are taken to do neither.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

from cl.code.names import Definition, Outside, Project, Target, running
from cl.code.scopes import parameters
from cl.code.sources import Comprehension, bound, is_text, source_of

Resolve = Callable[[ast.expr], Target | None]

PROGRESS = "cl.progress"
LEVELS = frozenset({"debug", "info", "warning", "error", "critical", "exception", "log"})
QUIET = frozenset({"ignore", "default", "always", "module", "once"})  # `error` turns warnings into exceptions

# Whose code decides no bits of what it is handed to; see `cl.code.unkeyed`.
UNKEYED = Definition("cl.code", "unkeyed")

# Exceptions whose argument is a value that running code receives.
CARRIERS = (StopIteration, StopAsyncIteration)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# These look at their arguments and leave them as they are.
LOOKS = _names("abs ascii bool callable hasattr hex id isinstance issubclass len oct range repr round str type")
METHODS = _names(
    "capitalize casefold center decode encode endswith expandtabs format isprintable item ljust lower lstrip numel "
    "partition removeprefix removesuffix replace rjust rpartition rsplit rstrip split splitlines startswith strip "
    "title tolist upper zfill"
)
# These go through their arguments, which takes something away from an iterator.
ITERATES = _names("all any bytes dict enumerate frozenset list map max min set sorted sum super tuple zip")
MESSAGE_METHODS = ("__init__", "__str__", "__repr__", "__reduce__")
TEXT_MODULES = ("difflib.", "textwrap.", "reprlib.", "shlex.")

# Who mentions one of these looks at code or at what was said, so that words may decide what it does.
READERS = tuple(
    _names(
        "ast builtins.compile builtins.dir builtins.eval builtins.exec builtins.globals builtins.locals builtins.vars "
        "contextlib.redirect_stderr contextlib.redirect_stdout dataclasses.fields dis functools.singledispatch "
        "functools.singledispatchmethod inspect logging.captureWarnings pydantic.TypeAdapter pydantic.create_model "
        "pydantic.validate_call sys._getframe sys.exc_info sys.exception sys.stderr sys.stdout torch.jit torch.library "
        "traceback typing.get_type_hints warnings.showwarning"
    )
)
READ_ATTRIBUTES = _names(
    "__annotations__ __cause__ __closure__ __code__ __context__ __dataclass_fields__ __dict__ __doc__ __notes__ "
    "__traceback__ addHandler exc_info exception f_locals"
)


def reads_words(target: Outside) -> bool:
    """Whether something outside hands out texts of code or messages."""
    return any(target.name == name or target.name.startswith(f"{name}.") for name in READERS)


def is_error(target: Target | None) -> bool:
    """Whether a target is a class of exceptions whose arguments are only a message."""
    found = running(target)
    return isinstance(found, type) and issubclass(found, BaseException) and not issubclass(found, CARRIERS)


def said(call: ast.Call, resolve: Resolve) -> list[ast.expr] | None:
    """The arguments of a call that stands as a statement of its own and only speaks; None for any other call."""
    target = resolve(call.func)
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    names = {keyword.arg for keyword in call.keywords}
    if target == Outside("builtins.print"):
        return arguments if not names & {"file", None} else None
    if target in (Outside("warnings.simplefilter"), Outside("warnings.filterwarnings")):
        action = call.args[0] if call.args else None
        return arguments if isinstance(action, ast.Constant) and action.value in QUIET else None
    speaks = target in (Outside("warnings.warn"), Definition(PROGRESS, "tell")) or _logs(call.func, resolve)
    return arguments if speaks else None


def tracked(node: ast.expr, resolve: Resolve) -> tuple[ast.expr, list[ast.expr]] | None:
    """What is gone through under progress, and the other arguments; None if `node` is no call of `track`."""
    if not isinstance(node, ast.Call) or resolve(node.func) != Definition(PROGRESS, "track"):
        return None
    if not node.args or isinstance(node.args[0], ast.Starred) or any(keyword.arg is None for keyword in node.keywords):
        return None
    return node.args[0], [*node.args[1:], *(keyword.value for keyword in node.keywords)]


def reported(node: ast.expr, resolve: Resolve) -> list[ast.expr] | None:
    """The arguments of `reporting(...)`, if what it calls back changes nothing."""
    if not isinstance(node, ast.Call) or resolve(node.func) != Definition(PROGRESS, "reporting") or node.keywords:
        return None
    harmless = all(isinstance(one, ast.Lambda) and is_idle(one.body, resolve) for one in node.args)
    return list(node.args) if harmless else None


def _logs(function: ast.expr, resolve: Resolve) -> bool:
    target = resolve(function)
    if isinstance(target, Outside):
        return target.name.startswith("logging.") and target.name.rpartition(".")[2] in LEVELS
    return isinstance(function, ast.Attribute) and function.attr in LEVELS and _is_logger(function.value, resolve)


def _is_logger(node: ast.expr | None, resolve: Resolve) -> bool:
    if isinstance(node, ast.Call):
        return resolve(node.func) == Outside("logging.getLogger")
    target = resolve(node) if node is not None else None
    if not isinstance(target, Definition):
        return False
    made = source_of(target.module).defined.get(target.name, [])
    there = in_module(target.module)
    return bool(made) and all(
        isinstance(one, ast.Assign | ast.AnnAssign) and isinstance(one.value, ast.Call) and _is_logger(one.value, there)
        for one in made
    )


def in_module(module: str, own: frozenset[str] = frozenset()) -> Resolve:
    """What names mean in a module's code, where those in `own` are local variables."""
    project = Project(module.partition(".")[0])

    def resolve(node: ast.expr) -> Target | None:
        if isinstance(node, ast.Name):
            return None if node.id in own else project.called(module, node.id)
        return project.attribute(resolve(node.value), node.attr) if isinstance(node, ast.Attribute) else None

    return resolve


def doings(node: ast.expr, resolve: Resolve) -> Iterator[ast.expr]:
    """The parts of what is said that could change something, in the order of their evaluation."""
    if is_idle(node, resolve):
        return
    if isinstance(node, ast.Call) and _calls_idly(node, resolve):
        owner = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        for part in [*owner, *node.args, *(keyword.value for keyword in node.keywords)]:
            yield from doings(part, resolve)
    elif _may_fail(node):
        yield node
    elif isinstance(node, ast.JoinedStr | ast.FormattedValue | ast.BinOp | ast.Tuple):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from doings(child, resolve)
    else:
        yield node


def is_idle(node: ast.AST, resolve: Resolve) -> bool:
    """Whether evaluating an expression changes nothing and, as far as can be told, succeeds."""
    if _may_fail(node):
        return False
    if isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom | Comprehension):
        return False
    if isinstance(node, ast.Starred):  # goes through an iterator
        return False
    if isinstance(node, ast.Lambda):
        return True
    if isinstance(node, ast.Call) and not _calls_idly(node, resolve):
        return False
    return all(is_idle(child, resolve) for child in ast.iter_child_nodes(node))


def _may_fail(node: ast.AST) -> bool:
    """Division, and the item at a place; a text before `%` is formatted."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.FloorDiv | ast.Mod | ast.Pow):
        return not isinstance(node.left, ast.JoinedStr | ast.Constant) or not isinstance(node.op, ast.Mod)
    return isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice)


def _calls_idly(call: ast.Call, resolve: Resolve) -> bool:
    """Whether the call itself changes nothing, whatever its arguments do."""
    if any(keyword.arg is None for keyword in call.keywords):
        return False
    target = resolve(call.func)
    if isinstance(target, Outside):
        return is_error(target) or (target.name.startswith("builtins.") and target.name[len("builtins.") :] in LOOKS)
    if isinstance(target, Definition):
        return _is_formatter(target)
    return target is None and isinstance(call.func, ast.Attribute) and call.func.attr in METHODS


_formatters: dict[Definition, bool] = {}


def _is_formatter(target: Definition) -> bool:
    """Whether a function of the project only makes a value of its arguments. One that calls itself does not count."""
    if target not in _formatters:
        _formatters[target] = False
        match source_of(target.module).defined.get(target.name):
            case [ast.FunctionDef(decorator_list=[]) as node]:
                _formatters[target] = not _iterates(node) and _only_makes(node, target.module, iterating=False)
    return _formatters[target]


def _iterates(node: ast.AST) -> bool:
    return any(isinstance(inner, ast.For | ast.AsyncFor | Comprehension) for inner in ast.walk(node))


def is_message_of(node: ast.ClassDef, module: str) -> bool:
    """Whether a class of exceptions does nothing but to put its message together, going through its arguments."""
    lines = [one for one in node.body if not is_text(one)]
    return not node.decorator_list and all(
        isinstance(one, ast.FunctionDef) and one.name in MESSAGE_METHODS and _only_makes(one, module, True)
        for one in lines
    )


Acts = (
    *(ast.Global, ast.Nonlocal, ast.Yield, ast.YieldFrom, ast.Await, ast.Raise, ast.Assert, ast.Delete, ast.With),
    *(ast.AsyncWith, ast.Try, ast.TryStar, ast.Import, ast.ImportFrom, ast.ClassDef, ast.Lambda, ast.While),
)


def _only_makes(node: ast.AST, module: str, iterating: bool) -> bool:
    """Whether a function's body changes nothing but its own names (and `self`, where an exception is made).

    iterating: whether it may go through its arguments.
    """
    own = bound(getattr(node, "body", [])) | {one.arg for one in parameters(node.args)}  # type: ignore[attr-defined]
    resolve = in_module(module, frozenset(own))

    def harmless(inner: ast.AST) -> bool:
        if isinstance(inner, ast.Attribute | ast.Subscript) and not isinstance(inner.ctx, ast.Load):
            return iterating and isinstance(inner, ast.Attribute) and ast.unparse(inner.value) == "self"
        if isinstance(inner, ast.Call):
            return _calls_idly(inner, resolve) or (iterating and _iterates_idly(inner, resolve))
        return not isinstance(inner, Acts)

    return all(harmless(inner) for part in node.body for inner in ast.walk(part))  # type: ignore[attr-defined]


def _iterates_idly(call: ast.Call, resolve: Resolve) -> bool:
    target = resolve(call.func)
    if isinstance(target, Outside):
        return target.name.removeprefix("builtins.") in ITERATES or target.name.startswith(TEXT_MODULES)
    function = call.func
    return isinstance(function, ast.Attribute) and (function.attr == "join" or ast.unparse(function.value) == "super()")
