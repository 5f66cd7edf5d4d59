"""The code digest: what is refused, and that it is cheap to ask for. What counts is in `test_keys`."""

from __future__ import annotations

import functools
import subprocess
import sys

import pytest

from cl.code import code_digest
from cl.errors import BadInput
from tests.cl.sources import Write


def test_a_nested_build_is_refused() -> None:
    def build() -> None: ...

    with pytest.raises(BadInput, match="module level"):
        code_digest(build)


def partly() -> None: ...


def test_a_partial_function_is_refused() -> None:
    with pytest.raises(BadInput, match="no function of its own"):
        code_digest(functools.partial(partly))


def test_a_function_in_the_place_of_another_is_refused(write: Write) -> None:
    module = write("""
        import functools
        def build(x):
            return x
        other = functools.wraps(build)(lambda x: -x)
    """)
    assert code_digest(module.build)
    with pytest.raises(BadInput, match="not what its module defines"):
        code_digest(module.other)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("def build(x):\n    return nowhere(x)", "defined nowhere"),
        ("import importlib\ndef build(x):\n    return importlib.import_module('json').dumps(x)", "imports by name"),
        ("def build(x):\n    from HERE.absent import thing\n    return thing(x)", "cannot be imported"),
    ],
)
def test_what_leads_to_no_source_is_refused(write: Write, source: str, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        code_digest(write(source).build)


def test_a_table_from_a_star_is_refused(write: Write) -> None:
    module = write("from HERE.tables import *\ndef build(x):\n    return TABLE[x]", tables="TABLE = {1: 2}")
    with pytest.raises(BadInput, match="leads to no source"):
        code_digest(module.build)


def test_asking_loads_no_torch() -> None:
    program = "import sys, cl.code; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
