"""The cards of the backbones that come with the package. Reading them loads no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

WEIGHTS = resources.files("cl") / "weights"


def shipped() -> dict[str, dict[str, Any]]:
    """The backbones that come with the package: name -> card."""
    cards = [entry for entry in WEIGHTS.iterdir() if entry.name.endswith(".json")]
    return {card.name.removesuffix(".json"): json.loads(card.read_text(encoding="utf-8")) for card in cards}


def summary(card: Mapping[str, Any]) -> str:
    """A card in one line."""
    return f"{card['parameters'] / 1e6:.1f} M parameters, pretrained on glyphs; comes with the package"
