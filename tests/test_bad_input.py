"""Whatever a stream's or a backbone's files hold: it is used, or refused in one line."""

from __future__ import annotations

import csv
import io
import json
import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cl.data.images import decode
from cl.data.recipes import resolve_stream
from cl.errors import PalimpsestError
from cl.models.loading import load_described, read_checkpoint
from streams.batches import read_batch, read_idx
from tests.image_folder import BASE, folder, toml
from tests.public_sets import batch, idx

NAMES = st.text(st.characters(codec="utf-8"), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | NAMES
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))


@contextmanager
def one_line() -> Iterator[None]:
    """Either all is well, or the error is ours and of one printable line."""
    try:
        yield
    except PalimpsestError as error:
        assert str(error) and "\n" not in str(error)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("stream"))


def spelled(value: Any) -> str:
    """A value as TOML; what TOML cannot say becomes a string."""
    if isinstance(value, bool | int | str):
        return json.dumps(value)
    if isinstance(value, float):
        return {"inf": "inf", "-inf": "-inf", "nan": "nan"}.get(repr(value), repr(value))
    if isinstance(value, list):
        return "[" + ", ".join(map(spelled, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {spelled(inner)}" for key, inner in value.items()) + "}"
    return '"nothing"'


KEYS = st.sampled_from([*BASE, "first", "next", "class_order_seed", "augment", "augment_scale", "samples"]) | NAMES


@given(changes=st.dictionaries(KEYS, VALUES, max_size=3))
@settings(max_examples=150)
def test_any_table_of_a_stream(place: Path, changes: dict[str, Any]) -> None:
    lines = {json.dumps(key): value for key, value in BASE.items()}
    lines |= {json.dumps(key): spelled(value) for key, value in changes.items()}
    text = "\n".join(f"{key} = {value}" for key, value in lines.items())
    (place / "fuzzed.toml").write_text(text, encoding="utf-8", errors="replace")
    with one_line():
        resolve_stream(place / "fuzzed.toml")


@given(content=st.binary(max_size=60), at=st.integers(0, 200))
@settings(max_examples=150)
def test_any_bytes_in_a_toml_file(place: Path, content: bytes, at: int) -> None:
    good = toml(place).read_bytes()
    (place / "fuzzed.toml").write_bytes(good[:at] + content + good[at + len(content) :])
    with one_line():
        resolve_stream(place / "fuzzed.toml")


CELLS = st.sampled_from(["train/cat/0.png", "test/cat/0.png", "train/owl/1.png", "cat", "owl", "train", "test"]) | NAMES
HEADERS = st.permutations(["sample", "class", "split", "subject", "labels"]) | st.lists(NAMES, max_size=4)


@given(header=HEADERS, rows=st.lists(st.lists(CELLS, min_size=3, max_size=6), max_size=5), noise=st.binary(max_size=9))
@settings(max_examples=200)
def test_any_table_of_samples(place: Path, header: list[str], rows: list[list[str]], noise: bytes) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    (place / "samples.csv").write_bytes(text.getvalue().encode() + noise)
    with one_line():
        resolve_stream(toml(place, samples='"samples.csv"', tasks="[1]", classes='["cat"]'))


def pictures() -> list[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    found = []
    for mode, kind in (("RGB", "png"), ("P", "gif"), ("CMYK", "jpeg"), ("RGBA", "webp"), ("L", "tiff"), ("RGB", "bmp")):
        content = io.BytesIO()
        Image.fromarray(noise, "RGBA").convert(mode).save(content, kind)
        found.append(content.getvalue())
    return found


@given(
    picture=st.sampled_from(pictures()),
    places=st.lists(st.floats(0, 1, exclude_max=True), max_size=8),
    values=st.binary(min_size=8, max_size=8),
    end=st.floats(0, 1),
)
@settings(max_examples=600)
def test_any_damage_to_an_image(picture: bytes, places: list[float], values: bytes, end: float) -> None:
    content = bytearray(picture)
    for at, value in zip(places, values, strict=False):
        content[int(at * len(content))] = value
    with one_line():
        assert decode(bytes(content[: int(end * len(content)) + 1])).mode == "RGB"


@given(
    content=st.binary(max_size=64),
    start=st.sampled_from([b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0"]),
)
@settings(max_examples=300)
def test_any_bytes_as_an_image(content: bytes, start: bytes) -> None:
    with one_line():
        decode(start + content)


@given(at=st.integers(0, 3300), values=st.binary(max_size=8))
@settings(max_examples=300)
def test_any_damage_to_a_batch(at: int, values: bytes) -> None:
    content = batch(1, "x", labels=[0])
    with one_line():
        read_batch(content[:at] + values + content[at + len(values) :])
    with one_line():
        read_idx(idx(np.zeros((2, 3, 4), np.uint8))[: at % 40] + values)


@given(content=st.binary(max_size=80))
@settings(max_examples=300)
def test_any_bytes_as_a_batch(content: bytes) -> None:
    with one_line():
        read_batch(content)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backbone")


BACKBONE_KEYS = st.sampled_from(["timm", "checkpoint", "mean", "std", "preprocess"]) | NAMES


@given(changes=st.dictionaries(BACKBONE_KEYS, VALUES, max_size=3))
@settings(max_examples=150)
def test_any_table_of_a_backbone(backbone: Path, changes: dict[str, Any]) -> None:
    table = {"timm": '"VisionTransformer"', "checkpoint": '"none.pth"', "preprocess": '"raw01"'}
    lines = {json.dumps(key): value for key, value in table.items()}
    lines |= {json.dumps(key): spelled(value) for key, value in changes.items()}
    text = "\n".join(f"{key} = {value}" for key, value in lines.items()) + "\n[kwargs]\ndepth = 1\nembed_dim = 12"
    (backbone / "fuzzed.toml").write_text(text, encoding="utf-8", errors="replace")
    with one_line():
        load_described(backbone / "fuzzed.toml")


@given(name=st.sampled_from(["w.pth", "w.safetensors"]), head=st.integers(0, 1 << 64), content=st.binary(max_size=80))
@settings(max_examples=200)
def test_any_bytes_as_a_checkpoint(backbone: Path, name: str, head: int, content: bytes) -> None:
    start = struct.pack("<Q", head % (1 << 64)) if head % 2 else pickle.dumps({"a": 1})[: head % 20]
    (backbone / name).write_bytes(start + content)
    with one_line():
        read_checkpoint(backbone / name)
