"""Image files as pixels: decoded on demand, one rule for every format.

Orientation as EXIF says; the first frame of an animation (phones write photographs as files of two frames); 16-bit
grey scaled to 8 bits; transparent parts over white; palettes, grey and CMYK as RGB, colour profiles not applied. For
evaluation the largest central square, resized (bicubic): the same as resizing the shorter side and cropping the centre.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.Image import DecompressionBombError
from torch import Tensor

from cl.code import code_digest
from cl.data.augment import Crop
from cl.digests import digest_json
from cl.errors import BadInput, shown
from cl.home.files import Files, Stamp, mapped

# Others either run foreign programs (EPS) or are not photographs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 89_478_485  # Pillow's own limit: a quarter gigabyte as RGB
WHITE = (255, 255, 255, 255)

# Pillow warns of large and of damaged images; `decode` refuses what it cannot use, in one line.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(content: bytes) -> Image.Image:
    """The image in a file's bytes, RGB of 8 bits. Raises BadInput saying what is wrong with it."""
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DecompressionBombError
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except BadInput:
        raise
    except DecompressionBombError:
        raise BadInput(f"has more than {MAX_PIXELS:,} pixels; make it smaller") from None
    except UnidentifiedImageError:
        raise BadInput("is not an image that can be read (png, jpg, webp, tiff, bmp, gif); remove it") from None
    except Exception as error:  # damaged files make the decoders fail in many ways
        raise BadInput(f"is corrupt or truncated ({_line(error)}); replace or remove it") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise BadInput("holds floating-point pixels; save it with 8 bits a channel")
    if image.mode.startswith("I"):
        return _from_16_bits(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, WHITE), layer).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise BadInput("holds pixels of 32 bits; save it with 8 or 16 bits a channel")
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def whole(image: Image.Image, size: int) -> Image.Image:
    """The largest central square of `image`, bicubic, at `size` x `size`."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def side_of(path: Path) -> int:
    """Height and width of an image file that is a square. Raises BadInput naming the file."""
    with _named(path, _content(path)) as image:
        if image.width != image.height:
            raise BadInput(f"image {shown(path)} is {image.width} x {image.height}, not a square; is it cropped?")
        return image.width


def read_square(path: Path, size: int) -> np.ndarray:
    """The largest central square of an image file, uint8 `(size, size, 3)`. Raises BadInput naming the file."""
    return np.asarray(whole(_named(path, _content(path)), size))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"image {shown(path)} cannot be read ({error.strerror}); check the path") from None


def _named(path: Path, content: bytes) -> Image.Image:
    try:
        return decode(content)
    except BadInput as error:
        raise BadInput(f"image {shown(path)} {error}") from error


def decoder_digest() -> str:
    """Identity of what turns bytes into pixels: this module's code and Pillow's release."""
    return digest_json([code_digest(decode), code_digest(whole), PIL.__version__])


class FilePixels:
    """Images in files, decoded when asked for, in threads where many are asked for at once.

    paths: sample id -> file. image_size: height and width of what `read` gives. exact: every image must have that size
    already. Raises BadInput, in one line that names the file, for any that cannot be decoded; what was found sound is
    remembered by its content in `files`.
    """

    def __init__(self, paths: Mapping[str, Path], image_size: int, files: Files, exact: bool = False) -> None:
        self._paths, self._size, self._exact = dict(paths), image_size, exact
        found = files.digests(list(self._paths.values()))
        self._digests = {sample: digest for sample, (digest, _) in zip(self._paths, found, strict=True)}
        self._stamps = {sample: stamp for sample, (_, stamp) in zip(self._paths, found, strict=True)}
        self._decoder = decoder_digest()
        self._check(files)

    def digest(self, sample: str) -> str:
        return digest_json([self._digests[sample], self._size, self._decoder])

    def read(self, samples: Sequence[str], crops: Sequence[Crop] | None = None) -> Tensor:
        jobs = list(zip(samples, crops if crops is not None else [None] * len(samples), strict=True))
        return torch.from_numpy(np.stack(mapped(self._one, jobs))).permute(0, 3, 1, 2).contiguous()

    def _one(self, job: tuple[str, Crop | None]) -> np.ndarray:
        sample, crop = job
        image = self._decoded(sample)
        seen = crop.of(image, (self._size, self._size)) if crop is not None else whole(image, self._size)
        return np.asarray(seen)

    def _decoded(self, sample: str) -> Image.Image:
        path = self._paths[sample]
        try:
            content, stamp = path.read_bytes(), Stamp.of(path)
        except OSError as error:
            raise BadInput(f"image {shown(path)} cannot be read ({error.strerror}); check the file") from error
        if stamp != self._stamps[sample]:
            raise BadInput(f"image {shown(path)} changed while the run read it; run again")
        return _named(path, content)

    def _check(self, files: Files) -> None:
        check = f"{self._decoder} of {self._size} pixels" if self._exact else self._decoder
        known = files.sound(set(self._digests.values()), check)
        new = {digest: sample for sample, digest in self._digests.items() if digest not in known}
        mapped(self._check_one, list(new.values()), "checking images")
        files.found_sound(new, check)

    def _check_one(self, sample: str) -> None:
        with self._decoded(sample) as image:
            if self._exact and image.size != (self._size, self._size):
                raise BadInput(
                    f"image {shown(self._paths[sample])} is {image.width} x {image.height}, not {self._size} x "
                    f"{self._size} as the others; this layout is cropped already"
                )


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:100]
