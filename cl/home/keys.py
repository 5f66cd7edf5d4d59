"""Secret keys of a home, and the names that they make of identifiers so that no record repeats one."""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cl.digests import canonical
from cl.errors import BadInput, DeletionError, LedgerError
from cl.home.deletions import remembered
from cl.home.writing import TEMPORARY, sync_folder, write_atomic

SIGNING_KEY = "PALIMPSEST_SIGNING_KEY"  # where the signing key lies, if not in the home
SYSTEM_KEY = "PALIMPSEST_SYSTEM_KEY"  # where the system key lies, if not in the home
RESTORE = "put it back from a backup, or tell again what was deleted: palimpsest forget reapply REQUEST --ids-file IDS"


def keyed(key: bytes, value: object) -> str:
    """HMAC-SHA256 of the canonical JSON of `value`, 64 hexadecimal digits: nothing to anyone without the key."""
    return hmac.digest(key, canonical(value), "sha256").hex()


def secret(path: Path) -> bytes:
    """The 32 bytes in `path`, drawn at first use and readable by the owner alone."""
    if not path.exists():
        _draw(path)
    found = path.read_bytes()
    if len(found) != 32:
        raise LedgerError(f"{path} is not a key of 32 bytes; put back the one that was there")
    return found


def _draw(path: Path) -> None:
    """Of two processes that both need a first key, the second takes the one that is there."""
    made = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    write_atomic(made, secrets.token_bytes(32), mode=0o600)
    with suppress(FileExistsError):
        os.link(made, path)
    made.unlink()
    sync_folder(path.parent)


def system_key(home: Path) -> bytes:
    """The home's own key: for the suppression list, which outlives every request. Raises DeletionError where it is
    missing though something was deleted: a new one would know none of the samples again."""
    path = system_key_path(home)
    if not path.exists() and not remembered(home).blank:
        raise DeletionError(f"the system key {path} is missing, so deleted samples cannot be kept out; {RESTORE}")
    return secret(path)


def renew_system_key(home: Path) -> None:
    """Draw the home's own key anew if it is lost; what was told under the old one has to be told again."""
    secret(system_key_path(home))


def system_key_path(home: Path) -> Path:
    """Where the home's own key lies: where the environment says, else in the home."""
    configured = os.environ.get(SYSTEM_KEY)
    return Path(configured) if configured else home / "audit" / "system.key"


def fingerprint_of(key: bytes) -> str:
    """What a key is called where it must not be told."""
    return keyed(key, "fingerprint")


def public_key(home: Path) -> bytes:
    """The 32 bytes that verify the first record, kept beside the ledger and in the marker; drawn with the signing key
    where the ledger begins."""
    path, known = home / "audit" / "signing.pub", remembered(home).ledger
    if not path.exists() and known is None:
        return renew_public_key(home)
    try:
        return bytes.fromhex(path.read_text(encoding="ascii") if path.exists() or known is None else known.key)
    except ValueError as error:
        raise LedgerError(f"{path} is damaged; put back the public key that was there") from error


def renew_public_key(home: Path) -> bytes:
    """Let the signing key that there is now, drawn if there is none, be the one of a ledger that begins."""
    public = _public(secret(_signing_key(home)))
    write_atomic(home / "audit" / "signing.pub", public.hex().encode())
    return public


def next_public_key(home: Path) -> bytes:
    """The public part of a new signing key, drawn beside the one in use. It is taken into use when the ledger says so,
    by `signing_key`."""
    return _public(secret(_next(_signing_key(home))))


def signing_key(home: Path, public: bytes) -> Ed25519PrivateKey:
    """The key whose public part this is. Raises BadInput where that is not there."""
    path = _signing_key(home)
    if not _is_of(path, public) and _is_of(_next(path), public):  # the ledger has recorded that this one follows
        os.replace(_next(path), path)
        sync_folder(path.parent)
    if not _is_of(path, public):
        raise BadInput(f"the signing key {path} is not the one of this ledger; put it back or set {SIGNING_KEY} to it")
    return Ed25519PrivateKey.from_private_bytes(secret(path))


def _signing_key(home: Path) -> Path:
    """Where the key lies that signs ledger and certificates."""
    configured = os.environ.get(SIGNING_KEY)
    return Path(configured) if configured else home / "audit" / "signing.key"


def _next(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def _is_of(path: Path, public: bytes) -> bool:
    return path.exists() and _public(secret(path)) == public


def _public(private: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


@lru_cache(maxsize=1 << 16)  # every command of a process asks for the same records again
def signed(public: bytes, signature: str, data: bytes) -> bool:
    """Whether `signature` is of `data` under the public key."""
    from cryptography.exceptions import InvalidSignature

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(signature), data)
    except (InvalidSignature, ValueError):
        return False
    return True
