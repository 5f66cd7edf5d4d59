"""The file formats of MNIST (IDX) and CIFAR (batches), read without trusting them.

A CIFAR batch is a pickle. This is the one place that unpickles: of names it resolves those of plain numpy arrays only,
so that a file can make arrays, strings, numbers, lists and dictionaries, and run nothing.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from cl.errors import BadInput

_reconstruct: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]


def _bytes_of(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes in the format of Python 2."""
    if encoding != "latin1":
        raise BadInput(f"holds bytes as {encoding!r}; get it anew")
    return text.encode("latin1")


def _array_of(content: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: Any) -> np.ndarray:
    """How numpy writes an array in the newest format."""
    return np.frombuffer(content, dtype).reshape(shape, order=order)


# All that Python 2 and 3, numpy 1 and 2 write for arrays.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _array_of,
    ("numpy._core.numeric", "_frombuffer"): _array_of,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _bytes_of,
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise BadInput(f"wants to load {module}.{name}, which is no plain array; it was not run, get the file anew")
        return _ALLOWED[module, name]


def read_idx(content: bytes) -> np.ndarray:
    """An IDX file of unsigned bytes, as an array of its shape. Raises BadInput."""
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise BadInput("is not an IDX file of unsigned bytes; get it anew")
    axes, start = content[3], 4 + 4 * content[3]
    if len(content) < start:
        raise BadInput("is truncated; get it anew")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", axes, 4))
    if len(content) - start != math.prod(shape):
        raise BadInput(f"holds {len(content) - start:,} bytes, its header says {math.prod(shape):,}; get it anew")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_batch(content: bytes) -> dict[str, Any]:
    """A CIFAR batch or its list of names. Raises BadInput where it is damaged or holds anything but plain values."""
    try:
        found = _ArraysOnly(io.BytesIO(content), encoding="latin1").load()
    except BadInput:
        raise
    except Exception as error:  # a damaged pickle fails in many ways
        raise BadInput(f"is damaged ({type(error).__name__}); get it anew") from error
    if not isinstance(found, dict):
        raise BadInput("is not a CIFAR batch; get it anew")
    return found


def images_of(batch: dict[str, Any]) -> np.ndarray:
    """A batch's images, uint8 `(n, 32, 32, 3)`. Raises BadInput."""
    data = batch.get("data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise BadInput("has no images of 3 x 32 x 32 bytes under 'data'; get it anew")
    return data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
