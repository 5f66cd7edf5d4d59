"""How names are written: of samples, classes, people and access labels, in streams and in what is asked of them.

One spelling for one thing, or a person is forgotten by half: letters composed (NFC), no blanks around them.
"""

from __future__ import annotations

import unicodedata


def composed(name: str) -> str:
    """A sample's id as every system writes it. Blanks stay: a path may end in one."""
    return unicodedata.normalize("NFC", name)


def normalised(name: str) -> str:
    """A class, person or label as it is known everywhere."""
    return composed(name).strip()


def sounded(name: str) -> str:
    """What is left of a name without case, accents, blanks and signs: names that agree in it may mean the same."""
    plain = unicodedata.normalize("NFKD", name).casefold()
    return "".join(letter for letter in plain if letter.isalnum())
