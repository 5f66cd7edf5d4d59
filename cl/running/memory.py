"""Peak memory of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


class Peak:
    """Peak resident memory from this object's making on, where the system can reset its mark; else since the start."""

    def __init__(self) -> None:
        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM on Linux
        except OSError:
            return

    def bytes(self) -> int:
        """Bytes at the peak."""
        try:
            status = Path("/proc/self/status").read_text(encoding="ascii")
            return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
