"""SEMA's presets. `exact` is the default; the others with a name of a data set are the released configurations."""

from __future__ import annotations

# The released code, wherever it and the paper or this engine differ.
OFFICIAL: dict[str, object] = {
    "z": "abs",
    "scan": "batch128",
    "order": "batch",
    "stats": "ring500",
    "sigma_floor": "none",
    "min_scan_batch": 1,
    "head_rows": "decay",
    "non_finite": "ignore",
}

# A decision depends on nothing but the task as a whole, so that few deletions change one.
EXACT: dict[str, object] = {
    "z": "signed",
    "scan": "task_mean",
    "order": "strict",
    "stats": "heldout",
    "sigma_floor": "small",
    "min_scan_batch": 32,
    "head_rows": "frozen",
    "non_finite": "raise",
}

PRESETS: dict[str, dict[str, object]] = {
    "quick": {"epochs": 5, "rd_epochs": 10},  # to try things out
    "official": OFFICIAL,
    "exact": EXACT,
    # The released configurations differ in threshold and epochs only.
    "cifar100": {**OFFICIAL, "threshold": 2.0, "epochs": 5},  # 10 tasks of 10 classes
    "imagenet-r": {**OFFICIAL, "threshold": 2.0, "epochs": 20},  # 5, 10 or 20 tasks
    "imagenet-a": {**OFFICIAL, "threshold": 1.0, "epochs": 20},  # 20 tasks of 10 classes
    "vtab": {**OFFICIAL, "threshold": 1.0, "epochs": 20},  # 5 tasks of 10 classes, each a domain of its own
}
