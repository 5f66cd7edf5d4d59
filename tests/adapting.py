"""Every method of test-time adaptation as a function of batches and a state, on the tiny backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor

from cl import Checkpoint, Samples, Seeds, Tensors, Veiled
from cl.data.veil import veil
from cl.learning.adaptation import Descent
from cl.models.vit import TimmBackbone
from cl.testing import tiny_backbone, tiny_drift, tiny_segment
from strategies.bn1 import batch_normalised_scores
from strategies.cotta import MeanTeacher, learn_from_mean_teacher
from strategies.eata import Selection, minimise_selectively
from strategies.sar import Sharpness, minimise_sharpness
from strategies.source import source_scores
from strategies.tent import minimise_entropy
from strategies.vida import VidaHyper
from strategies.vida.strategy import warm_up
from strategies.vida.teaching import learn_from_teacher

SGD = Descent("sgd", 0.01)
CLASSES = ("t0/c0", "t0/c1")
EATA = Selection(margin=2.0, redundancy=2.0, memory=0.9)
SAR = Sharpness(margin=2.0, rho=0.05, depth=1.0, collapse=0.0)
COTTA = MeanTeacher(passes=3, confidence=1.0, ema=0.9, probability=0.1, symmetric=False, chunk=8)


@cache
def tiny_resnet() -> TimmBackbone:
    """A residual network of four blocks with batch norm and random weights."""
    with Seeds("tiny").forked("resnet"):
        network = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=0, channels=(8, 8, 16, 16), stem_width=8)
    return TimmBackbone("tiny-resnet", network, 32, (0.5,) * 3, (0.5,) * 3)


def source(backbone: TimmBackbone) -> dict[str, Tensors]:
    """A source model with a random head of two classes, far from sure of anything."""
    weight = torch.randn(2, backbone.dim, generator=Seeds("tests").generator("head")) / backbone.dim**0.5
    return {"head": {"weight": weight, "bias": torch.zeros(2)}}


def arriving(domain: str = "noise", batches: int = 3, size: int = 4) -> Veiled:
    return veil(tiny_segment(f"r00/{domain}/5", domain, batches, size))


def scores(found: Mapping[str, Tensors]) -> Tensor:
    return found["prediction"]["scores"]


def plain(batches: Mapping[str, Samples], backbone: TimmBackbone | None = None) -> dict[str, Tensors]:
    """What the source model says."""
    backbone = backbone or tiny_backbone()
    return source_scores(dict(batches), source(backbone), backbone=backbone)


@cache
@torch.enable_grad()
def warm() -> Tensors:
    """Pairs whose two branches both do something."""
    h = VidaHyper(high_rank=8, warm_lr=0.01)
    return warm_up(
        [tiny_drift().tasks[0].train],
        source(tiny_backbone()),
        backbone=tiny_backbone(),
        seeds=Seeds("warm"),
        checkpoint=Checkpoint(None),
        classes=list(CLASSES),
        shape=h.pairs,
        how=h.warming,
    )


def vida(batches: Mapping[str, Samples], before: Tensors | None = None, **how: Any) -> dict[str, Tensors]:
    h = VidaHyper(**{"passes": 3, "threshold": 0.01, **how})
    given: dict[str, Any] = {"backbone": tiny_backbone(), "allotment": h.allotment, "teaching": h.teaching}
    return learn_from_teacher(dict(batches), source(tiny_backbone()), warm(), before, seeds=Seeds("run"), **given)


def method(name: str, backbone: TimmBackbone | None = None, **how: Any) -> Callable[..., dict[str, Tensors]]:
    """A method as a function of (batches, state). how: what it takes in place of the settings above."""
    backbone = backbone or tiny_backbone()
    origin = source(backbone)
    learning: dict[str, Any] = {"backbone": backbone, "how": SGD, "reset_every": 0}
    eata, sar = {**learning, "selection": EATA, **how}, {**learning, "sharpness": SAR, **how}
    cotta = {**learning, "teacher": COTTA, "seeds": Seeds("run"), **how}
    builds: dict[str, Callable[..., dict[str, Tensors]]] = {
        "source": lambda b, s: source_scores(b, origin, backbone=backbone),
        "bn1": lambda b, s: batch_normalised_scores(b, origin, backbone=backbone),
        "tent": lambda b, s: minimise_entropy(b, origin, s, **{**learning, **how}),
        "eata": lambda b, s: minimise_selectively(b, origin, None, s, **eata),
        "sar": lambda b, s: minimise_sharpness(b, origin, s, **sar),
        "cotta": lambda b, s: learn_from_mean_teacher(b, origin, s, **cotta),
        "vida": lambda b, s: vida(b, s, **how),
    }
    return builds[name]


METHODS = ("source", "bn1", "tent", "eata", "sar", "cotta", "vida")
LEARNING = METHODS[2:]
