"""What the released code does and the paper does not print: scans that break off, and a ring of errors.

github.com/huiyiwang01/SEMA-CL at 5a45512; see the presets for the options that lead here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cl import Optimisation, Part, Samples, Seeds, Tensors, builds
from cl.learning.train import Batch, epoch_batches
from strategies.sema.expansion import Expansion, Pass

RING = 500  # how many errors the ring holds


class Ring:
    """The last errors that a descriptor met while it was trained, whose statistics it keeps.

    slots: `(RING,)`, NaN where there is none yet; changed in place, so that a pause of the training saves it.
    """

    def __init__(self) -> None:
        self.slots = torch.full((RING,), torch.nan)

    @classmethod
    def before(
        cls, errors: Callable[[Batch], Tensor], ids: Sequence[str], how: Optimisation, seeds: Seeds, epochs: int
    ) -> Ring:
        """The ring after `epochs` that train the adapters: the released code fills it there too. These matter only
        where the descriptor's own epochs (`how`) do not push them out."""
        ring = cls()
        if how.epochs * len(ids) >= 2 * RING + how.batch_size:
            return ring
        for epoch in range(epochs):
            for batch in epoch_batches(ids, how.batch_size, epoch, seeds):
                ring.add(errors(batch))
        return ring

    @property
    def errors(self) -> Tensor:
        """`(n,)`, oldest first."""
        return self.slots[~self.slots.isnan()]

    def add(self, errors: Tensor) -> None:
        """Take in the errors `(n,)` of one more batch."""
        ring = newest(self.errors, errors.detach().cpu())
        self.slots[RING - len(ring) :] = ring


def newest(ring: Tensor, new: Tensor, size: int = RING) -> Tensor:
    """The ring with errors of one more batch, oldest first. The batch that fills it loses what does not fit; later ones
    push the oldest out."""
    room = size - len(ring)
    return torch.cat([ring, new[:room]]) if room > 0 else torch.cat([ring, new])[-size:]


@builds("cache")
def scan_order(samples: Samples, *, seeds: Seeds, turn: int) -> Tensors:
    """The rows of a shard in the order in which pass `turn` of a scan visits them."""
    return {"rows": torch.tensor(seeds.order(samples.ids, "scan", turn))}


def batch_by_batch(
    expansion: Expansion,
    blocks: Sequence[int],
    start_pass: Callable[[int], Pass],
    decide: Callable[[Expansion, int, list[int], Pass], tuple[Expansion, int | None, Part]],
    expand: Callable[[Expansion, int], Expansion],
) -> Expansion:
    """Scan in batches; an addition breaks the pass off, and it goes on behind; until a pass adds nothing.

    start_pass: the pass of a number. decide: the expansion after the scan of a number over blocks in a pass, the block
    that grows, if any, and what was visited. expand: the expansion with an adapter more in a block.
    """
    waiting, scans, current = list(blocks), 0, start_pass(0)
    while waiting:
        expansion, block, visited = decide(expansion, scans, list(waiting), current)
        scans += 1
        if block is not None:
            waiting.remove(block)
            expansion, current = expand(expansion, block), replace(current, before=visited)
        elif current.before is not None:  # this pass has added something
            current = start_pass(current.turn + 1)
        else:
            break
    return expansion
