"""What a key digests: edits that decide no bits find the same code digest, edits that may decide bits another one.

First on small modules, edit by edit, as someone would who wants to break it; then on the project's own sources.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from cl.code import code_digest
from cl.deletion.plan import _has
from tests.cl.sources import Write
from tests.tiny import builder

HEAD = """
    from __future__ import annotations
    import logging
    import math
    import warnings
    from dataclasses import dataclass
    from cl.components.builder import builds
    from cl.errors import BadInput, UnknownName
    from cl.progress import reporting, tell, track

    LOG = logging.getLogger(__name__)
    FACTOR = 2
"""

BASE = (
    HEAD
    + """
    @dataclass(frozen=True)
    class Line:
        slope: float
        start: float = 1.0

        def at(self, x: float) -> float:
            return self.slope * x + self.start

    def told(name: str) -> str:
        return f"<{name}>"

    def logged(function):
        def wrapped(*args, **more):
            return 1.0 * function(*args, **more)
        return wrapped

    def helper(x: float, power: int = 2) -> float:
        if x < 0:
            raise BadInput(f"{told('x')} is {x}; make it positive")
        return FACTOR * x ** power

    @logged
    def decorated(x):
        return x + 3

    @builds("cache")
    def build(rows: list[float], line: Line, *, depth: int = 1) -> dict:
        total = 0.0
        seen = []
        for row in rows:
            value = helper(row) + line.at(row)
            total += math.sqrt(value) - row
            seen.append(decorated(row))
        try:
            first = [one for one in seen if one > depth][0]
        except IndexError:
            first = 0.0
        def scaled(y):
            return y * total
        return {"total": total, "first": scaled(first), "low": min(seen, key=lambda one: -one)}
