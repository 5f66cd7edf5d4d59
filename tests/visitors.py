"""Images that belong to no stream."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from cl.testing import tiny_stream


def visitor(folder: Path) -> Path:
    """One of the tiny stream's own test images, twice as large, under a name to search for."""
    path = folder / "a visitor's picture.png"
    pixels = tiny_stream().tasks[0].test.images([0])[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels.repeat(2, 0).repeat(2, 1)).save(path)
    return path
