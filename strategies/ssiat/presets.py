"""SSIAT's presets: values, and what they stand for.

Those named after a data set are the released configurations. That of CUB lacks its epochs and VTAB has none: both take
the others' 20 and 10.
"""

from __future__ import annotations

from collections.abc import Mapping

_OFFICIAL = (
    {"pairing": "official", "decay": "official"},
    "the released code: the shift between other crops, shuffled; decay by a class's index over the session's size",
)

SSIAT_PRESETS: Mapping[str, tuple[Mapping[str, object], str]] = {
    "quick": ({"epochs": 2, "first_epochs": 2}, "two epochs a session, to try things out"),
    "paper": (
        {},
        "the released settings with rows of the shift paired; the paper's own readings are not known to differ",
    ),
    "official": _OFFICIAL,
    "ssiat_official": _OFFICIAL,
    "cifar100": ({"margin": 0.0}, "released settings; 5 sessions of 20 classes"),
    "imagenet_r": ({"margin": 0.0}, "released settings; 10 sessions of 20 classes"),
    "imagenet_a": ({"margin": 0.3}, "released settings; 10 sessions of 20 classes, CosFace margin 0.3"),
    "cub": (
        {"margin": 0.0},
        "10 sessions of 20 classes; epochs as for the others, because the released file lacks them",
    ),
    "vtab": ({"margin": 0.0}, "5 sessions of 10 classes; nothing released, settings of the others"),
    # Controls, and less coupled variants, which are cheaper to delete from; not in the paper.
    "not_paper_no_shift": ({"shift": "none"}, "control: old means stay where they were"),
    "not_paper_mean_shift": ({"shift": "mean"}, "control: old means move by the plain mean shift"),
    "not_paper_fitted_shift": ({"sigma": "auto"}, "control: the kernel's width fits the features' distances"),
    "not_paper_fresh_head": ({"ca_init": "fresh"}, "the classifier comes from Gaussians alone"),
    "not_paper_lda": ({"head": "lda"}, "linear discriminants instead of stage 3"),
    "not_paper_first": (
        {"adapt": "first", "ca_init": "fresh"},
        "the adapter is tuned in the first session only: later samples taint statistics and the head",
    ),
    "not_paper_public": (
        {"adapt": "none", "ca_init": "fresh"},
        "no adapter: nothing is trained on images, so that deletion rebuilds statistics and the head",
    ),
    "not_paper_restart": ({"restart": 3}, "a new chain every three sessions: a deletion replays three at most"),
}
