"""How long a prediction takes beside loading the libraries and one forward pass.

    python -m tests.benchmarks.predict [REPETITIONS]

Pairs of processes: one loads torch and timm and runs the shipped backbone once, on the padded batch in which every
frozen pass runs; the other is `palimpsest predict` on a run of SimpleCIL, and on one of EASE with an adapter for each
of five tasks, whose images a prediction never looks at. The ratio is of the medians. Asserts nothing.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cl.models.backbone import BATCH
from cl.models.loading import WEIGHTS, load_backbone
from cl.running.run import run

REPETITIONS = 7
LIBRARIES = f"""
import json, torch, timm
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer
torch.set_num_threads(1)
card = json.load(open(CARD))["arguments"]
network = VisionTransformer(**card).eval()
network.load_state_dict(load_file(CARD.replace(".json", ".safetensors")))
with torch.no_grad():
    network.forward_features(torch.zeros({BATCH}, 3, card["img_size"], card["img_size"]))
"""
PREDICT = "import cl.cli; cl.cli.main()"


def seconds(program: str, words: Sequence[str] = ()) -> float:
    """Wall time of a process of its own."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def measure(home: Path, strategy: str, picture: Path, repetitions: int) -> None:
    """One line: seconds of both, and their ratio."""
    made = run("split-digits", strategy, presets=["quick"], home=home, device="cpu").id
    libraries = f"CARD = {str(WEIGHTS / 'glyph-vit.json')!r}\n{LIBRARIES}"
    words = ["predict", made, str(picture), "--home", str(home)]
    pairs = [(seconds(libraries), seconds(PREDICT, words)) for _ in range(repetitions + 1)][1:]  # the first warms up
    base, whole = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{strategy:10} {whole:6.2f} s, libraries and one pass {base:6.2f} s, ratio {whole / base:.2f}")


def main() -> None:
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else REPETITIONS
    with tempfile.TemporaryDirectory() as folder:
        picture, size = Path(folder) / "picture.png", load_backbone().image_size
        Image.fromarray(np.zeros((size, size), np.uint8)).save(picture)
        for strategy in ("simplecil", "ease"):
            measure(Path(folder) / "home", strategy, picture, repetitions)


if __name__ == "__main__":
    main()
