"""Every strategy at its quick preset on the built-in streams, to the digit: what a change of the code must not change.

    python -m tests.figures_table --home DIR [--streams glyphs,...] [--strategies ease,...] > table.tsv

One line a run: stream, strategy, average accuracy, average incremental accuracy, forgetting, parameters, online error,
manifest; or why the strategy refuses the stream. Two tables of one machine are compared with `diff`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cl
from cl import registry
from cl.errors import PalimpsestError

STREAMS = ("split-digits", "clinic-digits", "glyphs", "split-mnist-5k", "drifting-digits")


def line(stream: str, strategy: str, home: Path) -> str:
    """One run of the table, tab-separated."""
    presets = ["quick"] if "quick" in registry.strategies.get(strategy).presets else []
    try:
        figures = cl.run(stream, strategy, presets=presets, home=home, device="cpu").figures
    except PalimpsestError as error:
        return "\t".join([stream, strategy, f"refused: {error}"])
    told = [figures[name] for name in ("average_accuracy", "average_incremental_accuracy", "forgetting")]
    told += [sum(figures["parameters_added"]), figures.get("online", {}).get("mean_error")]
    return "\t".join([stream, strategy, *map(repr, told), figures["manifest"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--streams", default=",".join(STREAMS))
    parser.add_argument(
        "--strategies", default=",".join(name for name in registry.strategies.names() if ":" not in name)
    )
    given = parser.parse_args()
    for stream in given.streams.split(","):
        for strategy in given.strategies.split(","):
            print(line(stream, strategy, given.home), flush=True)


if __name__ == "__main__":
    main()
