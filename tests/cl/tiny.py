"""A stream and a backbone so small that a whole run takes a fraction of a second; both can be made in any process."""

from __future__ import annotations

import numpy as np
from timm.models.vision_transformer import VisionTransformer

from cl.data.samples import ArrayPixels, Samples
from cl.data.stream import Recipe, Stream, Task
from cl.models.vit import TimmBackbone
from cl.seeds import Seeds

STREAM, BACKBONE = "tests.cl.tiny:stream", "tests.cl.tiny:backbone"
FAST = {"epochs": 1, "bottleneck": 2, "batch_size": 8}


def stream(tasks: int = 3, per_class: int = 6, twin: bool = False) -> Stream:
    """`tasks` tasks of two classes; 32 x 32 grey images of noise around a class's own pattern; four people."""
    draws = np.random.default_rng(7)
    ids = [f"t{t}/c{c}/{n}" for t in range(tasks) for c in range(2) for n in range(per_class + 2)]
    images = draws.integers(0, 255, (len(ids), 32, 32), dtype=np.uint8)
    for row, sample in enumerate(ids):
        images[row, :, int(sample[1]) * 8 + int(sample[4]) * 4 :] //= 4
    if twin:
        images[ids.index("t1/c0/0")] = images[ids.index("t0/c0/0")]
    pixels = ArrayPixels(ids, images)
    made = tuple(_task(t, [i for i in ids if i.startswith(f"t{t}/")], per_class, pixels) for t in range(tasks))
    subjects = {sample: f"person-{int(sample.split('/')[2]) % 4}" for sample in ids}
    recipe = Recipe(STREAM, {"tasks": tasks, "per_class": per_class, "twin": twin})
    return Stream("tiny", made, recipe, subjects, notes=("subjects are synthetic",))


def _task(t: int, ids: list[str], per_class: int, pixels: ArrayPixels) -> Task:
    label = {sample: sample.rpartition("/")[0] for sample in ids}
    train = {sample: label[sample] for sample in ids if int(sample.split("/")[2]) < per_class}
    test = {sample: label[sample] for sample in ids if sample not in train}
    return Task(f"t{t}", (f"t{t}/c0", f"t{t}/c1"), Samples.of(train, pixels), Samples.of(test, pixels))


def backbone(device: str = "cpu") -> TimmBackbone:
    """Two blocks of width 32 with random weights."""
    with Seeds("tiny").forked("init"):
        network = VisionTransformer(
            img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0, global_pool="token"
        )
    return TimmBackbone(BACKBONE, network, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), device)
