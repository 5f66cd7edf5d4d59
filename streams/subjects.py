"""Synthetic people for public images that name none: a stable hash of the sample id, said so wherever it is shown."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

NOTE = "subjects are synthetic: assigned to the real images by stable hash"
NOTE_RENDERED = "subjects are synthetic: assigned to the rendered images by stable hash"


def synthetic_subjects(ids: Iterable[str], people: int, salt: str) -> dict[str, str]:
    """Sample id -> one of `people` names, each id on its own."""
    return {sample: f"person-{_bucket(f'{salt}|{sample}', people):03d}" for sample in ids}


def _bucket(text: str, buckets: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % buckets
