"""Draw one glyph as a small colour image: a pure function of its class, face, style and random generator.

A *class* is a character, named by its code point (`U+0416`). A *face* is one font file that matplotlib bundles
(`DejaVuSerif-Bold`); faces of one design make a *family*. A `GlyphStyle` says how a drawing may vary. The fonts are
read from the installed matplotlib; nothing is copied out of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Floats = NDArray[np.float32]

IMAGE_SIZE = 32

# Only text faces with honest Unicode maps. LastResort draws a placeholder for every code point; the remaining STIX
# and Computer Modern files hold private-use or oddly encoded symbols.
FAMILIES: dict[str, tuple[str, ...]] = {
    "DejaVu Sans": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    "DejaVu Sans Mono": (
        "DejaVuSansMono",
        "DejaVuSansMono-Bold",
        "DejaVuSansMono-Oblique",
        "DejaVuSansMono-BoldOblique",
    ),
    "DejaVu Serif": ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    "STIX General": ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    "Computer Modern Roman": ("cmr10", "cmb10", "cmti10"),
    "Computer Modern Sans": ("cmss10",),
    "Computer Modern Typewriter": ("cmtt10",),
}
FAMILY_OF_FACE: dict[str, str] = {face: family for family, faces in FAMILIES.items() for face in faces}

_EM = 96  # font size at which outlines are drawn
_MASK = 2 * IMAGE_SIZE  # masks are placed at twice the resolution, then averaged down
_MASK_BOX = _MASK - 8  # longest side of the ink in a mask; the rest is margin
_STROKE_STEP = 0.01  # strokes are rounded to this, so that masks can be cached
_OUTLINE_STROKE = 0.06  # an outline thinner than this vanishes at 32 pixels

_ROWS, _COLUMNS = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE].astype(np.float32) / IMAGE_SIZE


@dataclass(frozen=True)
class GlyphStyle:
    """How drawings of a glyph may vary; every range is `(low, high)` and is drawn from uniformly.

    Attributes:
        rotation: largest turn to either side, in degrees.
        scale: longest side of the ink as a share of the image side.
        stretch: largest change of width against height, as a natural logarithm.
        shear: largest horizontal slant to either side, as a slope.
        shift: largest displacement to either side, as a share of the image side.
        bend: largest displacement of inner control points, as a share of the image side.
        stroke: thickening of the outline, as a share of the ink's longest side.
        outlined: probability that only the contour is drawn.
        contrast: difference of brightness between ink and paper, within 0 to 1.
        light_ink: probability that the ink is brighter than the paper.
        tint: largest deviation of a colour channel from grey, within 0 to 1.
        texture: amplitude of the paper's texture, within 0 to 1.
        blur: radius of a Gaussian blur, in pixels.
        resolution: side, in pixels, to which the picture is first reduced.
        noise: standard deviation of pixel noise, within 0 to 1.
    """

    rotation: float = 0.0
    scale: tuple[float, float] = (0.8, 0.8)
    stretch: float = 0.0
    shear: float = 0.0
    shift: float = 0.0
    bend: float = 0.0
    stroke: tuple[float, float] = (0.0, 0.0)
    outlined: float = 0.0
    contrast: tuple[float, float] = (1.0, 1.0)
    light_ink: float = 0.0
    tint: float = 0.0
    texture: tuple[float, float] = (0.0, 0.0)
    blur: tuple[float, float] = (0.0, 0.0)
    resolution: tuple[float, float] = (IMAGE_SIZE, IMAGE_SIZE)
    noise: tuple[float, float] = (0.0, 0.0)


_HAND = GlyphStyle(rotation=10.0, scale=(0.7, 0.9), stretch=0.15, shear=0.15, shift=0.06)

DOMAINS: dict[str, GlyphStyle] = {
    "clean": replace(_HAND, contrast=(0.8, 1.0)),
    "inverted": replace(_HAND, contrast=(0.8, 1.0), light_ink=1.0),
    "textured": replace(_HAND, contrast=(0.5, 0.8), light_ink=0.5, tint=0.2, texture=(0.25, 0.45)),
    "coloured": replace(_HAND, contrast=(0.4, 0.7), light_ink=0.5, tint=0.35),
    "outlined": replace(_HAND, contrast=(0.8, 1.0), stroke=(0.06, 0.08), outlined=1.0),
    "heavy": replace(_HAND, contrast=(0.8, 1.0), stroke=(0.03, 0.05)),
    "blurred": replace(_HAND, contrast=(0.6, 1.0), blur=(0.9, 1.4), resolution=(14, 20)),
    "noisy": replace(_HAND, contrast=(0.6, 0.9), light_ink=0.5, noise=(0.12, 0.2)),
    "tilted": replace(_HAND, rotation=25.0, shear=0.35, contrast=(0.6, 1.0), bend=0.03),
}
"""Named renderings, far enough apart that a stream may treat each as a domain of its own."""

WILD = GlyphStyle(
    rotation=18.0,
    scale=(0.55, 0.95),
    stretch=0.3,
    shear=0.3,
    shift=0.1,
    bend=0.04,
    stroke=(0.0, 0.06),
    outlined=0.08,
    contrast=(0.4, 1.0),
    light_ink=0.5,
    tint=0.25,
    texture=(0.0, 0.3),
    blur=(0.0, 1.0),
    resolution=(12, 48),
    noise=(0.0, 0.08),
)
"""The widest style: what the backbone is pretrained on."""


def character(class_name: str) -> str:
    """The character of a class name such as `U+0416`; raises `ValueError` for any other form."""
    if not class_name.startswith("U+"):
        raise ValueError(f"a glyph class is named by its code point, like U+0416, not {class_name!r}")
    return chr(int(class_name[2:], 16))


def font_path(face: str) -> Path:
    """The font file of `face`; raises `KeyError` when the face is not one of `FAMILY_OF_FACE`."""
    if face not in FAMILY_OF_FACE:
        raise KeyError(f"unknown face {face!r}; known faces: {', '.join(FAMILY_OF_FACE)}")
    return Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")


def interpolate(start: GlyphStyle, end: GlyphStyle, share: float) -> GlyphStyle:
    """The style that lies `share` (0 to 1) of the way from `start` to `end`, in every number."""

    def between(start: Any, end: Any) -> Any:
        if isinstance(start, tuple):
            return tuple(between(*pair) for pair in zip(start, end, strict=True))
        return (1 - share) * start + share * end

    return GlyphStyle(**{f.name: between(getattr(start, f.name), getattr(end, f.name)) for f in fields(GlyphStyle)})


def ink_mask(class_name: str, face: str, stroke: float = 0.0, outlined: bool = False) -> NDArray[np.uint8]:
    """The bare glyph, centred and sized to fit: uint8 `[64, 64]`, 0 for paper and 255 for ink.

    `stroke` thickens the outline by that share of the ink's longest side; `outlined` hollows the glyph out. Raises
    `ValueError` when the face draws nothing for the class.
    """
    return np.asarray(_mask(class_name, face, round(stroke / _STROKE_STEP), outlined))


def render(class_name: str, face: str, style: GlyphStyle, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one picture of a glyph.

    Args:
        class_name: code point of the glyph, like `U+0416`.
        face: a face that holds it, one of `FAMILY_OF_FACE`.
        style: how the drawing may vary.
        generator: the only source of randomness; it is advanced.

    Returns:
        uint8 `[32, 32, 3]` in RGB.

    Raises:
        KeyError: the face is unknown.
        ValueError: the class name is malformed or the face draws nothing for it.
    """
    coverage = _place(_draw_mask(class_name, face, style, generator), style, generator)
    return _develop(_colour(coverage, style, generator), style, generator)


