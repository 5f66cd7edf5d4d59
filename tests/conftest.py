"""One thread and repeatable hypothesis examples for every test."""

from __future__ import annotations

import os

from hypothesis import settings

from tests.homes import named_backbone as named_backbone

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # tests fork, which a process that has used cuda must not
os.environ["HF_HUB_OFFLINE"] = "1"  # no test waits for a hub
settings.register_profile("palimpsest", deadline=None, derandomize=True)
settings.load_profile("palimpsest")
