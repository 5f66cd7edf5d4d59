"""The code digest: what counts as a change of a build, and what does not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from cl import code
from cl.errors import BadInput

BASE = """
    import json
    FACTOR = 2
    def helper(x):
        return FACTOR * x
    def unrelated(x):
        return x
    def build(x):
        return helper(x)
"""


@pytest.fixture
def digest_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest(source: str, name: str = "build") -> str:
        (tmp_path / "third_party.py").write_text(dedent(source))
        sys.modules.pop("third_party", None)
        importlib.invalidate_caches()
        sys.dont_write_bytecode = True
        code._module.cache_clear()
        return code.code_digest.__wrapped__(getattr(importlib.import_module("third_party"), name))

    return digest


def test_comments_docstrings_and_layout_do_not_count(digest_of: Callable[[str], str]) -> None:
    talkative = BASE.replace("return helper(x)", '"""Says a lot."""\n        # and more\n        return   helper( x )')
    assert digest_of(BASE) == digest_of(talkative)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("return helper(x)", "return helper(x + 1)"),
        ("return FACTOR * x", "return x * FACTOR"),
        ("FACTOR = 2", "FACTOR = 3"),
    ],
)
def test_a_change_in_reached_code_counts(digest_of: Callable[[str], str], before: str, after: str) -> None:
    assert digest_of(BASE) != digest_of(BASE.replace(before, after))


def test_code_that_is_not_reached_does_not_count(digest_of: Callable[[str], str]) -> None:
    changed = BASE.replace("def unrelated(x):\n        return x", "def unrelated(x):\n        return -x")
    assert changed != BASE
    assert digest_of(BASE) == digest_of(changed)


def test_a_type_in_the_signature_is_reached(digest_of: Callable[[str], str]) -> None:
    source = """
        class Tool:
            def use(self):
                return 1
        def build(tool: Tool):
            return tool.use()
    """
    assert digest_of(source) != digest_of(source.replace("return 1", "return 2"))


def test_a_nested_build_is_refused() -> None:
    def build() -> None: ...

    with pytest.raises(BadInput, match="module level"):
        code.code_digest(build)
