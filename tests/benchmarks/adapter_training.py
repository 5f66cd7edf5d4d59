"""Share of the machine's matrix-multiply speed that adapter training reaches, in one process and one thread.

FLOPs are counted from the model's shape; the peak is a plain `torch.mm` of the shapes that the frozen layers run. Both
are measured in turn, several times over, and the medians compared, because machines are noisy.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch

from cl.adapters import bottleneck
from cl.components.checkpoint import Checkpoint
from cl.data.samples import ArrayPixels, Samples
from cl.learning.train import Batch, Optimisation, Tuner, Tuning
from cl.models.heads import cosine, uniform_rows
from cl.models.loading import load_backbone
from cl.models.vit import TimmBackbone
from cl.numerics import configure
from cl.seeds import Seeds

WIDTH = 16  # the adapter's bottleneck
BATCH = 48


def seconds(action: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def training_flops(backbone: TimmBackbone) -> float:
    """Multiply-adds x 2 of one image's step, from the model's shape.

    Forward through every block, input gradients through all but the first (frozen weights get none), and the adapters'
    own three products. Work that training avoids (the first block's remembered path, the last block's unread tokens)
    counts as done: the figure is useful work a second.
    """
    blocks, d = backbone.require_sites("adapters")
    n = backbone.tokens
    frozen, attention, adapter = 24 * n * d * d, 4 * n * n * d, 4 * n * d * WIDTH
    return blocks * (frozen + attention) + (blocks - 1) * (frozen + 2 * attention) + blocks * 3 * adapter


def done_flops(backbone: TimmBackbone) -> float:
    """The same without what is avoided: what the processor really multiplies."""
    blocks, d = backbone.require_sites("adapters")
    n = backbone.tokens
    frozen, attention, adapter = 24 * n * d * d, 4 * n * n * d, 4 * n * d * WIDTH
    unread = 16 * (n - 1) * d * d
    return (blocks - 1) * (2 * frozen + 3 * attention) - 2 * unread + (blocks - 1) * 3 * adapter


def mm_flops_per_second(backbone: TimmBackbone) -> float:
    """Speed of `torch.mm` on the shapes of qkv, projection and the two MLP layers, weighted as a block runs them."""
    rows, d = BATCH * backbone.tokens, backbone.dim
    shapes = [(d, 3 * d), (d, d), (d, 4 * d), (4 * d, d)]
    pairs = [(torch.randn(rows, k), torch.randn(k, m)) for k, m in shapes]
    repeats = max(1, int(2e9 / (24 * rows * d * d)))

    def block() -> None:
        for _ in range(repeats):
            for left, right in pairs:
                torch.mm(left, right)

    return repeats * 24 * rows * d * d / seconds(block)


def trainer(backbone: TimmBackbone, images: int) -> Callable[[], object]:
    """One epoch of training an adapter on `images` random pictures."""
    ids = [f"{row:05d}" for row in range(images)]
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (images, backbone.image_size, backbone.image_size, 3), generator=generator)
    labels = {sample: str(row % 2) for row, sample in enumerate(ids)}
    samples = Samples.of(labels, ArrayPixels(ids, pictures.to(torch.uint8).numpy()))
    seeds = Seeds("benchmark")
    how = Optimisation(epochs=1, batch_size=BATCH, lr=0.01, weight_decay=5e-4)
    tuner = Tuner(samples, Tuning(bottleneck.Shape(WIDTH, scale=0.1, dropout=0.1), how), backbone, seeds)
    targets, head = samples.targets(["0", "1"]), {"head": uniform_rows(["0", "1"], backbone.dim, seeds)}

    def loss(features: torch.Tensor, live: dict[str, torch.Tensor], batch: Batch) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(cosine(features, live["head"]), targets[batch.rows])

    return lambda: tuner.tune(None, head, loss, Checkpoint(None))


def main() -> None:
    """Print images a second, FLOP/s of training and of `torch.mm`, and their ratio."""
    configure("cpu", threads=1)
    name = sys.argv[1] if len(sys.argv) > 1 else "glyph-vit"
    backbone = load_backbone(name)
    images = 960 if backbone.image_size <= 64 else 96
    epoch = trainer(backbone, images)
    epoch()
    rounds = [(images / seconds(epoch), mm_flops_per_second(backbone)) for _ in range(7)]
    rate = statistics.median(rate for rate, _ in rounds)
    share = statistics.median(rate * training_flops(backbone) / peak for rate, peak in rounds)
    peak = statistics.median(peak for _, peak in rounds)
    print(f"{name}: {rate:.0f} images/s, {rate * training_flops(backbone) / 1e9:.1f} GFLOP/s in training")
    done = share * done_flops(backbone) / training_flops(backbone)
    print(
        f"{name}: torch.mm {peak / 1e9:.1f} GFLOP/s; share {100 * share:.0f} %, {100 * done:.0f} % without avoided work"
    )


if __name__ == "__main__":
    main()
