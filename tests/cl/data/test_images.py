"""Image files of every kind, good and bad, and what is remembered of them."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cl.data.augment import Crop
from cl.data.images import FilePixels, decode, whole
from cl.errors import BadInput
from cl.home import files as files_module
from cl.home.files import Files

RED = np.full((4, 6, 3), (200, 10, 10), np.uint8)


def encoded(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def huge_png(side: int) -> bytes:
    """A picture that claims side x side pixels and holds none."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def frames() -> bytes:
    first, second = Image.fromarray(RED), Image.fromarray(255 - RED)
    return encoded(first, "gif", save_all=True, append_images=[second])


def photo_of_orientation(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(RED), "jpeg", exif=exif)


def seen_through() -> Image.Image:
    return Image.fromarray(np.dstack([RED, np.zeros((4, 6), np.uint8)]), "RGBA")


@pytest.mark.parametrize(
    ("content", "colour", "size"),
    [
        (encoded(Image.fromarray(RED)), (200, 10, 10), (6, 4)),
        (encoded(Image.fromarray(RED).convert("P", palette=Image.Palette.ADAPTIVE)), (200, 10, 10), (6, 4)),
        (encoded(Image.fromarray(RED).convert("CMYK"), "tiff"), (200, 10, 10), (6, 4)),
        (encoded(Image.fromarray(np.full((4, 6), 257 * 77, np.uint16))), (77, 77, 77), (6, 4)),
        (encoded(Image.fromarray(np.full((4, 6), 77, np.uint8))), (77, 77, 77), (6, 4)),
        (encoded(Image.new("1", (6, 4), 1)), (255, 255, 255), (6, 4)),
        (encoded(seen_through()), (255, 255, 255), (6, 4)),
        (encoded(Image.new("LA", (6, 4), (77, 255))), (77, 77, 77), (6, 4)),
        (frames(), (200, 10, 10), (6, 4)),
        (photo_of_orientation(6), (200, 10, 10), (4, 6)),
        (encoded(Image.new("RGB", (1, 1), (1, 2, 3))), (1, 2, 3), (1, 1)),
    ],
    ids=["plain", "palette", "cmyk", "16-bit", "grey", "bits", "alpha", "grey-alpha", "animated", "turned", "1x1"],
)
def test_every_kind_becomes_rgb(content: bytes, colour: tuple[int, int, int], size: tuple[int, int]) -> None:
    image = decode(content)
    assert image.mode == "RGB" and image.size == size
    assert np.abs(np.asarray(image).astype(int) - colour).max() <= 3
    assert whole(image, 8).size == (8, 8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image"),
        (b"hello", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (encoded(Image.fromarray(RED))[:-30], "corrupt or truncated"),
        (encoded(Image.fromarray(np.zeros((90, 90, 3), np.uint8)), "jpeg")[:-99], "corrupt or truncated"),
        (huge_png(40_000), "pixels; make it smaller"),
        (huge_png(10_000), "pixels; make it smaller"),
        (encoded(Image.new("F", (4, 4)), "tiff"), "floating-point"),
        (encoded(Image.new("I", (4, 4), 1 << 20), "tiff"), "32 bits"),
    ],
)
def test_what_cannot_be_used_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        decode(content)


def write(folder: Path, count: int) -> dict[str, Path]:
    """`count` pictures, long written, of sizes of their own."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    for row in range(count):
        image = Image.fromarray(generator.integers(0, 256, (9 + row % 5, 12, 3), dtype=np.uint8))
        image.save(folder / f"{row:03d}.png")
        os.utime(folder / f"{row:03d}.png", (1e9, 1e9))
    return {path.name: path for path in sorted(folder.iterdir())}


def test_pixels_do_not_depend_on_how_many_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write(tmp_path / "images", 20)
    pixels, ids = FilePixels(paths, 8, Files()), list(paths)
    together = pixels.read(ids)
    monkeypatch.setattr(files_module, "WORKERS", 1)
    assert together.shape == (20, 3, 8, 8) and together.equal(pixels.read(ids))
    assert together[3:4].equal(pixels.read(ids[3:4]))


def test_a_crop_is_of_the_original(tmp_path: Path) -> None:
    half = np.zeros((64, 64, 3), np.uint8)
    half[:, 32:] = 255
    Image.fromarray(half).save(tmp_path / "a.png")
    pixels = FilePixels({"a": tmp_path / "a.png"}, 8, Files())
    right = Crop((0.1, 0.1), (0.0, 0.5, 1 - 1e-6, 0.5, *[0.0] * 36, 0.9))
    assert pixels.read(["a"], [right]).min() == 255
    assert pixels.read(["a"]).min() == 0


def test_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write(tmp_path / "images", 3)
    first = FilePixels(paths, 8, Files(tmp_path / "home"))
    first.prepare(list(paths))
    monkeypatch.setattr(files_module, "_digest", lambda path: pytest.fail("read again"))
    monkeypatch.setattr(FilePixels, "_decoded", lambda self, sample, stamp: pytest.fail("decoded again"))
    second = FilePixels(paths, 8, Files(tmp_path / "home"))
    assert [first.digest(sample) for sample in paths] == [second.digest(sample) for sample in paths]
    assert [first.marks(sample) for sample in paths] == [second.marks(sample) for sample in paths]


def test_what_is_remembered_names_no_file_and_no_content(tmp_path: Path) -> None:
    """A deleted sample's file may still lie at its source, so every run of a home meets it again."""
    paths, files = write(tmp_path / "images", 3), Files(tmp_path / "home")
    FilePixels(paths, 8, files)
    told = b"".join(path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file())
    plain = {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths.values()}
    plain |= {hashlib.sha256(os.fsencode(path)).hexdigest() for path in paths.values()}
    assert not [one for one in plain if one.encode() in told]


def test_a_file_that_is_being_written_is_not_remembered(tmp_path: Path) -> None:
    (path,) = write(tmp_path / "images", 1).values()
    path.touch()
    files = Files(tmp_path / "home")
    ((before, stamp),) = files.digests([path])
    path.write_bytes(path.read_bytes()[::-1])  # of the same size, and perhaps within the clock's grain
    os.utime(path, ns=(stamp.modified_ns, stamp.modified_ns))
    assert files.digests([path])[0][0] != before


def test_a_file_that_changes_during_a_run_is_noticed(tmp_path: Path) -> None:
    paths = write(tmp_path / "images", 1)
    pixels = FilePixels(paths, 8, Files())
    pixels.prepare(["000.png"])
    Image.new("RGB", (5, 5)).save(tmp_path / "images" / "000.png")
    with pytest.raises(BadInput, match=r"000\.png changed while"):
        pixels.read(["000.png"])


def test_a_long_thin_image_takes_no_more_memory_than_a_square_one(tmp_path: Path) -> None:
    assert whole(Image.new("RGB", (60_000, 1)), 224).size == (224, 224)
