"""A tiny stream and a tiny backbone, so that a whole run takes less than a second; any process can make them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

from cl.data.policy import Policy
from cl.data.samples import ArrayPixels, Samples
from cl.data.stream import Recipe, Segment, Stream, Task
from cl.models.vit import TimmBackbone
from cl.seeds import Seeds

SIDE = 32  # pixels
PEOPLE = 4


@cache
def tiny_backbone(device: str = "cpu", depth: int = 2, seed: int = 0) -> TimmBackbone:
    """A vision transformer of width 32 on 32 x 32 images, with random weights: fast, and no use else.

    `--backbone cl.testing:tiny_backbone` names it in any process.
    """
    with Seeds(f"tiny backbone|{seed}").forked("init"):
        network = VisionTransformer(img_size=SIDE, patch_size=8, embed_dim=32, depth=depth, num_heads=2, num_classes=0)
    return TimmBackbone("tiny", network, SIDE, (0.5,) * 3, (0.5,) * 3, device)


def tiny_stream(tasks: int = 3, classes: int = 2, train: int = 8, test: int = 4, twins: bool = False) -> Stream:
    """`tasks` tasks t0, t1, ... of `classes` classes, each with `train` + `test` noisy images of 32 x 32 pixels.

    Class c1 of t0 is `t0/c1`, its images `t0/c1/0`, `t0/c1/1`, ..., those for training first; they look the same
    whatever the sizes are. Four people hold every fourth image of a class each, two access labels every other: alice
    may read one label, bob both, dave none. twins: the first image of t1 has the pixels of the first one of t0.
    """
    twin_of = {"t1/c0/0": "t0/c0/0"} if twins else {}
    made = tuple(_task(f"t{number}", classes, train, test, twin_of) for number in range(tasks))
    ids = [sample for task in made for shard in (task.train, task.test) for sample in shard.ids]
    arguments = {"tasks": tasks, "classes": classes, "train": train, "test": test, "twins": twins}
    return Stream(
        "tiny",
        made,
        Recipe("cl.testing:tiny_stream", arguments),
        subjects={sample: f"person-{_row(sample) % PEOPLE}" for sample in ids},
        access={sample: ("ward-a",) if _row(sample) % 2 else ("ward-b",) for sample in ids},
        policy=Policy("any", {"alice": ("ward-a",), "bob": ("ward-a", "ward-b"), "dave": ()}),
    )


def _row(sample: str) -> int:
    return int(sample.rpartition("/")[2])


def _task(name: str, classes: int, train: int, test: int, twin_of: Mapping[str, str]) -> Task:
    labels = tuple(f"{name}/c{number}" for number in range(classes))
    return Task(
        name, labels, _shard(labels, range(train), twin_of), _shard(labels, range(train, train + test), twin_of)
    )


def _shard(labels: tuple[str, ...], rows: range, twin_of: Mapping[str, str]) -> Samples:
    label_of = {f"{label}/{row}": label for label in labels for row in rows}
    shown = [twin_of.get(sample, sample) for sample in label_of]
    images = np.stack([tiny_image(sample.rpartition("/")[0], sample) for sample in shown])
    return Samples.of(label_of, ArrayPixels(list(label_of), images))


def tiny_image(label: str, sample: str) -> np.ndarray:
    """(32, 32, 3) bytes: the label's own pattern of 4 x 4 squares, and noise of the sample's own."""
    return (0.7 * _pattern(label) + 0.3 * _noise(sample, SIDE)).astype(np.uint8)


@cache
def _pattern(label: str) -> np.ndarray:
    return _noise(f"pattern|{label}", 4).repeat(SIDE // 4, axis=0).repeat(SIDE // 4, axis=1)


def _noise(name: str, side: int) -> np.ndarray:
    return np.random.default_rng(Seeds(name).integer("pixels")).integers(0, 256, (side, side, 3), dtype=np.uint8)


CONDITIONS = ("noise", "dark", "blur")
SOURCE_IMAGES, STREAMED_IMAGES = 12, 6  # a class


def tiny_drift(rounds: int = 1, batches: int = 2, size: int = 4, conditions: Sequence[str] = CONDITIONS) -> Stream:
    """One task of two classes as source split, and `rounds` times a segment under each condition, of new images."""
    source = tiny_stream(1, train=SOURCE_IMAGES, test=STREAMED_IMAGES)
    segments = [
        tiny_segment(f"r{number:02d}/{name}/5", name, batches, size) for number in range(rounds) for name in conditions
    ]
    arguments = {"rounds": rounds, "batches": batches, "size": size, "conditions": list(conditions)}
    ids = sorted(sample for segment in segments for sample in segment.samples.ids)
    subjects = {sample: f"person-{row % PEOPLE}" for row, sample in enumerate(ids)}
    return Stream(
        "tiny-drift",
        source.tasks,
        Recipe("cl.testing:tiny_drift", arguments),
        {**source.subjects, **subjects},
        {**source.access, **{sample: ("ward-a", "ward-b")[row % 2 :][:1] for row, sample in enumerate(ids)}},
        segments=tuple(segments),
        policy=source.policy,
    )


def tiny_segment(name: str, condition: str, batches: int, size: int) -> Segment:
    """Test images of `tiny_drift` under a condition, each another time, dealt out to batches of both classes."""
    test = _shard(("t0/c0", "t0/c1"), range(SOURCE_IMAGES, SOURCE_IMAGES + STREAMED_IMAGES), {})
    clean = test.images().permute(0, 2, 3, 1).numpy()
    ids = [f"{name}/{row:03d}" for row in range(batches * size)]
    # Two of a class, two of the other, and so on.
    pictures = sorted(range(len(clean)), key=lambda row: row % STREAMED_IMAGES // 2)
    shown = {sample: pictures[row % len(clean)] for row, sample in enumerate(ids)}
    images = np.stack([_corrupted(clean[row], condition, sample) for sample, row in shown.items()])
    labels = {sample: test.labels[row] for sample, row in shown.items()}
    pixels = ArrayPixels(ids, images)
    chunks = {f"{name}/b{number:04d}": ids[number::batches] for number in range(batches)}
    held = {key: Samples.of({sample: labels[sample] for sample in chunk}, pixels) for key, chunk in chunks.items()}
    return Segment(name, condition, held)


def _corrupted(image: np.ndarray, condition: str, sample: str) -> np.ndarray:
    grain = torch.randn(image.shape, generator=Seeds("drift").generator(condition, sample)).numpy()
    if condition == "noise":
        changed = image + 60 * grain
    elif condition == "dark":
        changed = 0.3 * image + 4 * grain
    else:
        changed = np.mean([np.roll(image, step, 0) for step in (-2, 0, 2, 4)], axis=0) + 4 * grain
    return np.asarray(changed).clip(0, 255).astype(np.uint8)
