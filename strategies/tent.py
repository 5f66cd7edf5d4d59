"""TENT: the entropy of the predictions, minimised over the affine weights of normalisation layers.

Wang, Shelhamer, Liu, Olshausen, Darrell, "Tent: Fully Test-Time Adaptation by Entropy Minimization", ICLR 2021,
arXiv 2006.10726. Each batch is scored, then one step is taken on the mean of H(y) = -sum_c p_c log p_c from the same
pass. Layers of batch norm use the statistics of the batch. Nothing is ever reset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from cl import Backbone, Handle, Model, Part, Samples, Tensors, builds, hyperparameters, setting
from cl.learning.adaptation import Descent, Learner, Log, OnlineBatch, SourceModel, entropy, learn_through, norm_names
from strategies.source import TestTime, TestTimeHyper, source_of


@hyperparameters
class EntropyHyper(TestTimeHyper):
    """What the methods that minimise entropy take."""

    optimizer: Literal["sgd", "adam"] = setting("sgd", "optimiser at test time", "SAR, released code, ViT")
    lr: float = setting(1e-3, "learning rate at test time", "SAR, released code: 1e-3 for a batch of 64", ge=0)
    momentum: float = setting(0.9, "momentum of sgd", "SAR, released code", ge=0, lt=1)

    @property
    def descent(self) -> Descent:
        """The optimiser that these settings describe."""
        return Descent(self.optimizer, self.lr, self.momentum)


@builds(state="state", prediction="prediction", evidence="evidence")
def minimise_entropy(
    batches: dict[str, Samples],
    source: dict[str, Tensors],
    before: Tensors | None,
    *,
    backbone: Backbone,
    how: Descent,
    reset_every: int,
) -> dict[str, Tensors]:
    """The segment's batches, each scored and then learnt from."""
    model = SourceModel(backbone, source)
    learner = Learner(model.weights(norm_names(backbone)), how, before)

    def step(batch: OnlineBatch) -> tuple[Tensor, Log]:
        logits = model.batch_logits(batch.pixels, learner.live)  # (n, classes)
        loss = entropy(logits).mean()
        return logits, {"updated": float(learner.step(loss)), "loss": loss.item(), "passes": 3.0}

    return learn_through(batches, model, learner, step, reset_every)


class Tent(TestTime[EntropyHyper]):
    """Entropy minimisation over the norm layers."""

    title = "TENT: minimises the entropy of its predictions over the norm layers"
    paper = "Wang et al., ICLR 2021, arXiv 2006.10726"
    Hyper = EntropyHyper
    presets = {
        "quick": {"source_epochs": 2},
        "cifar10": {"optimizer": "adam", "lr": 1e-3},  # ViDA's released code, batches of 4
        "cifar100": {"optimizer": "adam", "lr": 3e-4},  # the same, batches of 50
        "imagenet": {"optimizer": "sgd", "lr": 1e-4},  # the same, batches of 64
    }

    def online(self, model: Model, batches: Mapping[str, Samples], before: Part | None) -> Handle:
        h = self.hyper
        return self.component(
            "online",
            minimise_entropy,
            batches,
            source_of(model),
            before,
            how=h.descent,
            reset_every=h.batches_between_resets,
        )
