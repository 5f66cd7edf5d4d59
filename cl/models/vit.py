"""Vision transformers of timm as backbones: where adapters attach, what is pooled, and how blocks are run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from cl.code import code_digest
from cl.digests import digest_json, digest_tensors
from cl.errors import BadInput, UnknownName
from cl.models.backbone import Attach, Change, Prefix


class TimmBackbone:
    """Any timm network as a frozen backbone.

    architecture: plain values that decide what the weights do and that their shapes do not show (heads, activation).
    Raises BadInput for a network whose features timm cannot give.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        device: str = "cpu",
        architecture: Any = None,
    ) -> None:
        self.name, self.image_size, self.mean, self.std = name, image_size, tuple(mean), tuple(std)
        self.device = torch.device(device)
        self.network = network.eval().requires_grad_(False)
        self.digest = digest_json(
            [
                digest_tensors(network.state_dict()),
                image_size,
                self.mean,
                self.std,
                type(network).__qualname__,
                architecture,
                timm.__version__,
                code_digest(TimmBackbone),
            ]
        )
        self.network.to(self.device)
        self.passes = 0.0
        self.dim = int(getattr(network, "head_hidden_size", None) or network.num_features)  # type: ignore[arg-type]
        self._blocks = list(network.blocks) if _has_sites(network) else []  # type: ignore[arg-type]
        self.blocks = len(self._blocks)
        self.tokens = _tokens(network) if self._blocks else 0
        self._mean = torch.tensor(self.mean, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(self.std, device=self.device).view(3, 1, 1)

    def require_sites(self, what: str) -> tuple[int, int]:
        if not self._blocks:
            raise BadInput(
                f"backbone '{self.name}' has no sites for {what}; use simplecil on it, or a vision transformer"
            )
        return len(self._blocks), self.dim

    def prepare(self, images: Tensor) -> Tensor:
        return (self.pixels(images) - self._mean) / self._std

    def pixels(self, images: Tensor) -> Tensor:
        pixels = images.to(self.device).float() / 255
        if tuple(pixels.shape[-2:]) != (self.image_size, self.image_size):
            size = (self.image_size, self.image_size)
            pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        return pixels

    def features(self, images: Tensor, attach: Attach | None = None) -> Tensor:
        if attach is not None:
            return self.finish(self.site(0, self.enter(images)), attach)
        self.passes += len(images)
        return _pooled(self.network, self.prepare(images))

    def enter(self, images: Tensor) -> Tensor:
        net: Any = self.network
        return net.norm_pre(net.patch_drop(net._pos_embed(net.patch_embed(self.prepare(images)))))

    def through(self, x: Tensor, attach: Attach, start: int, stop: int) -> Tensor:
        self.passes += len(x) * (stop - start) / self.blocks
        for block in range(start, stop):
            h, y = self.site(block, x)
            x = y + attach(block, h)
        return x

    def site(self, block: int, x: Tensor) -> Prefix:
        return self._frozen(block, x)

    def finish(self, prefix: Prefix, attach: Attach, first: int = 0) -> Tensor:
        net: Any = self.network
        h, y = prefix
        self.passes += len(h) * (self.blocks - first) / self.blocks
        x = y + attach(first, h)
        for block in range(first + 1, self.blocks):
            tokens = self._pooled_tokens if block == self.blocks - 1 else None
            h, y = self._frozen(block, x, tokens)
            x = y + attach(block, h)[:, :tokens]
        return net.forward_head(net.norm(x), pre_logits=True)

    def linears(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        self.require_sites("low-rank adapters")
        known = {name: layer for name, layer in self._blocks[0].named_modules() if isinstance(layer, nn.Linear)}
        for name in names:
            if name not in known:
                raise UnknownName("linear layer", name, known, where=f"the blocks of '{self.name}'")
        return {name: (known[name].in_features, known[name].out_features) for name in names}

    def changed(self, images: Tensor, names: Sequence[str], change: Change) -> Tensor:
        hooks = [self._hook(block, name, change) for block in range(self.blocks) for name in names]
        try:
            return self.features(images)
        finally:
            for hook in hooks:
                hook.remove()

    def fresh(self) -> nn.Module:
        tensors = [*self.network.parameters(), *self.network.buffers()]
        own = {
            id(tensor): nn.Parameter(tensor.data, requires_grad=False) if isinstance(tensor, nn.Parameter) else tensor
            for tensor in tensors
        }
        return _Trunk(copy.deepcopy(self.network, own))

    def parameters(self) -> dict[str, Tensor]:
        return dict(self.network.named_parameters())

    def with_parameters(self, parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        return self.from_pixels(parameters, self.pixels(images))

    def from_pixels(self, parameters: dict[str, Tensor], pixels: Tensor) -> Tensor:
        self.passes += len(pixels)
        shim = _Features(self.network)
        renamed = {f"network.{name}": value for name, value in parameters.items()}
        return torch.func.functional_call(shim, renamed, ((pixels - self._mean) / self._std,))

    def _hook(self, block: int, name: str, change: Change) -> RemovableHandle:
        layer = self._blocks[block].get_submodule(name)
        return layer.register_forward_hook(lambda _, inputs, y: change(name, block, inputs[0], y))

    @property
    def _pooled_tokens(self) -> int | None:
        """How many leading tokens the pooled feature reads; None for all of them."""
        net: Any = self.network
        return int(net.num_prefix_tokens) if net.global_pool == "token" else None

    def _frozen(self, block: int, x: Tensor, tokens: int | None = None) -> Prefix:
        """One timm block without adapter: the stream h after attention, and the block's output, of the first tokens."""
        b: Any = self._blocks[block]
        h = x + b.drop_path1(b.ls1(b.attn(b.norm1(x))))
        read = h[:, :tokens]
        return h, read + b.drop_path2(b.ls2(b.mlp(b.norm2(read))))


class _Features(nn.Module):
    """timm's own forward pass up to the features, as one module."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return _pooled(self.network, x)


class _Trunk(nn.Module):
    """A vision transformer from the stream that enters block 0 to the features."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        net: Any = self.network
        return net.forward_head(net.norm(net.blocks(x)), pre_logits=True)


def _pooled(network: Any, x: Tensor) -> Tensor:
    return network.forward_head(network.forward_features(x), pre_logits=True)


def _tokens(network: Any) -> int:
    return int(network.patch_embed.num_patches + network.num_prefix_tokens)


def _has_sites(network: nn.Module) -> bool:
    return isinstance(network, VisionTransformer) and all(type(block) is Block for block in network.blocks)
