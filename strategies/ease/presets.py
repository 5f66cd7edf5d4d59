"""EASE's presets: values, and what they stand for. Those named after a data set are the released `exps/*.json`."""

from __future__ import annotations

from collections.abc import Mapping


def _released(
    lr: float, epochs: int, batch_size: int, weight_decay: float, bottleneck: int, alpha: float, **more: object
) -> dict[str, object]:
    """A released configuration; the columns below are these, in this order."""
    values = {"lr": lr, "epochs": epochs, "batch_size": batch_size, "weight_decay": weight_decay}
    return {**values, "bottleneck": bottleneck, "alpha": alpha, **more}


_OMNI = _released(0.01, 20, 16, 5e-4, 64, 1.0)
_ONE_ADAPTER = {"adapt": "first", "beta": 1.0, "reweight": "none", "complete": "diagonal"}

# IN1K and IN21K name the backbone's pretraining.
EASE_PRESETS: Mapping[str, tuple[Mapping[str, object], str]] = {
    "quick": ({"epochs": 2}, "two epochs a task, to try things out"),
    "official": (
        {"reweight": "official", "synthesis": "recalc", "bottleneck": 64},
        "the released code: alpha/(T-1) for other spaces, sources from all tasks since, r = 64",
    ),
    "paper": (
        {"reweight": "paper", "synthesis": "once", "bottleneck": 16, "alpha": 0.1, "lr": 0.01, "epochs": 20},
        "the paper's text: alpha for every other space (Eq. 12), sources from the space's own task, r = 16",
    ),
    "cifar100": (_released(0.025, 20, 48, 5e-4, 64, 0.1), "released settings; 20 tasks of 5 classes"),
    "cub_in1k": (
        _released(0.005, 20, 16, 5e-4, 64, 0.005, beta=1.0),
        "released settings for ImageNet-1k weights; 20 tasks of 10 classes, the bare backbone's space too",
    ),
    "cub_in21k": (
        _released(0.008, 20, 32, 5e-4, 64, 0.05),
        "released settings for ImageNet-21k weights; 20 tasks of 10 classes",
    ),
    "imagenet_r": (_released(0.05, 20, 16, 5e-3, 64, 0.1), "released settings; 10 tasks of 20 classes"),
    "imagenet_a": (_released(0.05, 20, 32, 5e-3, 64, 0.1), "released settings; 10 tasks of 20 classes"),
    "objectnet_in1k": (
        _released(0.03, 20, 48, 5e-3, 64, 0.1, optimizer="adam"),
        "released settings for ImageNet-1k weights; 20 tasks of 10 classes, Adam",
    ),
    "objectnet_in21k": (
        _released(0.05, 25, 48, 5e-3, 64, 0.2),
        "released settings for ImageNet-21k weights; 20 tasks of 10 classes",
    ),
    "omni_ease": (_OMNI, "true EASE on the released settings; no published figure"),
    "omni_official": (
        {**_OMNI, **_ONE_ADAPTER},
        "what the released code runs on OmniBenchmark: one adapter, which is APER and not EASE",
    ),
    "vtab": (_released(0.03, 45, 16, 5e-3, 16, 0.1), "released settings; 5 tasks of 10 classes"),
}
