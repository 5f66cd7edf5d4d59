"""The committed list of glyph classes and the backbone that was pretrained on its first part."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

import cl
from streams.glyph_classes import CLASSES_FILE, choose_classes, likeness, load_classes
from streams.glyph_pretraining import digit_pictures, nearest_mean_accuracy
from streams.glyph_rendering import FAMILY_OF_FACE, character, ink_mask

WEIGHTS = Path(cl.__file__).parent / "weights"
SEEN, RESERVED = load_classes("pretraining"), load_classes("reserved")


@pytest.fixture(scope="module")
def card():
    return json.loads((WEIGHTS / "glyph-vit.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def net(card):
    net = VisionTransformer(**card["arguments"])
    net.load_state_dict(load_file(WEIGHTS / "glyph-vit.safetensors"), strict=True)
    return net


def members(classes):
    return {name for glyph in classes for name in (glyph.name, *glyph.also)}


def test_enough_classes_are_reserved():
    assert len(RESERVED) >= 250
    assert len({glyph.name for glyph in RESERVED}) == len(RESERVED)


def test_reserved_classes_are_never_seen_in_pretraining():
    assert not members(RESERVED) & members(SEEN)


def test_reserved_classes_look_unlike_those_seen():
    seen = len(SEEN)
    assert likeness([*SEEN, *RESERVED])[:seen, seen:].max() < 0.92


def test_no_two_reserved_classes_look_the_same():
    alike = likeness(RESERVED)
    np.fill_diagonal(alike, 0)
    assert alike.max() < 0.92


def test_reserved_classes_have_faces_to_learn_from_and_an_unseen_family():
    for glyph in RESERVED:
        learned, unseen = glyph.split_faces()
        assert learned and unseen
        assert sorted(learned + unseen) == sorted(glyph.faces)
        assert not {FAMILY_OF_FACE[face] for face in learned} & {FAMILY_OF_FACE[face] for face in unseen}


def test_no_digits():
    names = members(SEEN) | members(RESERVED)
    assert not any(character(name).isnumeric() for name in names)
    assert "U+004F" not in names and "U+006C" not in names  # O and l look like 0 and 1


@pytest.mark.parametrize("pair", ["Cc", "Xx", "Vv", "Zz"])
def test_cases_of_one_shape_are_one_class(pair):
    names = {f"U+{ord(case):04X}" for case in pair}
    homes = [glyph for glyph in (*SEEN, *RESERVED) if names & members([glyph])]
    assert len(homes) <= 1


def test_every_listed_face_draws_the_class_and_no_placeholder():
    placeholders = {face: placeholder(face) for face in FAMILY_OF_FACE}
    for glyph in RESERVED:
        for face in glyph.faces:
            assert ink_mask(glyph.name, face).tobytes() != placeholders[face]


def placeholder(face):
    """What a face draws for a code point that no font has; None if nothing at all."""
    try:
        return ink_mask("U+FFFF", face).tobytes()
    except ValueError:
        return None


@pytest.mark.slow
def test_the_committed_list_is_what_the_command_decides():
    chosen = choose_classes()
    assert tuple(chosen["reserved"]) == RESERVED
    assert tuple(chosen["pretraining"]) == SEEN


def test_an_unknown_part_is_refused():
    with pytest.raises(ValueError, match="pretraining or reserved"):
        load_classes("test")


def test_the_list_is_readable_json():
    assert set(json.loads(CLASSES_FILE.read_text(encoding="utf-8"))) == {"pretraining", "reserved"}


def test_the_weights_are_small_and_give_features(net):
    assert (WEIGHTS / "glyph-vit.safetensors").stat().st_size <= 6_000_000
    net.eval()
    with torch.no_grad():
        assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 128)


def test_the_card_tells_the_truth_about_digits(net, card):
    stated = card["figures"]["nearest_mean_accuracy"]["digits"]
    assert nearest_mean_accuracy(net, *digit_pictures()) == pytest.approx(stated, abs=0.01)
    assert stated > card["figures"]["nearest_mean_accuracy_untrained"]["digits"]
