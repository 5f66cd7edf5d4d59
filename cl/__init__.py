"""Palimpsest's engine: streams, components and their store, strategies, runs and metrics.

What a method, a stream or a notebook needs is imported from here, each name from where it lives, and only when it is
asked for: `import cl` and `palimpsest --help` load no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cl.components.builder import builds as builds
    from cl.components.checkpoint import Checkpoint as Checkpoint
    from cl.components.handles import Handle as Handle
    from cl.components.handles import Library as Library
    from cl.components.handles import Part as Part
    from cl.data.policy import Policy as Policy
    from cl.data.samples import ArrayPixels as ArrayPixels
    from cl.data.samples import Samples as Samples
    from cl.data.stream import Recipe as Recipe
    from cl.data.stream import Segment as Segment
    from cl.data.stream import Stream as Stream
    from cl.data.stream import Task as Task
    from cl.data.veil import Veiled as Veiled
    from cl.errors import BadInput as BadInput
    from cl.home.results import Result as Result
    from cl.home.store import Tensors as Tensors
    from cl.learning.hyper import AdapterTraining as AdapterTraining
    from cl.learning.hyper import hyperparameters as hyperparameters
    from cl.learning.hyper import setting as setting
    from cl.learning.strategy import Adaptation as Adaptation
    from cl.learning.strategy import Model as Model
    from cl.learning.strategy import PastTask as PastTask
    from cl.learning.strategy import Strategy as Strategy
    from cl.learning.train import Optimisation as Optimisation
    from cl.learning.train import Tuner as Tuner
    from cl.learning.train import Tuning as Tuning
    from cl.models.backbone import Backbone as Backbone
    from cl.models.heads import cosine as cosine
    from cl.numerics import Numerics as Numerics
    from cl.parts.prototypes import class_means as class_means
    from cl.running.classifier import Classifier as Classifier
    from cl.running.classifier import open as open
    from cl.running.run import assembled as assembled
    from cl.running.run import run as run
    from cl.seeds import Seeds as Seeds

_HOME_OF = {
    "Adaptation": "cl.learning.strategy",
    "AdapterTraining": "cl.learning.hyper",
    "ArrayPixels": "cl.data.samples",
    "Backbone": "cl.models.backbone",
    "Classifier": "cl.running.classifier",
    "BadInput": "cl.errors",
    "Checkpoint": "cl.components.checkpoint",
    "Handle": "cl.components.handles",
    "Library": "cl.components.handles",
    "Model": "cl.learning.strategy",
    "Numerics": "cl.numerics",
    "Optimisation": "cl.learning.train",
    "Part": "cl.components.handles",
    "PastTask": "cl.learning.strategy",
    "Policy": "cl.data.policy",
    "Recipe": "cl.data.stream",
    "Result": "cl.home.results",
    "Samples": "cl.data.samples",
    "Seeds": "cl.seeds",
    "Segment": "cl.data.stream",
    "Strategy": "cl.learning.strategy",
    "Stream": "cl.data.stream",
    "Task": "cl.data.stream",
    "Tensors": "cl.home.store",
    "Tuner": "cl.learning.train",
    "Tuning": "cl.learning.train",
    "Veiled": "cl.data.veil",
    "assembled": "cl.running.run",
    "builds": "cl.components.builder",
    "class_means": "cl.parts.prototypes",
    "cosine": "cl.models.heads",
    "hyperparameters": "cl.learning.hyper",
    "open": "cl.running.classifier",
    "run": "cl.running.run",
    "setting": "cl.learning.hyper",
}

__all__ = list(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'cl' has no attribute '{name}'")
    return getattr(import_module(_HOME_OF[name]), name)
