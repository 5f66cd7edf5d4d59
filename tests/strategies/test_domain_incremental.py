"""The same classes under changing domains: every strategy takes such a stream, or says in one line that it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import cl
from cl import registry
from cl.data.stream import Stream
from cl.errors import BadInput
from cl.testing import tiny_backbone, tiny_stream
from tests.tiny import fast


def domains() -> Stream:
    """Two tasks of the same two classes in two domains."""
    first, second = tiny_stream(2, train=20).tasks
    names = dict(zip(second.classes, first.classes, strict=True))
    shards = {
        part: replace(shard, labels=tuple(names[label] for label in shard.labels))
        for part, shard in (("train", second.train), ("test", second.test))
    }
    back = replace(second, classes=first.classes, domain="other", **shards)
    return Stream("other", (replace(first, domain="plain"), back))


@pytest.mark.parametrize("strategy", [name for name, _ in registry.strategies])
def test_classes_that_come_back(tmp_path: Path, strategy: str) -> None:
    settings = fast(registry.strategies.get(strategy))
    try:
        figures = cl.run(domains(), strategy, backbone=tiny_backbone(), settings=settings, home=tmp_path).figures
    except BadInput as error:
        assert "new classes in every task" in str(error) and "\n" not in str(error)
        return
    # Some learn once, after the last task, and are not measured before.
    measured = [row for row, seen in zip(figures["accuracy"], figures["curve"], strict=True) if seen is not None]
    assert figures["curve"][-1] is not None and all(value is not None for row in measured for value in row)
    assert figures["growth"]["truth"]["new"] == [True, True]
