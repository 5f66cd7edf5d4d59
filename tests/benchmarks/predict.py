"""How long a prediction takes beside loading the libraries and one forward pass.

    python -m tests.benchmarks.predict [ROUNDS]

Each round runs three processes in turn: one loads torch and timm and runs the shipped backbone once, on the padded
batch in which every frozen pass runs; the others are `palimpsest predict` on a run of SimpleCIL, which takes one such
pass, and of EASE after five tasks, which takes five. A ratio is the median over rounds of a command's time to that of
the same round; seconds are the least of all rounds. Asserts nothing.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cl.models.backbone import BATCH
from cl.models.loading import WEIGHTS
from cl.running.run import run
from tests.benchmarks.first_moments import START, seconds

ROUNDS = 7
BASE = "torch, timm and a pass"
PASS = f"""
import json, sys, torch, timm
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
torch.set_num_threads(1)
shape = json.load(open(sys.argv[1]))["arguments"]
network = VisionTransformer(**shape).eval()
network.load_state_dict(load_file(sys.argv[1].replace(".json", ".safetensors")))
with torch.no_grad():
    network.forward_features(torch.zeros({BATCH}, 3, shape["img_size"], shape["img_size"]))
"""


def commands(home: Path, picture: Path) -> Mapping[str, Sequence[str]]:
    """Name -> words after `python`. The runs lie in `home` afterwards."""
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(picture)
    runs = {
        strategy: run("split-digits", strategy, backbone="glyph-vit", presets=["quick"], home=home, device="cpu").id
        for strategy in ("simplecil", "ease")
    }
    predict = {
        f"predict, {strategy}": ["-c", START, "predict", made, str(picture), "--home", str(home)]
        for strategy, made in runs.items()
    }
    return {BASE: ["-c", PASS, str(WEIGHTS / "glyph-vit.json")], **predict}


def main() -> None:
    """Print a line for each command."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory() as folder:
        known = commands(Path(folder) / "home", Path(folder) / "picture.png")
        for words in known.values():  # whatever is compiled or read from disk for the first time
            seconds(words)
        rounds = [{name: seconds(words) for name, words in known.items()} for _ in range(count)]
    print(f"{'':<24}{'wall':>8}{'ratio':>7}{'processor':>11}{'ratio':>7}")
    for name in known:
        least = [min(one[name][clock] for one in rounds) for clock in (0, 1)]
        ratio = [statistics.median(one[name][clock] / one[BASE][clock] for one in rounds) for clock in (0, 1)]
        print(f"{name:<24}{least[0]:>7.2f}s{ratio[0]:>7.2f}{least[1]:>10.2f}s{ratio[1]:>7.2f}")


if __name__ == "__main__":
    main()
