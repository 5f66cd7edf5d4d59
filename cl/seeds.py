"""Randomness from stable names. No draw depends on a position, on the time or on a global generator.

A build receives a `Seeds` whose root is (run seed, component name). Each purpose, class, epoch or sample has a
generator of its own, so that one sample less shifts nothing else.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def class_order(count: int, seed: int) -> list[int]:
    """The order of `count` classes that published protocols name by a seed: numpy's legacy permutation of it."""
    return [int(place) for place in np.random.RandomState(seed).permutation(count)]


class Seeds:
    """Generators derived from `root` and the names given at each call."""

    def __init__(self, root: str) -> None:
        self.root = root

    def integer(self, purpose: str, *names: object) -> int:
        """A 63-bit integer, a pure function of (root, purpose, names)."""
        return int.from_bytes(self._hash(purpose, *names)[:8], "big") >> 1

    def generator(self, purpose: str, *names: object) -> torch.Generator:
        """A fresh CPU generator for this purpose and these names."""
        return torch.Generator().manual_seed(self.integer(purpose, *names))

    def order(self, ids: Sequence[str], purpose: str, *names: object) -> list[int]:
        """Row numbers of `ids` in the order of hash(purpose, names, id): a missing id moves no other relative order."""
        hashes = [self._hash(purpose, *names, sample) for sample in ids]
        return sorted(range(len(ids)), key=hashes.__getitem__)

    def uniform(self, ids: Sequence[str], shape: Sequence[int], purpose: str, *names: object) -> Tensor:
        """Uniform draws in [0, 1), float32 `(len(ids), *shape)`; each row depends on its own id alone."""
        rows = [torch.rand(*shape, generator=self.generator(purpose, *names, sample)) for sample in ids]
        return torch.stack(rows)

    @contextmanager
    def forked(self, purpose: str, *names: object) -> Iterator[None]:
        """Seed the global generators for third-party code that draws from them, and put them back afterwards."""
        seed = self.integer(purpose, *names)
        before = random.getstate(), np.random.get_state()
        with torch.random.fork_rng():
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            try:
                yield
            finally:
                random.setstate(before[0])
                np.random.set_state(before[1])

    def _hash(self, *names: object) -> bytes:
        # Length-prefixed, so that ("a", "bc") and ("ab", "c") differ.
        text = "".join(f"{len(part)}:{part}" for part in map(str, (self.root, *names)))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def global_state() -> str:
    """Digest of the global generators of Python, numpy and torch: nothing of ours may move them."""
    numpy_state: Any = np.random.get_state(legacy=False)
    key = numpy_state["state"].pop("key")  # numpy prints a long array shortened
    text = f"{random.getstate()} {numpy_state}".encode() + key.tobytes()
    return hashlib.sha256(text + torch.get_rng_state().numpy().tobytes()).hexdigest()