"""
)

# (what, before, after): the key stays.
SAME = [
    ("message", "is {x}; make it positive", "must not be {x!r}"),
    ("message with another pure call", "is {x}; make it positive", "has {len(str(x))} digits"),
    ("no message", "raise BadInput(f\"{told('x')} is {x}; make it positive\")", 'raise BadInput("")'),
    ("another formatter", 'return f"<{name}>"', 'return name.upper() + "!"'),
    ("docstring", "total = 0.0\n", '"""Says a lot."""\n        total = 0.0\n'),
    ("docstring of a class", "slope: float\n", '"""A line."""\n        slope: float\n'),
    ("comment and layout", "total = 0.0\n", "total   =   (0.0)  # a sum\n\n"),
    ("annotation of a parameter", "power: int = 2", "power: float | int = 2"),
    ("annotation of a result", "-> dict:", "-> dict[str, float]:"),
    ("annotation of a local", "total = 0.0\n", "total: float = 0.0\n"),
    ("annotation as text", "line: Line", 'line: "Line | None"'),
    ("annotation of a plain field", "slope: float\n", "slope: int\n"),
    ("bare annotation of a local", "total = 0.0\n", "total = 0.0\n        value: float\n"),
    ("progress in a loop", "in rows:", 'in track(rows, "rows"):'),
    ("progress with a computed label", "in rows:", 'in track(rows, f"{len(rows)} rows", len(rows)):'),
    ("progress told", "total = 0.0\n", 'total = 0.0\n        tell("rows", 0, len(rows))\n'),
    ("progress reported", "        for row in rows:\n            value = helper(row) + line.at(row)\n"
     "            total += math.sqrt(value) - row\n            seen.append(decorated(row))\n",
     "        with reporting(lambda *_: None):\n            for row in rows:\n"
     "                value = helper(row) + line.at(row)\n"
     "                total += math.sqrt(value) - row\n                seen.append(decorated(row))\n"),
    ("logging", "total = 0.0\n", 'total = 0.0\n        LOG.info("%s rows", len(rows))\n'),
    ("logging by the module", "total = 0.0\n", 'total = 0.0\n        logging.warning(f"{rows}")\n'),
    ("warning", "total = 0.0\n", 'total = 0.0\n        warnings.warn("slow", stacklevel=2)\n'),
    ("print", "total = 0.0\n", 'total = 0.0\n        print("rows", rows)\n'),
    ("name of a local", "seen", "met"),
    ("name of a loop's variable", "row in rows", "each in rows"),
    ("name in a comprehension", "[one for one in seen if one > depth]", "[x for x in seen if x > depth]"),
    ("name of a module constant", "FACTOR", "MULTIPLE"),
    ("alias of an import", "import math", "import math as m"),
    ("import of a name", "import math", "from math import sqrt"),
    ("import not used", "import math", "import json\n    import math"),
    ("a function beside", "FACTOR = 2", "FACTOR = 2\n    def unrelated(x):\n        return FACTOR + x"),
    ("a variable beside", "FACTOR = 2", "FACTOR = 2\n    OTHER = [FACTOR]"),
    ("pass", "first = 0.0\n", "first = 0.0\n            pass\n"),
]  # fmt: skip

EDITS_ALONG = {  # what else an edit must change to leave the meaning
    "name of a loop's variable": [("helper(row) + line.at(row)", "helper(each) + line.at(each)"),
                                  ("- row", "- each"), ("decorated(row)", "decorated(each)")],
    "alias of an import": [("math.sqrt", "m.sqrt")],
    "import of a name": [("math.sqrt", "sqrt")],
}  # fmt: skip

# (what, before, after): another key.
OTHER = [
    ("arithmetic", "helper(row) + line.at(row)", "helper(row) - line.at(row)"),
    ("order of operands", "FACTOR * x", "x ** power * FACTOR #"),
    ("constant in a function", "total = 0.0", "total = 0.5"),
    ("constant of the module", "FACTOR = 2", "FACTOR = 3"),
    ("kind of a constant", "FACTOR = 2", "FACTOR = 2.0"),
    ("changed constant", "FACTOR = 2", "FACTOR = 2\n    FACTOR += 1"),
    ("default of a parameter", "power: int = 2", "power: int = 3"),
    ("default of a keyword parameter", "depth: int = 1", "depth: int = 2"),
    ("name of a keyword parameter", "depth", "deep"),
    ("default of a field", "start: float = 1.0", "start: float = 2.0"),
    ("name of a field", "start", "offset"),
    ("order of fields", "slope: float\n        start: float = 1.0", "start: float = 1.0\n        slope: float = 0.0"),
    ("field that is none", "start: float = 1.0", "start: ClassVar[float] = 1.0"),
    ("method", "self.slope * x", "self.slope / x"),
    ("helper", "FACTOR * x", "FACTOR + x"),
    ("helper's condition", "if x < 0", "if x <= 0"),
    ("which exception", 'raise BadInput(f"', 'raise ValueError(f"'),
    ("which exception is caught", "except IndexError", "except LookupError"),
    ("what a decorator does", "1.0 * function", "2.0 * function"),
    ("decorator", "@logged\n    def", "def"),
    ("role", '@builds("cache")', '@builds("head")'),
    ("order of statements", "total = 0.0\n        seen = []", "seen = []\n        total = 0.0"),
    ("nested function", "y * total", "y + total"),
    ("lambda", "-one)", "one)"),
    ("comprehension", "if one > depth", "if one >= depth"),
    ("library function", "math.sqrt", "math.cbrt"),
    ("another module of that name", "import math", "import numpy as math"),
    ("another local", "y * total", "y * first"),
    ("a builtin hidden by the module", "FACTOR = 2", "FACTOR = 2\n    def min(x, key):\n        return x[0]"),
    ("a global hidden by a local", "total = 0.0", "helper = abs\n        total = 0.0"),
    ("a name of an outer function hidden", "return y * total", "total = 1.0\n            return y * total"),
    ("a name made nonlocal", "return y * total", "nonlocal first\n            first = y\n            return y * total"),
    ("progress that takes a row away", "total = 0.0\n", 'total = 0.0\n        tell(f"{rows.pop()}", 0, 1)\n'),
    ("log that takes a row away", "total = 0.0\n", 'total = 0.0\n        LOG.info("%s", rows.pop())\n'),
    ("log that goes through an iterator", "total = 0.0\n", 'total = 0.0\n        LOG.info("%s", list(rows))\n'),
    ("log that unpacks an iterator", "total = 0.0\n", 'total = 0.0\n        LOG.info("%s", *rows)\n'),
    ("method on what a log takes", "total = 0.0\n", 'total = 0.0\n        LOG.info(rows.pop().strip())\n'),
    ("log that may fail", "total = 0.0\n", 'total = 0.0\n        LOG.info("%s", rows[5])\n'),
    ("log that may divide by zero", "total = 0.0\n", 'total = 0.0\n        LOG.info(f"{1 / depth}")\n'),
    ("message that assigns", "is {x}; make", "is {(x := 3)}; make"),
    ("formatter with a memory", 'return f"<{name}>"', "SEEN.append(name)\n        return name\n    SEEN = []"),
    ("print into a file", "total = 0.0\n", "total = 0.0\n        print(1, file=rows)\n"),
    ("warnings as errors", "total = 0.0\n", 'total = 0.0\n        warnings.simplefilter("error")\n'),
    ("what a module does on import", "FACTOR = 2", "FACTOR = 2\n    math.tau = 6"),
    ("what importing sets, in an assignment", "FACTOR = 2",
     "FACTOR = 2\n    def set_up():\n        math.tau = 6\n    done = set_up()"),
]  # fmt: skip


def edited(source: str, before: str, after: str, along: list[tuple[str, str]]) -> str:
    for old, new in [(before, after), *along]:
        assert old in source, f"'{old}' is not in the source"
        source = source.replace(old, new)
    return source


@pytest.mark.parametrize(("what", "before", "after"), SAME, ids=[row[0] for row in SAME])
def test_what_decides_no_bits_keeps_the_key(write: Write, what: str, before: str, after: str) -> None:
    other = edited(BASE, before, after, EDITS_ALONG.get(what, []))
    assert code_digest(write(other).build) == code_digest(write(BASE).build)


@pytest.mark.parametrize(("what", "before", "after"), OTHER, ids=[row[0] for row in OTHER])
def test_what_may_decide_bits_changes_the_key(write: Write, what: str, before: str, after: str) -> None:
    other = edited(BASE, before, after, [])
    if "ClassVar" in after:
        other = other.replace("import warnings", "import warnings\n    from typing import ClassVar")
    assert code_digest(write(other).build) != code_digest(write(BASE).build)


def one(source: str, **others: str) -> tuple[str, dict[str, str]]:
    return source, others


# (what, source and other modules, edits of any of them that keep the key, edits that do not)
WORLDS = [
    ("re-raised message", one("""
        def inner(x):
            if x > 9:
                raise ValueError(f"{x} is large")
            return x
        def build(x):
            try:
                return inner(x)
            except ValueError as error:
                raise RuntimeError(f"no: {error}") from error
     """), [("is large", "is too large"), ("no: {error}", "{error}!"), (" from error", "")],
     [("ValueError(f", "OSError(f"), ("RuntimeError", "KeyError"), ("x > 9", "x > 8")]),
    ("caught message that is read", one("""
        def inner(x):
            raise ValueError("three")
        def build(x):
            try:
                return inner(x)
            except ValueError as error:
                return len(str(error))
     """), [], [("three", "four"), ("str(error))", "str(error)) + 1")]),
    ("arguments of a caught exception", one("""
        def inner(x):
            raise ValueError(3)
        def build(x):
            try:
                return inner(x)
            except (OSError, ValueError) as problem:
                return problem.args[0]
     """), [], [("ValueError(3)", "ValueError(4)")]),
    ("an exception made first and raised later", one("""
        def build(x):
            problem = ValueError(f"{x} is wrong")
            if x:
                raise problem
            return x
     """), [("is wrong", "is bad"), ("problem", "it")], [("ValueError", "OSError"), ("return x", "return problem")]),
    ("an exception as a value", one("""
        def build(x):
            problem = ValueError("abc")
            return len(problem.args[0])
     """), [], [("abc", "abcd")]),
    ("an exception returned", one("""
        def made(x):
            return ValueError("abc")
        def build(x):
            return len(str(made(x)))
     """), [], [("abc", "abcd")]),
    ("the value of a generator", one("""
        class Once:
            def __iter__(self):
                return self
            def __next__(self):
                raise StopIteration(1)
        def build(x):
            return (yield from Once())
     """), [], [("StopIteration(1)", "StopIteration(2)")]),
    ("the text of an exception's class", one("""
        class Mine(ValueError):
            def __init__(self, name, known):
                self.known = sorted(known)
                super().__init__(f"{name} is none of {', '.join(self.known)}")
        def build(x):
            if x:
                raise Mine("x", x)
            return x
     """), [("is none of", "is not among"), ("sorted(known)", "list(known)"), ('"x", x', '"z", x')],
     [("ValueError", "OSError"), ("self.known =", "global LAST; LAST =")]),
    ("an exception's class as a value", one("""
        class Mine(ValueError):
            weight = 2
        def build(x):
            if x:
                raise Mine("x")
            return Mine.weight
     """), [('"x"', '"y"')], [("weight = 2", "weight = 3")]),
    ("what leaving a block is told", one("""
        class Quiet:
            def __enter__(self):
                return self
            def __exit__(self, kind, error, trace):
                return "large" in str(error)
        def build(x):
            with Quiet():
                raise ValueError("large")
     """), [], [('ValueError("large")', 'ValueError("small")')]),
    ("warnings that are caught", one("""
        import warnings
        def build(x):
            with warnings.catch_warnings(record=True) as seen:
                warnings.warn("abc")
            return len(str(seen[0].message))
     """), [], [('"abc"', '"abcd"')]),
    ("a docstring that is read", one("""
        def helper(x):
            "abc"
            return x
        def build(x):
            return len(helper.__doc__)
     """), [], [('"abc"', '"abcd"')]),
    ("names of locals that are read", one("""
        def build(x):
            first, second = x, 2
            return sorted(locals())
     """), [], [("second", "last")]),
    ("code in a text", one("""
        def helper(x):
            return 2 * x
        def build(x):
            return eval("helper(x)")
     """), [], [("2 * x", "3 * x")]),
    ("annotations that choose", one("""
        from functools import singledispatch
        @singledispatch
        def helper(x):
            return 0
        @helper.register
        def whole(x: int):
            return 1
        def build(x):
            return helper(x)
     """), [], [("x: int", "x: float"), ("return 1", "return 2")]),
    ("annotations that are validated", one("""
        from pydantic import BaseModel
        class Row(BaseModel):
            value: int
        def build(x):
            return Row(value=x).value
     """), [], [("value: int", "value: float")]),
    ("a table that functions are put into", one("""
        TABLE = {}
        def register(function):
            TABLE[function.__name__] = function
            return function
        @register
        def helper(x):
            return 2 * x
        def build(x):
            return TABLE["helper"](x)
     """), [], [("2 * x", "3 * x")]),
    ("a table that classes enter by themselves", one("""
        TABLE = []
        class Base:
            def __init_subclass__(cls):
                TABLE.append(cls)
        class Helper(Base):
            def value(self):
                return 2
        def build(x):
            return TABLE[0]().value()
     """), [], [("return 2", "return 3")]),
    ("a table that is filled", one("""
        TABLE = {1: 2}
        TABLE[3] = 4
        TABLE.update({5: 6})
        def build(x):
            return TABLE[x]
     """), [], [("= 4", "= 5"), ("5: 6", "5: 7")]),
    ("a global that another function writes", one("""
        def fill():
            global TOTAL
            TOTAL = 3
        def build(x):
            return TOTAL
     """), [], [("TOTAL = 3", "TOTAL = 4")]),
    ("commands beside a build", one("""
        import typer
        import cl
        app = typer.Typer()
        @app.command()
        def main():
            cl.run("split-digits", "ease")
        def build(x):
            return 2 * x
        result = build(3)
        print(result)
        result = cl.BadInput if False else result
     """), [("split-digits", "glyphs"), ("print(result)", "print(result, result)")], [("2 * x", "3 * x")]),
    ("a table that a function is given", one("""
        TABLE = []
        def fill(table, value):
            table.append(value)
        fill(TABLE, 4)
        def build(x):
            return TABLE[x]
     """), [], [("4", "5"), ("append(value)", "append(-value)")]),
    ("a patch of an object, beside one of another", one("""
        import math
        class Tool:
            size = 1
        class Other:
            size = 1
        tool = Tool()
        other = Other()
        tool.size = 2
        other.size = 3
        def build(x):
            return tool.size
     """), [("other.size = 3", "other.size = 4")], [("tool.size = 2", "tool.size = 3")]),
    ("a function replaced on import", one("""
        from HERE import helpers, patches
        def build(x):
            return helpers.helper(x)
     """, helpers="def helper(x):\n    return x",
     patches="from HERE import helpers\nhelpers.helper = lambda x: 2 * x"), [], [("2 * x", "3 * x")]),
    ("a method replaced on import", one("""
        class Tool:
            def value(self):
                return 1
        Tool.value = lambda self: 2
        def build(x):
            return Tool().value()
     """), [], [("self: 2", "self: 3")]),
    ("a module attribute", one("""
        import HERE.helpers
        from HERE import helpers as tools
        def build(x):
            return HERE.helpers.helper(x) + tools.twice(x)
     """, helpers="def helper(x):\n    return x + 1\ndef twice(x):\n    return 2 * x\ndef other(x):\n    return 3 * x"),
     [("3 * x", "4 * x"), ("tools", "more")], [("x + 1", "x + 2"), ("2 * x", "3 * x + 1")]),
    ("a module as a value", one("""
        from HERE import helpers
        def build(x):
            return getattr(helpers, "hel" + "per")(x)
     """, helpers="def helper(x):\n    return x + 1"), [], [("x + 1", "x + 2"), ('"per"', '"lo"')]),
    ("an alias", one("""
        from HERE.helpers import helper as first
        second = first
        def build(x):
            return second(x)
     """, helpers="def helper(x):\n    return x + 1"), [("second", "last")], [("x + 1", "x + 2")]),
    ("a partial function", one("""
        from functools import partial
        def helper(x, y):
            return x - y
        second = partial(helper, y=2)
        def build(x):
            return second(x)
     """), [], [("x - y", "y - x"), ("y=2", "y=3")]),
    ("an import in a function", one("""
        def build(x):
            from HERE.helpers import helper as h
            return h(x)
     """, helpers="def helper(x):\n    return x + 1"),
     [("import helper as h\n            return h(x)", "import helper\n            return helper(x)")],
     [("x + 1", "x + 2")]),
    ("an import that may fail", one("""
        try:
            from HERE.helpers import helper
        except ImportError:
            helper = None
        def build(x):
            return helper(x)
     """, helpers="def helper(x):\n    return x + 1"), [], [("x + 1", "x + 2"), ("helper = None", "helper = abs")]),
    ("an import that is wrapped", one("""
        from HERE.helpers import helper
        helper = abs and helper
        def build(x):
            return helper(x)
     """, helpers="def helper(x):\n    return x + 1"), [], [("x + 1", "x + 2")]),
    ("a name from a star", one("""
        from HERE.helpers import *
        def build(x):
            return helper(x) + OFFSET
     """, helpers="OFFSET = 1\ndef helper(x):\n    return x + 1"), [],
     [("x + 1", "x + 2"), ("OFFSET = 1", "OFFSET = 2")]),
    ("a lazy front door", one("""
        from HERE import Tool, helper
        def build(tool: Tool, x):
            return helper(x) + tool.value()
     """, front="""
        from importlib import import_module
        def __getattr__(name):
            if name not in ("Tool", "helper"):
                raise AttributeError(name)
            return getattr(import_module("HERE.helpers"), name)
     """, helpers="def helper(x):\n    return x + 1\nclass Tool:\n    def value(self):\n        return 2"), [],
     [("x + 1", "x + 2"), ("return 2", "return 3")]),
    ("a type in the signature", one("""
        class Tool:
            def use(self):
                return 1
        Tools = dict[str, "Tool"]
        def build(tools: Tools, *more: Tool):
            return [tool.use() for tool in tools.values()]
     """), [("tools: Tools", "tools: dict[str, Tool]"), (", *more: Tool", ", *more")], [("return 1", "return 2")]),
    ("a type of a field", one("""
        class Tool:
            def use(self):
                return 1
        class Box:
            tool: Tool
        def build(box: Box):
            return box.tool.use()
     """), [], [("return 1", "return 2")]),
    ("a protocol", one("""
        from typing import Protocol
        class Tool(Protocol):
            def use(self):
                "How it is used."
        def build(tool: Tool):
            return tool.use()
     """),
     [("is used", "may be used"), ('def use(self):\n                "How', 'def also(self):\n                "How')],
     [('"How it is used."', "return 1")]),
    ("what is marked", one("""
        from cl.code import unkeyed
        class Tool:
            @unkeyed("for people")
            def shown(self):
                return 1
            def use(self):
                return 2
        @unkeyed("for people")
        class Bar:
            def move(self):
                return 3
        def build(tool: Tool, bar: Bar):
            bar.move()
            return tool.use()
     """), [("return 1", "return 4"), ("return 3", "return 4")], [("return 2", "return 4")]),
    ("functions that call each other", one("""
        def even(x):
            return x == 0 or odd(x - 1)
        def odd(x):
            return x != 0 and even(x - 1)
        def build(x):
            return even(x)
     """), [], [("x == 0", "x == 1"), ("x != 0", "x > 0"), ("return even(x)", "return odd(x)")]),
    ("constants that change places", one("""
        FIRST, SECOND = 1, 2
        def build(x):
            return FIRST - SECOND
     """), [("FIRST", "ONE")], [("FIRST, SECOND =", "SECOND, FIRST ="), ("FIRST - SECOND", "SECOND - FIRST")]),
    ("scopes", one("""
        x = 5
        def build(y):
            class Inner:
                x = x + 1
                rows = [x for _ in range(2)]
                def get(self):
                    return x
            total = sum(total for total in [1, 2])
            if (last := total) > 2:
                total = last
            match y:
                case [first, *rest]:
                    return first
                case {"a": value, **more}:
                    return value, more
            return Inner().get() + (lambda z=total: z)()
     """), [("last", "final"), ("rest]", "others]"), ("_ in", "one in"), ("first", "head"), ("total", "whole")],
     [("x = 5", "x = 6"), ("x = x + 1", "x = x + 2"), ("z=total", "z=last"), ("[first, *rest]", "[*rest, first]"),
      ("return x\n", "return y\n"), ("value, more", "more, value"), ("(last := total)", "(last := -total)")]),
    ("an interface that is called by name", one("""
        def build(x):
            pair = lambda a, b: a - b
            return pair(b=x, a=1)
     """), [("pair", "both")], [("lambda a, b: a - b", "lambda b, a: b - a")]),
    ("a name in an f-string", one("""
        def build(x):
            total = 1
            return f"{total=}"
     """), [], [("total", "whole")]),
    ("a module that has every name for others", one("""
        def __getattr__(name):
            return abs
        def build(x):
            return min(x)
     """), [], [("min", "max")]),
    ("where a module lies", one("""
        def build(x):
            return __name__
     """), [], [("return __name__", "return '__name__'")]),
]  # fmt: skip

KEEPING = [(what, world, *edit) for what, world, same, _ in WORLDS for edit in same]
CHANGING = [(what, world, *edit) for what, world, _, other in WORLDS for edit in other]
World = tuple[str, dict[str, str]]


def digest(write: Write, world: World) -> str:
    return code_digest(write(world[0], **world[1]).build)


def edited_world(world: World, before: str, after: str) -> World:
    source, others = world
    texts = {"": source, **others}
    assert any(before in text for text in texts.values()), f"'{before}' is nowhere"
    texts = {name: text.replace(before, after) for name, text in texts.items()}
    return texts.pop(""), texts


def names(rows: list[tuple[str, World, str, str]]) -> list[str]:
    return [f"{what}: {before} -> {after}" for what, _, before, after in rows]


@pytest.mark.parametrize(("what", "world", "before", "after"), KEEPING, ids=names(KEEPING))
def test_what_is_only_said_or_named_keeps_the_key(
    write: Write, what: str, world: World, before: str, after: str
) -> None:
    assert digest(write, edited_world(world, before, after)) == digest(write, world)


@pytest.mark.parametrize(("what", "world", "before", "after"), CHANGING, ids=names(CHANGING))
def test_what_hides_well_changes_the_key(write: Write, what: str, world: World, before: str, after: str) -> None:
    assert digest(write, edited_world(world, before, after)) != digest(write, world)


@pytest.mark.parametrize(("what", "world"), [row[:2] for row in WORLDS if row[0] != "where a module lies"])
def test_the_same_code_elsewhere_has_the_same_key(write: Write, what: str, world: World) -> None:
    assert digest(write, world) == digest(write, world)


MOVED = one("""
    import math
    from HERE.shapes import area
    SIDE = 3
    def edge(x):
        return SIDE * math.sqrt(area(x))
    def build(x):
        return edge(x) + area(x)
