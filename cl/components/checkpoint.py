"""Where a long build may pause: outside the store, under the build's key, gone once the component is stored."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from cl.code import unkeyed
from cl.digests import digest_tensors
from cl.home.store import Tensors
from cl.home.writing import write_atomic

CHECKPOINT_SECONDS = 60.0


@unkeyed("a build that was resumed gives the bytes of one that was not")
class Checkpoint:
    """Pause and resume of one long build, under its key. Kept outside the store, gone at commit."""

    def __init__(self, path: Path | None, write: Callable[[Path, bytes], None] = write_atomic) -> None:
        self._path, self._write = path, write
        self._last = time.monotonic()

    def load(self) -> Tensors | None:
        """What the last interrupted attempt saved, or None. A damaged file counts as none."""
        if self._path is None:
            return None
        try:
            content = load_safetensors(self._path.read_bytes())
            digest = bytes(content.pop("digest").tolist()).decode()
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
            return None
        return content if digest == digest_tensors(content) else None

    def save(self, tensors: Tensors) -> None:
        """Write `tensors` if the last write is a minute ago or more."""
        if self._path is None or time.monotonic() - self._last < CHECKPOINT_SECONDS:
            return
        whole = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        mark = torch.tensor(list(digest_tensors(whole).encode()), dtype=torch.uint8)
        self._write(self._path, save_safetensors({**whole, "digest": mark}))
        self._last = time.monotonic()

    def clear(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
