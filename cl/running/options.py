"""How a strategy is run over a stream, beside their names: the options of `palimpsest run` and `compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cl.home.layout import default_home

if TYPE_CHECKING:
    from cl.models.vit import TimmBackbone


@dataclass(frozen=True)
class Options:
    """See `cl.running.run.run`; of names and plain values alone it travels to another process."""

    backbone: str | TimmBackbone | None = None
    seed: int = 0
    presets: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    home: str | Path | None = None
    device: str = "auto"
    threads: int = 1
    data: str | Path | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    user: str | None = None

    @property
    def place(self) -> Path:
        """The home, the default one where none was named."""
        return Path(self.home) if self.home is not None else default_home()
