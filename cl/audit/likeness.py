"""Images in bytes, and whether they show what a sample shows.

Two measures, neither a judgement: the digest of the decoded pixels, and how alike two small grey thumbnails are. The
second finds what was compressed with loss or scaled; an image that was cropped, turned or drawn over is another image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cl.data.images import decode, whole
from cl.data.samples import Samples
from cl.errors import BadInput

SIDE = 8  # of a thumbnail: so few that what compression with loss changes averages out
ALIKE = 0.9  # correlation of two thumbnails from which on one may be the other
FLAT = 1.0  # grey levels that a thumbnail has to vary by, or it shows nothing
LONGEST = 1 << 25  # bytes of an image within other data
CHUNK = 256
_PNG = re.compile(rb"\x89PNG\r\n\x1a\n")
_JPEG = re.compile(rb"\xff\xd8\xff[\xc0-\xfe]")
_WHOLE = (b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")
_JPEGS_IN_ONE = 3  # a photograph may hold a thumbnail and a preview

Thumbnail = NDArray[np.float32]


def images_in(data: bytes) -> Iterator[Image.Image]:
    """The images that `data` is or, as PNG and JPEG, holds at any place."""
    if data.startswith(_WHOLE):
        yield from _image(data)
    for pattern, count in ((_PNG, 1), (_JPEG, _JPEGS_IN_ONE)):
        starts = [match.start() for match in pattern.finditer(data)]
        ends = [*starts[count:], *[len(data)] * count]
        for start, end in zip(starts, ends, strict=False):
            yield from _image(data[start : min(end, start + LONGEST)])


def _image(data: bytes) -> Iterator[Image.Image]:
    try:
        yield decode(data)
    except BadInput:  # the same few bytes in other data
        return


def thumbnail(image: Image.Image) -> Thumbnail | None:
    """The central square, small, grey, without mean, of length one; None where it shows nothing."""
    grey = np.asarray(whole(image, SIDE).convert("L"), dtype=np.float32).ravel()
    if grey.std() < FLAT:
        return None
    centred = grey - grey.mean()
    return np.asarray(centred / np.linalg.norm(centred), dtype=np.float32)


def most_alike(shards: Sequence[Samples], thumbnails: Sequence[Thumbnail]) -> NDArray[np.float32]:
    """For each thumbnail its correlation with the sample of `shards` that is most like it."""
    shown = np.stack(thumbnails)
    best = np.full(len(shown), -1, dtype=np.float32)
    for shard in shards:
        for start in range(0, len(shard), CHUNK):
            pixels = shard.images(slice(start, start + CHUNK)).permute(0, 2, 3, 1).numpy()
            small = [one for row in pixels if (one := thumbnail(Image.fromarray(row))) is not None]
            if small:
                best = np.maximum(best, (shown @ np.stack(small).T).max(1))
    return best
