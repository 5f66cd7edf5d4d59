"""Decide which characters are glyph classes, and which of them pretraining must never see.

The decision is committed as `streams/data/glyph_classes.json`. This command takes it again, the same each time:

    python -m streams.glyph_classes
"""

from __future__ import annotations

import argparse
import hashlib
import json
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageFilter

from streams.glyph_rendering import FAMILIES, FAMILY_OF_FACE, IMAGE_SIZE, Floats, character, font_path, ink_mask

CLASSES_FILE = Path(__file__).parent / "data" / "glyph_classes.json"

# Letters with and without case; mathematical, currency and other signs.
_CATEGORIES = ("Lu", "Ll", "Lo", "Sm", "Sc", "So")
# Blocks whose signs differ by a dot or a line only, or hold digits.
_SKIPPED = (
    "BRAILLE",
    "BOX DRAWINGS",
    "HEXAGRAM",
    "TETRAGRAM",
    "DIGRAM",
    "DOMINO",
    "MAHJONG",
    "PLAYING CARD",
    " FACE",
    "MONKEY",
    "DIGIT",
    "NUMBER",
    "NUMERAL",
    "LIGHT SHADE",
    "MEDIUM SHADE",
    "DARK SHADE",
    "LEFT ONE",
    "LOWER ONE",
)
_REACH = 3  # side of the square, in pixels of a 32 pixel picture, within which ink counts as near
_SAME = 0.955  # likeness from which two characters are one class
_ALIKE = 0.92  # likeness from which a class resembles a reserved one and is kept out of pretraining
_DIGIT_LIKE = 0.92  # likeness to a digit from which a character is dropped
_RESERVED = 320
_RESERVED_LETTERS = 220


