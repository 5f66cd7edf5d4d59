"""Avalanche's strategies by name, `avalanche:SLDA`: which there are, and why the others are refused.

Every list of strategies loads this file, so it loads neither torch nor Avalanche; `strategies.avalanche` makes them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from cl.registry import Family, Member

_ON_ALL = "training on all images so far"
# Kind -> title, paper.
_OFFERED = {
    "Naive": ("training on each task in turn, nothing against forgetting", "baseline"),
    "Cumulative": (f"{_ON_ALL}, from the model before", "baseline"),
    "Joint": (f"{_ON_ALL}, afresh", "baseline"),
    "EWC": ("weights held by their Fisher information", "Kirkpatrick et al., PNAS 2017"),
    "LwF": ("scores of the model before, distilled", "Li and Hoiem, ECCV 2016"),
    "Replay": ("a memory of images, half of every batch", "Chaudhry et al., arXiv 1902.10486"),
    "DER": ("a memory of images and their scores", "Buzzega et al., NeurIPS 2020"),
    "ER_ACE": ("a memory, and an asymmetric cross-entropy", "Caccia et al., ICLR 2022"),
    "GDumb": ("a balanced memory, and training on it alone, afresh", "Prabhu et al., ECCV 2020"),
    "SLDA": ("streaming linear discriminant analysis", "Hayes and Kanan, CVPRW 2020"),
    "iCaRL": ("nearest mean of exemplars, distillation", "Rebuffi et al., CVPR 2017"),
}
_UNTESTED = (
    "AGEM",
    "CWRStar",
    "CoPE",
    "FeatureReplay",
    "GSS_greedy",
    "MAS",
    "MER",
    "MIR",
    "SCR",
    "SynapticIntelligence",
)
_OWN_MODEL = ("GenerativeReplay", "LFL", "LearningToPrompt", "PNNStrategy", "PackNet", "ER_AML")


def _made(kind: str, title: str, paper: str) -> Any:
    from strategies.avalanche import baseline

    return baseline(kind, title, paper)


def _member(kind: str, about: str, paper: str) -> Member:
    title = f"{about} (Avalanche)"
    return Member(partial(_made, kind, title, paper), {"title": title, "paper": paper})


baselines = Family(
    {kind: _member(kind, *texts) for kind, texts in _OFFERED.items()},
    {
        "BiC": "Avalanche 0.6 passes an argument that today's torch has no more; use avalanche:iCaRL",
        "GEM": "it needs a solver for quadratic programs that Avalanche does not install; use avalanche:Replay",
        **dict.fromkeys(_UNTESTED, "it is not offered, as no test of ours covers it; see palimpsest list strategies"),
        **dict.fromkeys(_OWN_MODEL, "it needs a model of its own; see palimpsest list strategies"),
    },
)
