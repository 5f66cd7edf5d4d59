"""Hyperparameters of Avalanche's strategies, by their names there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cl import hyperparameters, setting


@hyperparameters
class BaselineHyper:
    """What every baseline takes."""

    over: Literal["features", "images"] = setting(
        "features", "train on the frozen backbone's features, or all of the backbone on the images", "ours"
    )
    hidden: int = setting(0, "width of a trained layer under the classifier; 0 for none", "ours", ge=0)
    units: int = setting(100, "outputs of the classifier: Avalanche wants them all from the start", "ours", ge=1)
    epochs: int = setting(5, "passes over a task's images", "ours", ge=1, le=10_000)
    batch_size: int = setting(32, "images a step", "ours", ge=1, le=65_536)
    lr: float = setting(0.05, "learning rate of SGD, constant", "ours", gt=0)
    momentum: float = setting(0.9, "momentum of SGD; kept from task to task, as Avalanche does", "ours", ge=0, lt=1)

    @property
    def own(self) -> dict[str, Any]:
        """What one of Avalanche's strategies takes beside what all of them take, by its name there."""
        return {}


@hyperparameters
class EWCHyper(BaselineHyper):
    """EWC's settings."""

    ewc_lambda: float = setting(1.0, "weight of the penalty", "ours", ge=0)

    @property
    def own(self) -> dict[str, Any]:
        return {"ewc_lambda": self.ewc_lambda}


@hyperparameters
class LwFHyper(BaselineHyper):
    """LwF's settings."""

    alpha: float = setting(1.0, "weight of the distillation", "Avalanche's plugin", ge=0)
    temperature: float = setting(2.0, "of the softened scores", "Avalanche's plugin", gt=0)

    @property
    def own(self) -> dict[str, Any]:
        return {"alpha": self.alpha, "temperature": self.temperature}


@hyperparameters
class MemoryHyper(BaselineHyper):
    """Settings of what keeps exemplars."""

    mem_size: int = setting(200, "images kept", "Avalanche's default", ge=1)

    @property
    def own(self) -> dict[str, Any]:
        return {"mem_size": self.mem_size}


@hyperparameters
class DERHyper(MemoryHyper):
    """DER's settings; DER++ where beta is above 0."""

    alpha: float = setting(0.1, "weight of the kept scores", "Avalanche's default", ge=0)
    beta: float = setting(0.5, "weight of the kept labels", "Avalanche's default", ge=0)

    @property
    def own(self) -> dict[str, Any]:
        return {**super().own, "alpha": self.alpha, "beta": self.beta}


@hyperparameters
class SLDAHyper:
    """SLDA's settings: nothing is trained."""

    over: Literal["features"] = setting("features", "the frozen backbone's features", "Hayes and Kanan, section 3")
    units: int = setting(100, "classes that there is room for from the start", "ours", ge=1)
    shrinkage: float = setting(1e-4, "weight of the identity in the covariance", "Hayes and Kanan, section 4", gt=0)


Settings = BaselineHyper | SLDAHyper


@dataclass(frozen=True)
class AvalancheMethod:
    """One of Avalanche's strategies: its name there, its settings, and the release of Avalanche."""

    kind: str
    settings: Settings
    release: str
