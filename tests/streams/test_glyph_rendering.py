"""Rendering is a pure function that draws real glyphs."""

import numpy as np
import pytest

from streams.glyph_rendering import DOMAINS, FAMILY_OF_FACE, WILD, GlyphStyle, font_path, ink_mask, interpolate, render

PLAIN = GlyphStyle()
LETTER = "U+0416"


def draw(seed: int = 0, name: str = LETTER, face: str = "DejaVuSerif", style: GlyphStyle = WILD) -> np.ndarray:
    return render(name, face, style, np.random.default_rng(seed))


def test_a_picture_is_small_and_coloured():
    picture = draw()
    assert picture.shape == (32, 32, 3)
    assert picture.dtype == np.uint8


def test_the_same_seed_draws_the_same_picture():
    np.random.seed(1)
    first = draw(7)
    np.random.seed(2)
    draw(8)
    assert np.array_equal(draw(7), first)


def test_another_seed_draws_another_picture():
    assert not np.array_equal(draw(0), draw(1))


@pytest.mark.parametrize("style", [WILD, *DOMAINS.values()], ids=["wild", *DOMAINS])
def test_no_style_draws_blanks(style):
    assert all(draw(seed, style=style).std() > 5 for seed in range(50))


def test_every_face_draws_its_own_letter():
    pictures = {draw(name="U+0041", face=face, style=PLAIN).tobytes() for face in FAMILY_OF_FACE}
    assert len(pictures) == len(FAMILY_OF_FACE)


def test_every_face_is_a_real_text_face():
    assert all(font_path(face).is_file() for face in FAMILY_OF_FACE)
    assert not any("LastResort" in face for face in FAMILY_OF_FACE)


def test_domains_differ():
    means = {name: np.mean([draw(seed, style=style) for seed in range(20)]) for name, style in DOMAINS.items()}
    assert means["inverted"] < 100 < 180 < means["clean"]
    assert means["outlined"] != means["heavy"]
    assert np.ptp(draw(style=DOMAINS["coloured"]).astype(int), axis=2).max() > 20
    assert np.ptp(draw(style=DOMAINS["clean"]).astype(int), axis=2).max() == 0


def test_stroke_thickens_and_outline_hollows():
    plain, thick = ink_mask("U+25A0", "DejaVuSans"), ink_mask("U+0416", "DejaVuSans", stroke=0.08)
    hollow = ink_mask("U+25A0", "DejaVuSans", stroke=0.06, outlined=True)
    assert thick.sum() > ink_mask("U+0416", "DejaVuSans").sum()
    assert hollow[32, 32] == 0 < plain[32, 32]


def test_interpolation_runs_from_start_to_end():
    assert interpolate(PLAIN, WILD, 0.0) == PLAIN
    assert interpolate(PLAIN, WILD, 1.0) == WILD
    assert interpolate(PLAIN, WILD, 0.5).rotation == WILD.rotation / 2


def test_bad_requests_say_what_is_wrong():
    with pytest.raises(KeyError, match="unknown face 'Arial'"):
        draw(face="Arial")
    with pytest.raises(ValueError, match="named by its code point"):
        draw(name="A")
    with pytest.raises(ValueError, match="draws nothing"):
        draw(name="U+0020")
