"""The conformance suite: what every strategy and every stream promises, as pytest classes to subclass.

    class TestMine(StrategyConformance):
        strategy = "mine"                 # a registered name, or the class
        settings = {"epochs": 2}

    class TestShapes(StreamConformance):
        stream = "shapes"                 # a registered name, or a factory with a recipe for other processes

Ours run it by being registered. A strategy runs over `tiny_stream()` on `tiny_backbone()` unless it sets its own. Both
have names, `cl.testing:tiny_stream` and `cl.testing:tiny_backbone`, by which any command can use them; only the suites
need pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cl.testing.tiny import CONDITIONS, tiny_backbone, tiny_drift, tiny_image, tiny_segment, tiny_stream

if TYPE_CHECKING:
    from cl.testing.online import OnlineConformance as OnlineConformance
    from cl.testing.strategies import Interrupted as Interrupted
    from cl.testing.strategies import StrategyConformance as StrategyConformance
    from cl.testing.strategies import contents as contents
    from cl.testing.streams import StreamConformance as StreamConformance

_HOME_OF = {
    "Interrupted": "cl.testing.strategies",
    "OnlineConformance": "cl.testing.online",
    "StrategyConformance": "cl.testing.strategies",
    "StreamConformance": "cl.testing.streams",
    "contents": "cl.testing.strategies",
}

__all__ = ["CONDITIONS", "tiny_backbone", "tiny_drift", "tiny_image", "tiny_segment", "tiny_stream", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'cl.testing' has no attribute '{name}'")
    return getattr(import_module(_HOME_OF[name]), name)
