"""What files hold: written and read back as it was, refused in one line where it is anything else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from cl.documents import Document, read_document, typed
from cl.errors import StoreError, Unusable


@dataclass(frozen=True)
class Leaf:
    name: str
    side: Literal["left", "right"] = "left"


@dataclass(frozen=True)
class Tree(Document):
    SCHEMA: ClassVar[int] = 3

    leaves: tuple[Leaf, ...]
    weights: Mapping[str, float]
    edge: tuple[int, int] = (0, 1)
    parent: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


TREE = Tree((Leaf("a"), Leaf("b\udcff", "right")), {"x": 1.5}, parent="root", notes={"any": [1, None]})


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(TREE.to_json().decode("utf-8", "surrogatepass")), **fields}).encode()


def read(text: bytes) -> Tree:
    return Tree.from_json(text, "tree.json", "plant it anew")


def test_a_document_comes_back_as_it_was() -> None:
    assert read(TREE.to_json()) == TREE
    assert read(changed(weights={"x": 2})) == Tree(TREE.leaves, {"x": 2.0}, parent="root", notes=TREE.notes)
    assert read(b'{"schema":3,"leaves":[],"weights":{}}') == Tree((), {})  # what has a default may be missing


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"3", b"\xff", b"{}", changed(schema=2), changed(schema="3"), changed(leaves="a"),
     changed(leaves=[{"name": 1}]), changed(leaves=[{"side": "left"}]), changed(leaves=[{"name": "a", "side": "up"}]),
     changed(weights=[1]), changed(weights={"x": "1"}), changed(weights={"x": True}), changed(edge=[1]),
     changed(edge=[1, 2, 3]), changed(parent=1), changed(more=1)],
)  # fmt: skip
def test_what_is_damaged_is_one_line(text: bytes) -> None:
    with pytest.raises(StoreError, match=r"^tree.json is damaged; plant it anew$") as error:
        read(text)
    assert not isinstance(error.value, Unusable)


def test_what_a_newer_release_wrote_is_not_damaged() -> None:
    with pytest.raises(Unusable, match=r"^tree.json is of a newer release \(schema 4\); use that release"):
        read(changed(schema=4))


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"tree.json cannot be read \(No such file or directory\); plant it anew"):
        read_document(tmp_path / "tree.json", Tree, "tree.json", "plant it anew")


def test_truth_values_are_no_numbers() -> None:
    with pytest.raises(ValueError, match="is not"):
        typed(Leaf, {"name": True})
