"""The vault: what a request is about, encrypted under the request's own key until the request is certified.

Destroying the key makes the content, and every keyed hash made with it, mean nothing to anyone.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cl.errors import DeletionError
from cl.home.keys import secret
from cl.home.writing import write_atomic

NONCE = 12  # bytes


class Vault:
    """`audit/vault/` of a home."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "audit" / "vault"

    def holds(self, request: str) -> bool:
        """Whether the request's content can still be read."""
        return self._key(request).exists() and self._sealed(request).exists()

    def key(self, request: str) -> bytes:
        """The request's key; drawn at first use."""
        return secret(self._key(request))

    def put(self, request: str, content: bytes) -> None:
        """Seal `content` in place of what was there."""
        nonce = secrets.token_bytes(NONCE)
        sealed = AESGCM(self.key(request)).encrypt(nonce, content, request.encode())
        write_atomic(self._sealed(request), nonce + sealed, mode=0o600)

    def get(self, request: str) -> bytes:
        """What was sealed. Raises DeletionError once it was destroyed, or if it was edited."""
        if not self.holds(request):
            raise DeletionError(f"what request {request} deleted is known no more: give it with --ids-file")
        sealed = self._sealed(request).read_bytes()
        try:
            return AESGCM(self.key(request)).decrypt(sealed[:NONCE], sealed[NONCE:], request.encode())
        except InvalidTag as error:
            raise DeletionError(f"the sealed content of request {request} was edited; restore it") from error

    def destroy(self, request: str) -> None:
        """Overwrite and remove the key, then what it sealed."""
        for path in (self._key(request), self._sealed(request)):
            if path.exists():
                with path.open("r+b") as file:
                    file.write(bytes(path.stat().st_size))
                    file.flush()
                    os.fsync(file.fileno())
                path.unlink()

    def requests(self) -> list[str]:
        """Requests whose content can still be read."""
        return sorted(path.stem for path in self.folder.glob("*.sealed") if self.holds(path.stem))

    def _key(self, request: str) -> Path:
        return self.folder / f"{request}.key"

    def _sealed(self, request: str) -> Path:
        return self.folder / f"{request}.sealed"