@cache
def _font(face: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_path(face), _EM, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=8192)
def _mask(class_name: str, face: str, stroke_steps: int, outlined: bool) -> Image.Image:
    text, font = character(class_name), _font(face)
    left, top, right, bottom = (int(side) for side in font.getbbox(text))
    stroke = stroke_steps * _STROKE_STEP * max(right - left, bottom - top)
    pad = math.ceil(stroke) + 1
    canvas = Image.new("L", (right - left + 2 * pad, bottom - top + 2 * pad))
    pen, origin = ImageDraw.Draw(canvas), (pad - left, pad - top)
    pen.text(origin, text, fill=255, font=font, stroke_width=stroke)
    if outlined:
        pen.text(origin, text, fill=0, font=font)
    if canvas.getbbox() is None:
        raise ValueError(f"{face} draws nothing for {class_name}")
    return _fit(canvas)


def _fit(canvas: Image.Image) -> Image.Image:
    ink = canvas.crop(canvas.getbbox())
    factor = _MASK_BOX / max(ink.size)
    width, height = (max(1, round(side * factor)) for side in ink.size)
    mask = Image.new("L", (_MASK, _MASK))
    mask.paste(ink.resize((width, height), Image.Resampling.BILINEAR), ((_MASK - width) // 2, (_MASK - height) // 2))
    return mask


def _draw_mask(class_name: str, face: str, style: GlyphStyle, generator: np.random.Generator) -> Image.Image:
    stroke = generator.uniform(*style.stroke)
    outlined = bool(generator.random() < style.outlined)
    if outlined:
        stroke = max(stroke, _OUTLINE_STROKE)
    return _mask(class_name, face, round(stroke / _STROKE_STEP), outlined)


def _place(mask: Image.Image, style: GlyphStyle, generator: np.random.Generator) -> Floats:
    """Turn, scale, slant, shift and bend a mask: float32 `[32, 32]` within 0 to 1."""
    turn, stretch, shear, right, down = generator.uniform(-1, 1, 5)
    angle = math.radians(style.rotation) * turn
    size = generator.uniform(*style.scale) * _MASK / _MASK_BOX
    wide, high = (size * math.exp(sign * style.stretch * stretch / 2) for sign in (1, -1))
    cos, sin = math.cos(angle), math.sin(angle)
    slanted = np.array([[wide, style.shear * shear * high], [0.0, high]])
    inverse = np.linalg.inv(np.array([[cos, -sin], [sin, cos]]) @ slanted)
    # Nine control points carry the map, so that moving them bends the glyph as well.
    grid = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), -1) * (_MASK / 2)
    grid = grid - style.shift * _MASK * np.array([right, down])
    grid = grid + style.bend * _MASK * generator.uniform(-1, 1, grid.shape)
    source = grid @ inverse.T + _MASK / 2
    placed = mask.transform(mask.size, Image.Transform.MESH, _quads(source.tolist()), Image.Resampling.BILINEAR)
    return np.asarray(placed.reduce(2), dtype=np.float32) / np.float32(255)


