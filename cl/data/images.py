"""Image files as pixels: decoded on demand, one rule for every format.

Orientation as EXIF says; the first frame of an animation (phones write photographs as files of two frames); 16-bit
grey scaled to 8 bits; transparent parts over white; palettes, grey and CMYK as RGB, colour profiles not applied. For
evaluation the largest central square, resized (bicubic): the same as resizing the shorter side and cropping the centre.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.Image import DecompressionBombError
from torch import Tensor

from cl.code import code_digest
from cl.data.augment import Crop
from cl.data.samples import pixels_digest
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
            return upright(image)
    except BadInput:
        raise
    except DecompressionBombError:
        raise BadInput(f"has more than {MAX_PIXELS:,} pixels; make it smaller") from None
    except UnidentifiedImageError:
        raise BadInput("is not an image that can be read (png, jpg, webp, tiff, bmp, gif); remove it") from None
    except Exception as error:  # damaged files make the decoders fail in many ways
        raise BadInput(f"is corrupt or truncated ({_line(error)}); replace or remove it") from error


def upright(image: Image.Image) -> Image.Image:
    """`image` as EXIF says it stands, RGB of 8 bits. Raises BadInput for pixels that cannot be had so."""
    return _rgb(ImageOps.exif_transpose(image))


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


def seen(image: Image.Image, size: int, crop: Crop | None) -> np.ndarray:
    """The image as a network sees it, uint8 `(size, size, 3)`: its `crop`, or its largest central square."""
    return np.asarray(crop.of(image, (size, size)) if crop is not None else whole(image, size))


def side_of(path: Path) -> int:
    """Height and width of an image file that is a square. Raises BadInput naming the file."""
    with _named(path, _content(path)) as image:
        if image.width != image.height:
            raise BadInput(f"image {shown(path)} is {image.width} x {image.height}, not a square; is it cropped?")
        return image.width


def read_image(path: Path) -> Image.Image:
    """The image in a file, RGB of 8 bits. Raises BadInput naming the file."""
    return _named(path, _content(path))


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
    """Identity of what turns bytes into pixels: the code of both steps and Pillow's release."""
    return digest_json([code_digest(decode), code_digest(seen), PIL.__version__])


@dataclass(frozen=True)
class _Checked:
    """A file that was looked at and found sound: digest of its bytes, of its pixels, and what it looked like."""

    digest: str
    pixels: str
    stamp: Stamp


class FilePixels:
    """Images in files, decoded when asked for, in threads where many are asked for at once.

    paths: sample id -> file. image_size: height and width of what `read` gives. exact: every image must have that size
    already. No file is opened before something of it is asked for. Raises BadInput, in one line that names the file,
    for any that cannot be decoded; what was found sound is remembered by its content in `files`.
    """

    def __init__(self, paths: Mapping[str, Path], image_size: int, files: Files, exact: bool = False) -> None:
        self._paths, self._size, self._exact, self._files = dict(paths), image_size, exact, files
        self._decoder = decoder_digest()
        self._checked: dict[str, _Checked] = {}

    def digest(self, sample: str) -> str:
        return digest_json([self._look(sample).digest, self._size, self._decoder])

    def marks(self, sample: str) -> tuple[str, ...]:
        """Of the file's bytes, and of the pixels at the size that they have in the file."""
        return self._look(sample).digest, self._look(sample).pixels

    def prepare(self, samples: Sequence[str]) -> None:
        """Read and check these files, side by side."""
        new = [sample for sample in samples if sample not in self._checked]
        if not new:
            return
        found = self._files.digests([self._paths[sample] for sample in new])
        stamps = {sample: stamp for sample, (_, stamp) in zip(new, found, strict=True)}
        digests = {sample: digest for sample, (digest, _) in zip(new, found, strict=True)}
        check = f"{self._decoder} of {self._size} pixels" if self._exact else self._decoder
        sound = self._files.sound(set(digests.values()), check)
        unknown = {digest: sample for sample, digest in digests.items() if digest not in sound}
        pixels = mapped(lambda sample: self._pixels(sample, stamps[sample]), list(unknown.values()), "checking images")
        fresh = dict(zip(unknown, pixels, strict=True))
        self._files.found_sound(fresh, check)
        sound |= fresh
        self._checked |= {sample: _Checked(digest, sound[digest], stamps[sample]) for sample, digest in digests.items()}

    def read(self, samples: Sequence[str], crops: Sequence[Crop] | None = None) -> Tensor:
        self.prepare(samples)
        jobs = list(zip(samples, crops if crops is not None else [None] * len(samples), strict=True))
        return torch.from_numpy(np.stack(mapped(self._one, jobs))).permute(0, 3, 1, 2).contiguous()

    def _look(self, sample: str) -> _Checked:
        self.prepare([sample])
        return self._checked[sample]

    def _one(self, job: tuple[str, Crop | None]) -> np.ndarray:
        sample, crop = job
        return seen(self._decoded(sample, self._checked[sample].stamp), self._size, crop)

    def _decoded(self, sample: str, stamp: Stamp) -> Image.Image:
        path = self._paths[sample]
        try:
            content, now = path.read_bytes(), Stamp.of(path)
        except OSError as error:
            raise BadInput(f"image {shown(path)} cannot be read ({error.strerror}); check the file") from error
        if now != stamp:
            raise BadInput(f"image {shown(path)} changed while the run read it; run again")
        return _named(path, content)

    def _pixels(self, sample: str, stamp: Stamp) -> str:
        """The digest of the pixels of one file, which is sound if it has any."""
        with self._decoded(sample, stamp) as image:
            if self._exact and image.size != (self._size, self._size):
                raise BadInput(
                    f"image {shown(self._paths[sample])} is {image.width} x {image.height}, not {self._size} x "
                    f"{self._size} as the others; this layout is cropped already"
                )
            return pixels_digest(np.asarray(image))


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:100]
