"""SSIAT: the method (`method`, `shift`), its presets, and what is not in its paper (`variants`)."""

from strategies.ssiat.variants import Ssiat as Ssiat
