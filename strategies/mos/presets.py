"""MOS's presets: values, and what they stand for. Those named after a data set are the released `exps/*.json`, equal
for both pretrained backbones."""

from __future__ import annotations

from collections.abc import Mapping


def _released(lr: float, epochs: int, batch_size: int, weight_decay: float, **more: object) -> dict[str, object]:
    """A released configuration; the columns below are these, in this order."""
    values = {"lr": lr, "epochs": epochs, "batch_size": batch_size, "weight_decay": weight_decay}
    return {**values, "bottleneck": 16, **more}


_PAPER = (
    {"lr": 0.01, "epochs": 20, "batch_size": 48, "bottleneck": 16, "merge": "step", "merge_momentum": 0.1},
    "the paper's values, the same for every data set, and one pull a step",
)
_OFFICIAL = (
    {"merge": "step13", "init": "mbar", "eval_pull": "official", "stats_pull": "official", "proto_dropout": True},
    "what the released code's forward passes do to stored adapters, on private copies: 13 pulls a step, statistics and "
    "evaluation under pulled adapters, prototypes with dropout; for explaining gaps",
)
_ANCHOR = {"merge": "anchor", "init": "anchor"}
_FREE = {"merge": "none", "init": "fresh"}
_DECOUPLED = {"orth": "batch", "head": "fresh"}

MOS_PRESETS: Mapping[str, tuple[Mapping[str, object], str]] = {
    "quick": ({"epochs": 2}, "two epochs a task, to try things out"),
    "paper": _PAPER,
    "official": _OFFICIAL,
    "mos_paper": _PAPER,
    "mos_official": _OFFICIAL,
    "cifar100": (_released(0.03, 20, 48, 5e-4), "released settings; 20 tasks of 5 classes"),
    "cub": (_released(0.01, 10, 32, 5e-4), "released settings; 20 tasks of 10 classes"),
    "imagenet_r": (_released(0.05, 10, 16, 5e-3), "released settings; 10 tasks of 20 classes"),
    "imagenet_a": (
        _released(0.05, 10, 32, 5e-3, spread="variance"),
        "released settings; 10 tasks of 20 classes, only the variances of a class",
    ),
    "objectnet": (
        _released(0.05, 10, 48, 5e-3),
        "released settings; 10 tasks of 20 classes (the paper's table has 20 of 10)",
    ),
    "omni": (
        _released(0.01, 10, 16, 5e-4),
        "released settings; 15 tasks of 20 classes (the paper's table has 10 of 30)",
    ),
    "vtab": (_released(0.03, 20, 32, 5e-3), "released settings; 5 tasks of 10 classes, in the data set's order"),
    # Less coupled than the method, hence cheaper to delete from; not in the paper.
    "not_paper_anchor": (_ANCHOR, "adapters start from the first one and are pulled to it alone"),
    "not_paper_free": (_FREE, "every adapter starts anew and is never merged"),
    "not_paper_batch_orth": ({"orth": "batch"}, "adapters do not read earlier class means"),
    "not_paper_fresh_head": ({"head": "fresh"}, "the head comes from class statistics alone, in seconds"),
    "not_paper_anchor_decoupled": (
        {**_ANCHOR, **_DECOUPLED},
        "not_paper_anchor, batch_orth and fresh_head together",
    ),
    "not_paper_free_decoupled": ({**_FREE, **_DECOUPLED}, "not_paper_free, batch_orth and fresh_head together"),
    "not_paper_one_adapter": (
        {"one_adapter": True, **_DECOUPLED},
        "the first adapter for all tasks: the control for every claim about merging and retrieval",
    ),
}
