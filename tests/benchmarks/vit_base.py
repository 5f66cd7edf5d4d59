"""EASE with ViT-B/16 at 224 (random weights) over a folder of image files, end to end: images a second in training and
in evaluation, their share of `torch.mm`'s speed in the same process and thread, and peak memory.

The folder is drawn anew each time: 2 tasks of 2 classes, 25 + 25 images a class in the formats that people have.
Seconds are the processor's: with one thread those of an idle machine, and a busy one disturbs them less.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
from adapter_training import mm_flops_per_second, training_flops
from PIL import Image

import cl
from cl.models.loading import load_backbone
from cl.models.vit import TimmBackbone
from cl.numerics import configure

NETWORK = "random:vit_base_patch16_224"
CLASSES = ("amber", "basalt", "cobalt", "dune")
EACH = 25  # images a class and split: two classes fill the one padded batch of frozen passes
EPOCHS = 1
KINDS = (("RGB", "jpg"), ("RGB", "png"), ("P", "gif"), ("L", "png"), ("CMYK", "jpg"), ("RGB", "webp"))


def draw(place: Path) -> Path:
    """The stream's TOML file, and the images that it describes."""
    draws = np.random.default_rng(0)
    for name in CLASSES:
        tint = draws.integers(0, 256, (1, 1, 3))
        for split in ("train", "test"):
            folder = place / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(EACH):
                pixels = (tint + draws.integers(0, 256, (240, 320, 3))) // 2
                mode, suffix = KINDS[number % len(KINDS)]
                Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(folder / f"{number:02d}.{suffix}")
    stream = place / "stream.toml"
    stream.write_text('kind = "class-incremental"\ndata = "images"\nimage_size = 224\ntasks = [2, 2]\n')
    return stream


def forward_flops(backbone: TimmBackbone) -> float:
    """Multiply-adds x 2 of one image through all blocks, from the model's shape."""
    blocks, d = backbone.require_sites("adapters")
    return blocks * (24 * backbone.tokens * d * d + 4 * backbone.tokens**2 * d)


@mock.patch("time.perf_counter", time.process_time)
def main() -> None:
    """Print one line a phase, and the peak."""
    configure("cpu", threads=1)
    backbone = load_backbone(NETWORK)
    speeds = [mm_flops_per_second(backbone)]
    with tempfile.TemporaryDirectory() as folder:
        stream = draw(Path(folder))
        settings = {"epochs": EPOCHS}
        figures = cl.run(stream.as_posix(), "ease", backbone=NETWORK, settings=settings, home=f"{folder}/home").figures
    speeds.append(mm_flops_per_second(backbone))
    peak = statistics.mean(speeds)
    print(f"torch.mm: {speeds[0] / 1e9:.1f} GFLOP/s before the run, {speeds[1] / 1e9:.1f} after it")
    for phase, flops in (("train", training_flops(backbone)), ("evaluate", forward_flops(backbone))):
        images, seconds = figures["forward_passes"][phase], figures["seconds"][phase]
        share = 100 * images / seconds * flops / peak
        print(
            f"{phase}: {images} images in {seconds:.1f} s, {images / seconds:.2f} images/s, {share:.0f} % of torch.mm"
        )
    print(f"peak memory {figures['peak_memory_bytes'] / 1e6:.0f} MB; final accuracy {figures['average_accuracy']:.3f}")


if __name__ == "__main__":
    main()