""", shapes="""
    HALF = 0.5
    def area(x):
        return HALF * x * x
""")  # fmt: skip

PLACES = [
    one("""
        from math import sqrt
        from HERE.shapes import area as surface, edge
        def build(x):
            return edge(x) + surface(x)
     """, shapes="""
        import math as m
        def edge(x):
            return SIDE * m.sqrt(area(x))
        def area(x):
            return HALF * x * x
        HALF = 0.5
        SIDE = 3
     """),
    one("""
        import math
        def build(x):
            return edge(x) + area(x)
        def area(x):
            return HALF * x * x
        def edge(x):
            return SIDE * math.sqrt(area(x))
        HALF = 0.5
        SIDE = 3
     """),
    one("""
        from HERE.builds import build
     """, builds="""
        import HERE.sizes
        from HERE import sizes
        def build(x):
            return HERE.sizes.edge(x) + sizes.area(x)
     """, sizes="from HERE.shapes import area, edge", shapes="""
        from math import sqrt as root
        from HERE.numbers import HALF
        SIDE = 3
        def edge(x):
            return SIDE * root(area(x))
        def area(x):
            return HALF * x * x
     """,
        numbers="HALF = 0.5"),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(PLACES)))
def test_moved_functions_keep_the_key(write: Write, place: int) -> None:
    assert digest(write, PLACES[place]) == digest(write, MOVED)


def test_code_that_is_not_reached_keeps_the_key(write: Write) -> None:
    beside = edited_world(MOVED, "SIDE = 3", "SIDE = 3\n    def beside(x):\n        return SIDE + area(x)")
    assert digest(write, beside) == digest(write, MOVED)


STORED = """
    import torch
    from cl.components.builder import builds
    @builds("statistics")
    def build(*, start: float) -> dict:
        if start < 0:
            raise ValueError("is negative")
        return {"value": torch.tensor(2 * start)}
"""


def test_a_build_that_moved_finds_what_it_built(tmp_path: Path, write: Write) -> None:
    home = tmp_path / "home"
    first = builder(home).component("value", write(STORED).build, start=1.0)
    moved = write("from HERE.elsewhere import build", elsewhere=STORED.replace("is negative", "must not be negative"))
    later = builder(home)
    assert later.component("value", moved.build, start=1.0).key == first.key
    assert not later.uses[0].built and first.record.build == f"{first.record.build.split('.')[0]}.main.build"
    assert later.component("value", write(STORED.replace("2 *", "3 *")).build, start=1.0).key != first.key


def test_a_plan_knows_a_build_that_moved(write: Write) -> None:
    old, new = write(STORED).build, write("x = 1", elsewhere=STORED)
    importlib.import_module(f"{new.__package__}.elsewhere")
    assert _has("gone.build", code_digest(old)) and _has(f"{old.__module__}.build", code_digest(old))
    assert not _has(f"{old.__module__}.build", "another") and not _has("gone.other", code_digest(old))
