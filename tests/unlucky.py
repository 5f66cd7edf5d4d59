"""Strategies whose process does not live to the end."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from cl.components.handles import Handle
from cl.data.samples import Samples
from cl.data.stream import Task
from cl.learning.strategy import Model, Strategy


class Killed(Strategy):
    """Ends its process as the system does when memory runs out."""

    def learn(self, task: Task, model: Model) -> Mapping[str, Handle]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def scores(self, model: Model, samples: Samples) -> Handle:
        raise AssertionError


class Waiting(Killed):
    """Never ends, and says where it is."""

    def learn(self, task: Task, model: Model) -> Mapping[str, Handle]:
        Path(os.environ["WAITING"], str(os.getpid())).touch()
        time.sleep(600)
        raise AssertionError
