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
    from cl.home.results import Result as Result
    from cl.home.store import Tensors as Tensors
    from cl.learning.hyper import hyperparameters as hyperparameters
    from cl.learning.hyper import setting as setting
    from cl.learning.strategy import Adaptation as Adaptation
    from cl.learning.strategy import Model as Model
    from cl.learning.strategy import Strategy as Strategy
    from cl.learning.train import Optimisation as Optimisation
    from cl.models.backbone import Backbone as Backbone
    from cl.running.run import assembled as assembled
    from cl.running.run import run as run
    from cl.seeds import Seeds as Seeds

_HOME_OF = {
    "Adaptation": "cl.learning.strategy",
    "ArrayPixels": "cl.data.samples",
    "Backbone": "cl.models.backbone",
    "Checkpoint": "cl.components.checkpoint",
    "Handle": "cl.components.handles",
    "Library": "cl.components.handles",
    "Model": "cl.learning.strategy",
    "Optimisation": "cl.learning.train",
    "Part": "cl.components.handles",
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
    "Veiled": "cl.data.veil",
    "assembled": "cl.running.run",
    "builds": "cl.components.builder",
    "hyperparameters": "cl.learning.hyper",
    "run": "cl.running.run",
    "setting": "cl.learning.hyper",
}

__all__ = list(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'cl' has no attribute '{name}'")
    return getattr(import_module(_HOME_OF[name]), name)
