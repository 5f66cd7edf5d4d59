"""Colours and style of the pages' figures: each colour by the name of its CSS variable, in light and dark."""

from __future__ import annotations

from typing import Any

# Strategies s0-s7 after Okabe & Ito's colour-blind-safe set, its pale tones deepened to read on white (yellow and black
# left out); phases p0-p5 are a ramp of lightness, so that they are never mistaken for strategies.
LIGHT = {
    "paper": "#fdfdfb",
    "ink": "#20242b",
    "muted": "#656b76",
    "rule": "#dfe1e4",
    "heat": "#14507a",
    "s0": "#0072b2",
    "s1": "#d15400",
    "s2": "#00916a",
    "s3": "#b5609a",
    "s4": "#3d9bd6",
    "s5": "#cf8f00",
    "s6": "#5b6472",
    "s7": "#882255",
    "p0": "#2b4a5e",
    "p1": "#54809a",
    "p2": "#8fb3c5",
    "p3": "#c3d8e1",
    "p4": "#b49b6c",
    "p5": "#dccda9",
}
DARK = {
    "paper": "#15181d",
    "ink": "#e6e8eb",
    "muted": "#9aa1ac",
    "rule": "#30353d",
    "heat": "#78bae6",
    "s0": "#4aa5e0",
    "s1": "#f1843f",
    "s2": "#30c49b",
    "s3": "#df93c2",
    "s4": "#9ad6fa",
    "s5": "#f0b840",
    "s6": "#aeb6c2",
    "s7": "#d4628f",
    "p0": "#b9dcee",
    "p1": "#7fadc6",
    "p2": "#527e97",
    "p3": "#34556a",
    "p4": "#c2aa7c",
    "p5": "#85744f",
}

VARIABLE_OF = {value: name for name, value in LIGHT.items()}
STRATEGY_COLOURS = 8
PHASE_COLOURS = 6
DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("solid", (0, (5, 2)), (0, (1, 2)))

# DejaVu Sans comes with matplotlib: text is measured alike on every machine.
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # A strategy may have a dollar in its name.
    "font.family": ["DejaVu Sans"],
    "font.size": 12,
    "text.color": LIGHT["ink"],
    "axes.edgecolor": LIGHT["rule"],
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "grid.color": LIGHT["rule"],
    "grid.linewidth": 0.8,
    "xtick.color": LIGHT["rule"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
    "ytick.major.size": 0,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "lines.solid_capstyle": "round",
}
