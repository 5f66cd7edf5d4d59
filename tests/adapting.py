"""Every method of test-time adaptation as a function of batches and a state, on the tiny backbone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor

from cl.data.samples import Samples
from cl.data.veil import Veiled, veil
from cl.home.store import Tensors
from cl.learning.adaptation import Descent
from cl.models.vit import TimmBackbone
from cl.seeds import Seeds
from cl.testing import tiny_backbone, tiny_drift, tiny_segment
from strategies.bn1 import renormalised
from strategies.cotta import taught
from strategies.eata import selected
from strategies.sar import sharpness_aware
from strategies.source import source_scores
from strategies.tent import tented
from strategies.vida import VidaHyper, adapted, warmed

SGD = Descent("sgd", 0.01)
CLASSES = ("t0/c0", "t0/c1")
EATA: Mapping[str, Any] = {"margin": 2.0, "redundancy": 2.0, "memory": 0.9}
SAR: Mapping[str, Any] = {"margin": 2.0, "rho": 0.05, "depth": 1.0, "collapse": 0.0}
COTTA: Mapping[str, Any] = {
    "passes": 3, "confidence": 1.0, "ema": 0.9, "probability": 0.1, "symmetric": False, "chunk": 8,
}  # fmt: skip


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
    pairs = warmed(
        [tiny_drift().tasks[0].train], source(tiny_backbone()), backbone=tiny_backbone(), seeds=Seeds("warm"),
        checkpoint=NoCheckpoint(), classes=list(CLASSES), sites="attention", low_rank=1, high_rank=8, init="fan_in",
        how=VidaHyper(warm_lr=0.01).warming,
    )  # fmt: skip
    return pairs


class NoCheckpoint:
    def load(self) -> None:
        return None

    def save(self, tensors: Tensors) -> None:
        pass


def vida(batches: Mapping[str, Samples], before: Tensors | None = None, **how: Any) -> dict[str, Tensors]:
    given = {"passes": 3, "threshold": 0.01, **how}
    return adapted(
        dict(batches), source(tiny_backbone()), warm(), before, backbone=tiny_backbone(), seeds=Seeds("run"),
        reset_every=given.pop("reset_every", 0), at_collapse=given.pop("at_collapse", False), **given,
    )  # fmt: skip


def method(name: str, backbone: TimmBackbone | None = None) -> Any:
    """A method as a function of (batches, state)."""
    backbone = backbone or tiny_backbone()
    origin = source(backbone)
    common: dict[str, Any] = {"backbone": backbone, "reset_every": 0}
    builds = {
        "source": lambda b, s: source_scores(b, origin, backbone=backbone),
        "bn1": lambda b, s: renormalised(b, origin, backbone=backbone),
        "tent": lambda b, s: tented(b, origin, s, how=SGD, **common),
        "eata": lambda b, s: selected(b, origin, None, s, how=SGD, **EATA, **common),
        "sar": lambda b, s: sharpness_aware(b, origin, s, how=SGD, **SAR, **common),
        "cotta": lambda b, s: taught(b, origin, s, how=SGD, seeds=Seeds("run"), **COTTA, **common),
        "vida": lambda b, s: vida(b, s),
    }
    return builds[name]


METHODS = ("source", "bn1", "tent", "eata", "sar", "cotta", "vida")
LEARNING = METHODS[2:]
