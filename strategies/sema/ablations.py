"""Options of SEMA that neither the paper nor the released code has: `rd = pca` and `new_column = closed`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cl import Backbone, Tensors, builds
from cl.adapters.mixture import Mixtures, Stack
from strategies.sema.passes import AdapterReads

CLOSED = -6.0  # logit of a closed column, less the log-sum-exp of the others


def principal(x: Tensor, hidden: int) -> Tensors:
    """The best linear autoencoder of x `(n, d)`: projection on its first `hidden` principal components, by float64."""
    rows = x.double()
    mean = rows.mean(0)  # (d,)
    scatter = (rows - mean).T @ (rows - mean)  # (d, d)
    axes = torch.linalg.eigh(scatter).eigenvectors[:, -hidden:].T  # (hidden, d); eigenvalues ascend
    return {
        "encode.weight": axes.float(),
        "decode.weight": axes.T.float(),
        "encode.bias": -(axes @ mean).float(),
        "decode.bias": mean.float(),
    }


@builds("checkpoint")
def start_closed(adapters: AdapterReads, pooled: Tensors, *, backbone: Backbone, block: int) -> Tensors:
    """Where a new router column of `block` starts so that the function stays. pooled: the task's m in the block."""
    stack = Mixtures.of(adapters, backbone.device).stacks[block]
    return {name: value.cpu() for name, value in closing_column(stack, pooled["m"].to(backbone.device)).items()}


def closing_column(stack: Stack, m: Tensor) -> Tensors:
    """A column that hardly opens: W = 0, b = mean over m `(n, d)` of the others' log-sum-exp, less 6."""
    level = torch.logsumexp(F.linear(m, stack.columns, stack.column_bias), dim=1).mean()
    return {"weight": torch.zeros_like(stack.columns[:1]), "bias": (level + CLOSED)[None]}
