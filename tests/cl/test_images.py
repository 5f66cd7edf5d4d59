"""Images that strangers made: decoded upright and in colour, or refused in one line."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cl.errors import BadInput
from cl.images import read_image, read_resized

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)


def encoded(image: Image.Image, **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **{"format": "PNG", **how})
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK"])
def test_every_mode_becomes_colour(tmp_path: Path, mode: str) -> None:
    form = "TIFF" if mode == "CMYK" else "PNG"
    image = Image.fromarray(GREY.astype(np.uint16) << 8) if mode == "I;16" else Image.fromarray(GREY).convert(mode)
    path = tmp_path / "image"
    path.write_bytes(encoded(image, format=form))
    found = read_image(path)
    assert found.shape == (8, 8, 3) and found.dtype == np.uint8
    if mode in ("L", "RGB", "I;16"):
        assert (found == GREY[..., None]).all()


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # the camera was turned by a quarter
    path = tmp_path / "a name\nwith a line break.png"
    path.write_bytes(encoded(Image.fromarray(GREY), exif=exif))
    assert (read_image(path)[..., 0] == np.rot90(GREY, -1)).all()


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (7, 200)]
    path = tmp_path / "moving.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert (read_image(path) == 7).all()


def test_one_pixel_can_be_resized(tmp_path: Path) -> None:
    path = tmp_path / "dot.png"
    path.write_bytes(encoded(Image.fromarray(GREY[:1, :1])))
    assert read_resized(path, 32, 16).shape == (32, 16, 3)


def huge_png(width: int, height: int) -> bytes:
    """A few bytes that claim to be an image of this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(10))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a sound"),
        (b"#!/bin/sh", "not a sound"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a sound"),
        (encoded(Image.fromarray(GREY.repeat(9, 0)))[:-30], "not a sound"),
        (huge_png(40_000, 40_000), "more than 100 megapixels"),
        (huge_png(10_001, 10_000), "more than 100 megapixels"),
    ],
)
def test_what_is_no_sound_image_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_image(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no image"):
        read_image(tmp_path / "none.png")
    with pytest.raises(BadInput, match="cannot be read"):
        read_image(tmp_path)


SAMPLES = [encoded(Image.fromarray(GREY), format=form) for form in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM")]


@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8), st.data())
def test_damaged_images_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, edits: list[tuple[int, int]], data: st.DataObject
) -> None:
    damaged = bytearray(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    for place, value in edits:
        if damaged:
            damaged[place % len(damaged)] = value
    path = tmp_path_factory.getbasetemp() / "damaged-image"
    path.write_bytes(damaged)
    try:
        assert read_image(path).dtype == np.uint8
    except BadInput as error:
        assert "\n" not in str(error)
