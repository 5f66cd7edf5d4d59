"""The first moments: what a command takes before it says something, beside `python -c pass` and `import torch`.

Each round runs all of them in turn, so that a busy machine slows them alike; a ratio is the median over rounds of a
command's time to that of the same round. Seconds are of the wall, least of all rounds, and of the processor.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cl
from cl.testing import tiny_backbone, tiny_stream

ROUNDS = 7
EMPTY, TORCH = "python -c pass", "python -c 'import torch'"
START = "import sys; sys.argv[0] = 'palimpsest'; from cl.cli import main; main()"


def seconds(words: Sequence[str]) -> tuple[float, float]:
    """Of the wall and of the processor that one process takes."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return time.perf_counter() - began, used.ru_utime + used.ru_stime


def commands(home: Path) -> Mapping[str, Sequence[str]]:
    """Name -> words after `python`. One run lies in `home` afterwards."""
    done = cl.run(tiny_stream(), "simplecil", backbone=tiny_backbone(), home=home, device="cpu")
    ours = {
        "--help": [],
        "list": [],
        "results": ["--home", str(home)],
        "show": [done.id, "--home", str(home)],
        "describe": ["ease"],
    }
    return {
        EMPTY: ["-c", "pass"],
        TORCH: ["-c", "import torch"],
        **{f"palimpsest {name}": ["-c", START, name, *rest] for name, rest in ours.items()},
    }


def main() -> None:
    """Print a line for each command."""
    with tempfile.TemporaryDirectory() as folder:
        known = commands(Path(folder))
        for words in known.values():  # whatever is compiled or read from disk for the first time
            seconds(words)
        rounds = [{name: seconds(words) for name, words in known.items()} for _ in range(ROUNDS)]
    print(f"{'':<26}{'wall':>8}{'processor':>11}{'of pass':>9}{'of torch':>10}")
    for name in known:
        wall, processor = (min(one[name][clock] for one in rounds) for clock in (0, 1))
        ratios = [statistics.median(one[name][0] / one[base][0] for one in rounds) for base in (EMPTY, TORCH)]
        print(f"{name:<26}{wall:>7.2f}s{processor:>10.2f}s{ratios[0]:>9.1f}{ratios[1]:>10.2f}")


if __name__ == "__main__":
    main()
