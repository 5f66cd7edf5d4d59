"""The numerics class: what decides the bits of a computation beside its inputs, and the machine's fingerprint."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch

from cl.errors import BadInput

MAX_THREADS = 1024  # more than any machine has cores; the operating system refuses absurd numbers by ending the process


@dataclass(frozen=True)
class Numerics:
    """Device kind, threads and the releases of the libraries that compute. Part of every component's key."""

    device: str
    threads: int
    dtype: str = "float32"
    torch: str = torch.__version__

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def device_kind(device: str) -> str:
    """cpu or cuda, of auto | cpu | cuda. Raises BadInput for a device that is not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise BadInput(f"unknown device '{device}'; use auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("device cuda asked for, but this machine has none that torch can use; use --device cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def configure(device: str = "auto", threads: int = 1) -> Numerics:
    """Set torch to deterministic, fixed-thread arithmetic and return its class.

    device: auto | cpu | cuda. Raises BadInput for a device that is not there or a number of threads out of range.
    """
    device = device_kind(device)
    if not 1 <= threads <= MAX_THREADS:
        raise BadInput(f"threads must be from 1 to {MAX_THREADS}, not {threads}")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    return Numerics(device, threads)


@cache
def fingerprint() -> dict[str, str]:
    """CPU, BLAS and driver of this machine: recorded beside components, not part of their keys."""
    return {
        "cpu": _cpu_name(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "python": platform.python_version(),
        "blas": "mkl" if torch.backends.mkl.is_available() else "other",
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
