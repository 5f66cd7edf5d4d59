"""BN-1: each batch is normalised by its own statistics, in place of those of the source. Nothing is learnt.

Schneider, Rusak, Eck, Bringmann, Brendel, Bethge, "Improving robustness against common corruptions by covariate shift
adaptation", NeurIPS 2020, arXiv 2006.16971; Nado et al., arXiv 2006.10963. Without batch norm it stays the source.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cl import Adaptation, Backbone, Model, Samples, Tensors, Veiled, builds
from cl.learning.adaptation import Log, OnlineBatch, SourceModel, go_through
from strategies.source import Source, source_of


@builds(prediction="prediction", evidence="evidence")
@torch.no_grad()
def batch_normalised_scores(
    batches: dict[str, Samples], source: dict[str, Tensors], *, backbone: Backbone
) -> dict[str, Tensors]:
    """The source model, with the statistics of each batch."""
    model = SourceModel(backbone, source)

    def step(batch: OnlineBatch) -> tuple[Tensor, Log]:
        return model.batch_logits(batch.pixels), {"passes": 1.0}

    return go_through(batches, model, step)


class BN1(Source):
    """The source model under the batch's own statistics."""

    title = "BN-1: batch statistics in place of the source's; networks with batch norm only"
    paper = "Schneider et al., NeurIPS 2020, arXiv 2006.16971"

    def adapt(self, model: Model, segment: Veiled) -> Adaptation:
        online = self.component("online", batch_normalised_scores, segment.batches, source_of(model))
        return Adaptation(online["prediction"], {}, online["evidence"])
