"""EASE: the method (`method`), its presets, and what is not in its paper (`variants`)."""

from strategies.ease.variants import Ease as Ease
