"""Which software signed: what a certificate names of it. Loads none of it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cl
from cl.digests import digest_bytes, digest_json

ROOMS = ("cl", "strategies", "streams", "reports")
COMPILED = (".pyc", ".pyo")  # made from sources, anew on each machine


@dataclass(frozen=True)
class Software:
    """release: of palimpsest. sources: a digest over all files of its packages, see `sources_digest`. torch, timm: the
    installed releases."""

    release: str
    sources: str
    torch: str
    timm: str


def software() -> Software:
    """What is installed here."""
    return Software(_release("palimpsest-cl"), sources_digest(), _release("torch"), _release("timm"))


def sources_digest() -> str:
    """SHA-256 of the canonical JSON {path: SHA-256 of the file} over what a wheel puts into our packages: the same from
    a wheel and from a checkout of that release."""
    root = Path(cl.__file__).resolve().parent.parent
    files = [path for room in ROOMS for path in (root / room).rglob("*") if path.is_file()]
    kept = [path for path in files if path.suffix not in COMPILED and not path.name.startswith(".")]
    return digest_json({path.relative_to(root).as_posix(): digest_bytes(path.read_bytes()) for path in kept})


def _release(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
