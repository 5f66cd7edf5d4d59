"""Reading image files that strangers made: the one place where such bytes are decoded."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from cl.errors import BadInput

# Formats that Pillow decodes itself: no other program is started for any of them.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MOST_PIXELS = 100_000_000


def read_image(path: Path) -> np.ndarray:
    """The image of a file, upright and in colour, uint8 `(height, width, 3)`; of an animation the first frame.

    Raises BadInput for a file that is missing, no image, damaged, cut short, or of more than 100 megapixels.
    """
    return np.asarray(_decoded(path))


def read_resized(path: Path, height: int, width: int) -> np.ndarray:
    """The same, bicubically resized to uint8 `(height, width, 3)`."""
    return np.asarray(_decoded(path).resize((width, height), Image.Resampling.BICUBIC))


def _decoded(path: Path) -> Image.Image:
    shown = ascii(str(path))  # a name may hold newlines
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit is ours, below; a damaged EXIF block costs no pixel
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise Image.DecompressionBombError
                return _colour(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise BadInput(f"there is no image {shown}; check the path") from None
    except Image.DecompressionBombError:
        raise BadInput(f"image {shown} has more than {MOST_PIXELS // 10**6} megapixels; make it smaller") from None
    except (IsADirectoryError, PermissionError) as error:
        raise BadInput(f"image {shown} cannot be read: {error.strerror}") from None
    except Exception as error:  # decoders fail in many ways on bytes that are no sound image
        why = (str(error) or type(error).__name__).splitlines()[0][:80]
        raise BadInput(f"{shown} is not a sound {', '.join(FORMATS)} image ({why}); replace it") from None


def _colour(image: Image.Image) -> Image.Image:
    """RGB; 16-bit grey is scaled, where Pillow's own conversion would cut it off at 255."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65_535) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")
