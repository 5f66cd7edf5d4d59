"""What EASE costs as the stream grows: images through the backbone by phase, and peak memory, at 10 and 40 tasks.

Each length runs in a process and a home of its own, for one epoch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

SCRIPT = """
import json, sys
import cl
from streams.glyphs import glyphs

figures = cl.run(glyphs(tasks=int(sys.argv[1])), "ease", settings={"epochs": 1}, home=sys.argv[2]).figures
print(json.dumps([figures["forward_passes"], figures["peak_memory_bytes"], figures["seconds"]]))
"""


def main() -> None:
    """Print one line a length."""
    for tasks in (10, 40):
        with tempfile.TemporaryDirectory() as home:
            command = [sys.executable, "-c", SCRIPT, str(tasks), home]
            passes, peak, seconds = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        per_square = passes["evaluate"] / tasks**2
        print(f"{tasks} tasks: passes {passes}, evaluate / tasks^2 = {per_square:.0f}, peak {peak / 1e6:.0f} MB")
        print(f"  seconds { {phase: round(value, 1) for phase, value in seconds.items()} }")


if __name__ == "__main__":
    main()
