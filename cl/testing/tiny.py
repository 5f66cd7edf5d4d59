"""A tiny stream and a tiny backbone, so that a whole run takes less than a second; any process can make them again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

from cl.data.policy import Policy
from cl.data.samples import ArrayPixels, Samples
from cl.data.stream import Recipe, Segment, Stream, Task
from cl.models.vit import TimmBackbone
from cl.seeds import Seeds


def tiny_backbone(seed: int = 0) -> TimmBackbone:
    """A vision transformer of two blocks, width 32, on 32 x 32 images, with random weights: fast, and no use else."""
    with Seeds(f"tiny backbone|{seed}").forked("init"):
        network = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=0)
    return TimmBackbone("tiny", network, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def tiny_stream(tasks: int = 3, train: int = 8, test: int = 4) -> Stream:
    """`tasks` tasks of two classes, `train` + `test` noisy 32 x 32 images a class, four people, two access labels.

    alice holds one of the labels, bob both, dave none.
    """
    made = [_tiny_task(number, train, test) for number in range(tasks)]
    ids = sorted(sample for task in made for shard in (task.train, task.test) for sample in shard.ids)
    return Stream(
        "tiny",
        tuple(made),
        Recipe("cl.testing:tiny_stream", {"tasks": tasks, "train": train, "test": test}),
        subjects={sample: f"person-{row % 4}" for row, sample in enumerate(ids)},
        access={sample: ("ward-a",) if row % 2 else ("ward-b",) for row, sample in enumerate(ids)},
        policy=Policy("any", {"alice": ("ward-a",), "bob": ("ward-a", "ward-b"), "dave": ()}),
    )


def _tiny_task(number: int, train: int, test: int) -> Task:
    classes = (f"class-{2 * number}", f"class-{2 * number + 1}")
    shards = {}
    for split, count in (("train", train), ("test", test)):
        labels = {f"{split}/{name}/{row:02d}": name for name in classes for row in range(count)}
        images = np.stack([_tiny_image(sample, name) for sample, name in labels.items()])
        shards[split] = Samples.of(labels, ArrayPixels(list(labels), images))
    return Task(f"task-{number}", classes, shards["train"], shards["test"])


def _tiny_image(sample: str, name: str) -> np.ndarray:
    """The class's own pattern of 4 x 4 squares, and noise of the sample's own."""
    pattern = _noise(name, 4).repeat(8, axis=0).repeat(8, axis=1)
    return (0.7 * pattern + 0.3 * _noise(sample, 32)).astype(np.uint8)


def _noise(name: str, side: int) -> np.ndarray:
    generator = Seeds(name).generator("pixels")
    return torch.randint(0, 256, (side, side, 3), generator=generator).numpy()


CONDITIONS = ("noise", "dark", "blur")


def tiny_drift(rounds: int = 1, batches: int = 2, size: int = 4, conditions: Sequence[str] = CONDITIONS) -> Stream:
    """One task of two classes as source split, and `rounds` times a segment under each condition, of new images."""
    source = tiny_stream(1, 12, 6)
    segments = [
        tiny_segment(f"r{number:02d}/{name}/5", name, batches, size) for number in range(rounds) for name in conditions
    ]
    arguments = {"rounds": rounds, "batches": batches, "size": size, "conditions": list(conditions)}
    ids = sorted(sample for segment in segments for sample in segment.samples.ids)
    subjects = {sample: f"person-{row % 4}" for row, sample in enumerate(ids)}
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
    """Test images of the tiny stream under a condition, each another time, dealt out to batches of both classes."""
    test = _tiny_task(0, 1, 6).test
    clean = test.images().permute(0, 2, 3, 1).numpy()
    ids = [f"{name}/{row:03d}" for row in range(batches * size)]
    pictures = sorted(range(len(clean)), key=lambda row: row % 6 // 2)  # two of a class, two of the other
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
