"""Every registered strategy and stream passes the conformance suite, by being registered.

Members of families have tests of their own, in `test_avalanche.py`.
"""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path

from cl import registry
from cl.learning.strategy import Strategy
from cl.testing import OnlineConformance, StrategyConformance, StreamConformance
from tests.public_sets import write_public
from tests.tiny import fast


def own(names: registry.Registry) -> list[str]:
    """The names that are not `family:member`."""
    return [name for name in names.names() if ":" not in name]


FILES = tempfile.TemporaryDirectory()

for name in own(registry.strategies):
    method = registry.strategies.get(name)
    body = {"strategy": name, "settings": fast(method), "__module__": __name__}
    globals()[f"Test_{name}"] = type(f"Test_{name}", (StrategyConformance,), body)

adapting = [name for name, method in registry.strategies if method.adapt is not Strategy.adapt]
for name in (*adapting, "simplecil"):
    body = {"strategy": name, "settings": fast(registry.strategies.get(name)), "__module__": __name__}
    globals()[f"Test_{name}_at_test_time"] = type(f"Test_{name}_at_test_time", (OnlineConformance,), body)

for name in own(registry.streams):
    factory = registry.streams.get(name)
    reads_files = "data" in inspect.signature(factory).parameters
    arguments = {"data": str(write_public(name, Path(FILES.name)))} if reads_files else {}
    body = {"stream": name, "arguments": arguments, "__module__": __name__}
    globals()[f"Test_{name}"] = type(f"Test_{name}", (StreamConformance,), body)