@dataclass(frozen=True)
class GlyphClass:
    """One glyph class.

    Attributes:
        name: its code point, like `U+0416`; `render` takes this.
        title: its Unicode name.
        script: first word of the Unicode name for letters, `SIGN` for the rest.
        also: further code points that look the same, merged into this class.
        faces: the faces that hold it, in the order of `FAMILY_OF_FACE`.
    """

    name: str
    title: str
    script: str
    also: tuple[str, ...]
    faces: tuple[str, ...]

    @property
    def families(self) -> tuple[str, ...]:
        """The families of its faces, each once."""
        return tuple(dict.fromkeys(FAMILY_OF_FACE[face] for face in self.faces))

    def split_faces(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Faces to learn from and faces of one whole other family to be tested on.

        Which family is held out depends on the class name alone, so it varies between classes. A class of a single
        family has nothing to hold out: its second part is empty.
        """
        if len(self.families) == 1:
            return self.faces, ()
        held_out = self.families[_scatter(self.name) % len(self.families)]
        seen = tuple(face for face in self.faces if FAMILY_OF_FACE[face] != held_out)
        return seen, tuple(face for face in self.faces if FAMILY_OF_FACE[face] == held_out)


def load_classes(part: str) -> tuple[GlyphClass, ...]:
    """The committed classes of one part, `"pretraining"` or `"reserved"`, in code point order."""
    parts = json.loads(CLASSES_FILE.read_text(encoding="utf-8"))
    if part not in parts:
        raise ValueError(f"glyph classes are {' or '.join(parts)}, not {part!r}")
    return tuple(GlyphClass(**row | {"also": tuple(row["also"]), "faces": tuple(row["faces"])}) for row in parts[part])


def choose_classes() -> dict[str, list[GlyphClass]]:
    """Take the decision anew: lists under `"pretraining"` and `"reserved"`, in code point order.

    Whatever resembles a digit is dropped; characters that look the same become one class. Classes of two families or
    more are then reserved in an arbitrary but fixed order, passing over those that resemble an earlier one. Every
    other letter, and every other sign of two families, goes to pretraining unless it resembles a reserved class.
    """
    characters = sorted(_characters(), key=lambda glyph: (-len(glyph.families), _code_point(glyph)))
    alike = likeness(characters)
    digits = [row for row, glyph in enumerate(characters) if character(glyph.name).isdecimal()]
    leaders = _merge([int(row) for row in np.flatnonzero(alike[digits].max(axis=0) < _DIGIT_LIKE)], alike)
    eligible = [row for row in leaders if len(characters[row].families) > 1]
    eligible.sort(key=lambda row: _scatter(characters[row].name))
    letters = _apart([row for row in eligible if characters[row].script != "SIGN"], alike)[:_RESERVED_LETTERS]
    reserved = _apart(letters + [row for row in eligible if characters[row].script == "SIGN"], alike)[:_RESERVED]
    seen = [row for row in leaders if _teaches(characters[row]) and alike[row, reserved].max() < _ALIKE]
    # A glyph whose faces differ more than look-alikes do counts as unlike even itself: it stays with pretraining.
    reserved = [row for row in reserved if row not in seen]

    def describe(row: int) -> GlyphClass:
        return replace(characters[row], also=tuple(characters[twin].name for twin in leaders[row]))

    parts = {"pretraining": seen, "reserved": reserved}
    return {part: sorted(map(describe, rows), key=_code_point) for part, rows in parts.items()}


def _merge(rows: Sequence[int], alike: Floats) -> dict[int, list[int]]:
    """Map each row that is first of its looks to the later rows that look the same."""
    leaders: dict[int, list[int]] = {}
    for row in rows:
        twin = max(leaders, key=lambda leader: alike[row, leader], default=row)
        if twin == row or alike[row, twin] < _SAME:
            leaders[row] = []
        else:
            leaders[twin].append(row)
    return leaders


def _apart(rows: Sequence[int], alike: Floats) -> list[int]:
    chosen: list[int] = []
    for row in rows:
        if not chosen or alike[row, chosen].max() < _ALIKE:
            chosen.append(row)
    return chosen


def likeness(glyphs: Sequence[GlyphClass]) -> Floats:
    """How alike each two glyphs look at best: float32 `[n, n]` within 0 to 1, symmetric.

    Two renderings are as alike as the smaller share of either one's ink that falls near ink of the other. Compared
    are the upright faces of families that hold both, and the first face of each.
    """
    uprights = [faces[0] for family, faces in FAMILIES.items() if not family.startswith("Computer Modern")]
    best = _overlap([(glyph.name, glyph.faces[0]) for glyph in glyphs])
    for face in uprights:
        rows = [row for row, glyph in enumerate(glyphs) if face in glyph.faces]
        square = np.ix_(rows, rows)
        best[square] = np.maximum(best[square], _overlap([(glyphs[row].name, face) for row in rows]))
    return best


def _overlap(drawings: Sequence[tuple[str, str]]) -> Floats:
    looks = [_look(*drawing) for drawing in drawings]
    ink, near = np.stack([ink for ink, _ in looks]), np.stack([near for _, near in looks])
    covered: Floats = ink @ near.T / ink.sum(axis=1, keepdims=True)
    overlap: Floats = np.minimum(covered, covered.T)
    return overlap


def _code_point(glyph: GlyphClass) -> int:
    return int(glyph.name[2:], 16)


def _teaches(glyph: GlyphClass) -> bool:
    # The many signs of a single family differ in small details and would outnumber the letters.
    return glyph.script != "SIGN" or len(glyph.families) > 1


def _scatter(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def _coverage(face: str) -> set[int]:
    with TTFont(font_path(face)) as font:
        codes = font.getBestCmap()
    # Computer Modern files map their own encoding onto Latin-1; only the plain letters mean what they say.
    return {code for code in codes if not face.startswith("cm") or (chr(code).isascii() and chr(code).isalpha())}


def _characters() -> list[GlyphClass]:
    faces_of: dict[int, list[str]] = defaultdict(list)
    for face in FAMILY_OF_FACE:
        for code in filter(_is_candidate, sorted(_coverage(face))):
            if _look(f"U+{code:04X}", face)[0].any():
                faces_of[code].append(face)
    return [_describe(code, faces) for code, faces in sorted(faces_of.items())]


def _is_candidate(code: int) -> bool:
    char = chr(code)
    if char.isascii() and char.isdecimal():
        return True  # digits take part in order that their look-alikes can be found
    if unicodedata.category(char) not in _CATEGORIES or unicodedata.decomposition(char):
        return False
    return not any(word in unicodedata.name(char, "DIGIT") for word in _SKIPPED)


def _describe(code: int, faces: Sequence[str]) -> GlyphClass:
    title = unicodedata.name(chr(code))
    script = title.split()[0] if chr(code).isalpha() else "SIGN"
    return GlyphClass(f"U+{code:04X}", title, script, (), tuple(faces))


@cache
def _look(name: str, face: str) -> tuple[Floats, Floats]:
    """The ink and its near surroundings, float32 `[1024]` each within 0 to 1; zeros where the face draws nothing."""
    try:
        mask = Image.fromarray(ink_mask(name, face)).reduce(2)
    except ValueError:
        mask = Image.new("L", (IMAGE_SIZE, IMAGE_SIZE))
    wide = mask.filter(ImageFilter.MaxFilter(_REACH))
    return _flat(mask), _flat(wide)


def _flat(picture: Image.Image) -> Floats:
    """float32 `[pixels]` within 0 to 1."""
    return np.asarray(picture, dtype=np.float32).ravel() / np.float32(255)


def _write(parts: dict[str, list[GlyphClass]]) -> None:
    lines = {
        part: ",\n".join(json.dumps(asdict(glyph), ensure_ascii=False) for glyph in glyphs)
        for part, glyphs in parts.items()
    }
    body = ",\n".join(f'"{part}": [\n{rows}\n]' for part, rows in lines.items())
    CLASSES_FILE.write_text(f"{{\n{body}\n}}\n", encoding="utf-8")


def main() -> None:
    """Write the committed list anew and say what it holds."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    parts = choose_classes()
    _write(parts)
    for part, glyphs in parts.items():
        print(f"{len(glyphs):5d} {part} classes -> {CLASSES_FILE}")


if __name__ == "__main__":
    main()
