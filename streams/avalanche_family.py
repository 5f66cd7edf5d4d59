"""Avalanche's classic benchmarks by name, `avalanche:SplitMNIST`.

Every list of streams loads this file, so it loads neither torch nor Avalanche; `streams.avalanche` makes them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from cl.registry import Family, Member

_ABOUT = {
    "SplitMNIST": "MNIST in n_experiences tasks of new digits",
    "SplitFMNIST": "Fashion-MNIST in n_experiences tasks of new classes",
    "SplitCIFAR10": "CIFAR-10 in n_experiences tasks of new classes",
    "SplitCIFAR100": "CIFAR-100 in n_experiences tasks of new classes",
    "SplitCIFAR110": "CIFAR-10, then CIFAR-100 in further tasks",
    "SplitTinyImageNet": "Tiny ImageNet in tasks of new classes",
    "SplitImageNet": "ImageNet in tasks of new classes",
    "SplitCUB200": "CUB-200 birds in tasks of new classes",
    "SplitOmniglot": "Omniglot in n_experiences tasks of new characters",
    "SplitInaturalist": "iNaturalist, a super-category a task",
    "PermutedMNIST": "MNIST again and again, its pixels permuted anew in each task",
    "RotatedMNIST": "MNIST again and again, at another angle in each task",
    "CORe50": "CORe50 objects in new instances, classes or both",
    "CLEAR": "CLEAR's photographs, a span of years a task",
    "OpenLORIS": "OpenLORIS objects under a factor that gets harder",
    "CLStream51": "Stream-51 videos",
}


def _made(name: str, about: str) -> Any:
    from streams.avalanche import Classic

    return Classic(name, about)


def _member(name: str, about: str) -> Member:
    line = f"{about} (Avalanche; --data)"
    return Member(partial(_made, name, line), {"__doc__": line})


classic = Family({name: _member(name, about) for name, about in _ABOUT.items()})