def _quads(points: list[list[list[float]]]) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    half = _MASK // 2
    return [
        (
            (column * half, row * half, (column + 1) * half, (row + 1) * half),
            (*points[row][column], *points[row + 1][column], *points[row + 1][column + 1], *points[row][column + 1]),
        )
        for row in (0, 1)
        for column in (0, 1)
    ]


def _colour(coverage: Floats, style: GlyphStyle, generator: np.random.Generator) -> Floats:
    """Ink and textured paper: float32 `[32, 32, 3]`, roughly within 0 to 1."""
    contrast = generator.uniform(*style.contrast)
    dark = generator.uniform(0, 1 - contrast) if contrast < 1 else 0.0
    ink, paper = (dark + contrast, dark) if generator.random() < style.light_ink else (dark, dark + contrast)
    tints: Floats = style.tint * generator.uniform(-1, 1, (2, 3)).astype(np.float32)
    strength = generator.uniform(*style.texture)
    cover = coverage[..., None]
    picture: Floats = cover * (ink + tints[0]) + (1 - cover) * (paper + tints[1] + _texture(strength, generator))
    return picture


def _texture(strength: float, generator: np.random.Generator) -> Floats | float:
    """Clouds or stripes around zero: float32 `[32, 32, 3]`, or plain 0 where there is no texture."""
    if strength == 0:
        return 0.0
    per_channel = generator.uniform(0.4, 1, 3).astype(np.float32) * strength
    if generator.random() < 0.3:
        across, along, phase = generator.uniform(-1, 1, 3)
        waves: Floats = np.sin(40 * (across * _ROWS + along * _COLUMNS) + 3 * phase)
        return waves[..., None] * per_channel
    cells = int(generator.integers(2, 13))
    clouds = Image.fromarray(generator.uniform(-1, 1, (cells, cells)).astype(np.float32))
    smooth: Floats = np.asarray(clouds.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR))
    return smooth[..., None] * per_channel


def _develop(picture: Floats, style: GlyphStyle, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Lower the resolution, blur, add noise: uint8 `[32, 32, 3]`."""
    side, blur, noise = (generator.uniform(*limits) for limits in (style.resolution, style.blur, style.noise))
    image = Image.fromarray((picture * 255).clip(0, 255).astype(np.uint8))
    if side < IMAGE_SIZE:
        image = image.resize((round(side), round(side)), Image.Resampling.BILINEAR)
        image = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
    if blur > 0:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    if noise == 0:
        return np.array(image)
    grain = generator.standard_normal(picture.shape, dtype=np.float32) * (255 * noise)
    grainy: NDArray[np.uint8] = (np.asarray(image) + grain).clip(0, 255).astype(np.uint8)
    return grainy
