"""Anchors: heads of the ledger that are kept elsewhere, out of reach of who can write the home.

A file gets one line a head and is only ever added to. In a git repository such a file is committed with every head, and
every line that was ever committed counts, also one that a later commit took away.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from cl.digests import canonical
from cl.documents import plain, typed
from cl.errors import LedgerError
from cl.home.chain import Chain, Head

ANCHOR = "PALIMPSEST_ANCHOR"  # a file or a git repository that gets every head
NAME = "palimpsest-heads.jsonl"  # of the file in a repository


class Anchor:
    """A file of heads, or one in a git repository where `path` is its folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path / NAME if path.is_dir() else path

    def heads(self) -> list[Head]:
        """Every head that was anchored, in no order. Raises LedgerError where they cannot be read."""
        lines = self._committed() if self.path.is_dir() else self._lines()
        return [head for line in lines if (head := _head(line)) is not None]

    def add(self, head: Head) -> None:
        """Anchor a head. Raises LedgerError where that cannot be done."""
        try:
            with self._file.open("ab") as file:
                torn = file.tell() > 0 and self._file.read_bytes()[-1:] != b"\n"  # by a crash within a line
                file.write(b"\n" * torn + canonical(plain(head)) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unusable(error.strerror or "it cannot be written") from error
        if self.path.is_dir():
            self._git("add", "--", NAME)
            self._git(*AUTHOR, "commit", "--quiet", "--message", f"Ledger head {head.counter}", "--", NAME)

    def _lines(self) -> list[bytes]:
        try:
            return self._file.read_bytes().splitlines() if self._file.exists() else []
        except OSError as error:
            raise self._unusable(error.strerror or "it cannot be read") from error

    def _committed(self) -> list[bytes]:
        """Every line that a commit has added."""
        if not self._git("rev-list", "--all", "--max-count=1").strip():
            return []
        how = ("--all", "--format=", "--patch", "--unified=0", "--no-color", "--no-ext-diff", "--no-renames", "-m")
        return [line[1:] for line in self._git("log", *how, "--", NAME).splitlines() if line.startswith(b"+{")]

    def _git(self, *arguments: str) -> bytes:
        try:
            done = subprocess.run(["git", "-C", str(self.path), *arguments], capture_output=True, check=False)
        except OSError as error:
            raise self._unusable("the command git is not there") from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise self._unusable(said[0] if said else "git failed")
        return done.stdout

    def _unusable(self, why: str) -> LedgerError:
        return LedgerError(f"the anchor {self.path} cannot be used: {why}; mend it, or set {ANCHOR} to another place")


AUTHOR = ("-c", "user.name=palimpsest", "-c", "user.email=palimpsest@localhost")


def configured() -> Anchor | None:
    """Where the environment says that every head goes; None for nowhere."""
    path = os.environ.get(ANCHOR)
    return Anchor(Path(path)) if path else None


def check_anchored(heads: Iterable[Head], chain: Chain, name: str) -> int:
    """How many records the newest anchored head covers. Raises LedgerError for one that is not of this chain."""
    newest = 0
    for head in heads:
        if not chain.signs(head):
            raise LedgerError(
                f"{name} was cut or written anew: head {head.counter}, which was anchored outside, is not in it; "
                "put back the newest audit/, or name the anchor of this home"
            )
        newest = max(newest, head.counter)
    return newest


def _head(line: bytes) -> Head | None:
    """None for half a line, which a crash has left."""
    with suppress(ValueError, TypeError, RecursionError):
        return typed(Head, json.loads(line))
    return None
