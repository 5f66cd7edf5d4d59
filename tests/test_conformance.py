"""Every registered strategy and stream passes the conformance suite, by being registered."""

from __future__ import annotations

from cl import registry
from cl.testing import StrategyConformance, StreamConformance
from tests.homes import fast

for name, method in registry.strategies:
    body = {"strategy": name, "settings": fast(method), "__module__": __name__}
    globals()[f"Test_{name}"] = type(f"Test_{name}", (StrategyConformance,), body)

for name in registry.streams.names():
    body = {"stream": name, "__module__": __name__}
    globals()[f"Test_{name}"] = type(f"Test_{name}", (StreamConformance,), body)
