"""Low-rank adapters as HF PEFT initialises and trains them, taken out as plain tensors (see `cl.adapters.lowrank`).

PEFT edits modules and draws from global generators, so it works on a tree of its own, inside `seeds.forked`. It is
imported here alone and late: that takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal, cast

import torch
from torch import Tensor, nn

from cl.home.store import Tensors
from cl.models.backbone import Backbone
from cl.seeds import Seeds

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

Kind = Literal["lora", "rslora", "pissa", "dora"]
_NAME = "default"  # PEFT's name for the only adapter


def release() -> str:
    """The installed release, for the keys of what it trains. Does not import it."""
    return version("peft")


class Grown:
    """The backbone's blocks with fresh low-rank layers in them, and what is to be trained.

    lora: A Kaiming-uniform, B zero, scale alpha / r. rslora: scale alpha / sqrt(r). pissa: A and B from the largest
    singular values of W. dora: magnitude and direction apart.
    """

    def __init__(
        self, backbone: Backbone, seeds: Seeds, layers: Sequence[str], rank: int, alpha: float, kind: Kind
    ) -> None:
        self._layers, self._kind, self._blocks = tuple(backbone.linears(layers)), kind, backbone.blocks
        self._tree = backbone.fresh()
        with seeds.forked("lora"):
            _inject(self._tree, self._layers, rank, alpha, kind)
        self._tree.eval()
        self.start = {name: p.detach().clone() for name, p in self._tree.named_parameters() if "lora_" in name}

    def features(self, trained: Mapping[str, Tensor], stream: Tensor) -> Tensor:
        """Features `(n, d)` from the stream that enters block 0, differentiable in what is trained."""
        own = {name: trained[name] for name in self.start}
        return torch.func.functional_call(self._tree, own, (stream,))

    def extracted(self, trained: Mapping[str, Tensor]) -> Tensors:
        """What was trained, as an adapter of the backbone as it is."""
        parts = {name: [self._layer(block, name, trained) for block in range(self._blocks)] for name in self._layers}
        return {
            f"{name}.{what}": torch.stack([one[what] for one in found]).contiguous()
            for name, found in parts.items()
            for what in found[0]
        }

    def _layer(self, block: int, name: str, trained: Mapping[str, Tensor]) -> Tensors:
        place = f"network.blocks.{block}.{name}"
        layer = cast("LoraLayer", self._tree.get_submodule(place))
        scale = float(layer.scaling[_NAME])
        down, up = (f"{place}.lora_{which}.{_NAME}.weight" for which in "AB")
        a, b = trained[down], scale * trained[up]  # (r, inputs), (outputs, r)
        if self._kind == "pissa":  # PEFT changes W to W - s B0 A0; over W itself the adapter is s (B A - B0 A0)
            a0, b0 = self.start[down].cpu(), scale * self.start[up].cpu()
            return {"down": torch.cat([a, a0]), "up": torch.cat([b, -b0], dim=1)}
        if self._kind == "dora":
            base = cast(nn.Linear, layer.get_base_layer())
            magnitude = trained[f"{place}.lora_magnitude_vector.{_NAME}.weight"]
            gain = magnitude / torch.linalg.vector_norm(base.weight.cpu() + b @ a, dim=1)
            shift = (1 - gain) * base.bias.cpu() if base.bias is not None else torch.zeros_like(gain)
            return {"down": a, "up": gain[:, None] * b, "gain": gain, "shift": shift}
        return {"down": a, "up": b}


def _inject(tree: nn.Module, layers: Sequence[str], rank: int, alpha: float, kind: Kind) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT says int, and multiplies by it
        target_modules=list(layers),
        lora_dropout=0.0,
        use_rslora=kind == "rslora",
        use_dora=kind == "dora",
        init_lora_weights="pissa" if kind == "pissa" else True,
    )
    inject_adapter_in_model(config, tree)
