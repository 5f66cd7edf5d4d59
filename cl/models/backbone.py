"""Frozen networks: their normalisation, their digest, and the sites where adapters attach.

`Backbone` is the small protocol that strategies see; `TimmBackbone` is its implementation over any timm network. Vision
transformers of pre-norm blocks have sites; other networks give features only.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import timm
import torch
from safetensors.torch import load_file
from timm.data.config import resolve_data_config
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from cl.code import code_digest
from cl.data.stream import Samples
from cl.digests import digest_json, digest_tensors
from cl.errors import BadInput, UnknownName, first_line, shown
from cl.progress import track
from cl.registry import imported
from cl.seeds import Seeds

# Every frozen pass runs in this one shape, padded with zeros: then a row's bits do not depend on its neighbours.
BATCH = 50

Attach = Callable[[int, Tensor], Tensor]
Change = Callable[[str, int, Tensor, Tensor], Tensor]
Prefix = tuple[Tensor, Tensor]


class Backbone(Protocol):
    """A frozen network.

    digest: of weights, preprocessing and code. dim: features of one image. blocks: transformer blocks, 0 without sites.
    network: its modules, to be looked at and not changed.
    passes: images run so far; one that ran through some of the blocks counts as their share.
    """

    name: str
    digest: str
    dim: int
    blocks: int
    tokens: int
    device: torch.device
    passes: float
    network: nn.Module

    def require_sites(self, what: str) -> tuple[int, int]:
        """(blocks, width) of the adapter sites. Raises BadInput naming `what` if the network has none."""

    def prepare(self, images: Tensor) -> Tensor:
        """Raw uint8 images `(n, 3, height, width)` as the network's input, float32 on its device."""

    def features(self, images: Tensor, attach: Attach | None = None) -> Tensor:
        """Features `(n, dim)` of raw images, with an adapter's branch added to every block if given."""

    def enter(self, images: Tensor) -> Tensor:
        """The stream `(n, tokens, dim)` that enters block 0."""

    def through(self, x: Tensor, attach: Attach, start: int, stop: int) -> Tensor:
        """The stream that enters block `stop`, from the one that enters `start`; an adapter's branch in each block."""

    def site(self, block: int, x: Tensor) -> Prefix:
        """What no adapter of `block` or above changes: (stream after its attention, output of the frozen block)."""

    def finish(self, prefix: Prefix, attach: Attach, first: int = 0) -> Tensor:
        """Features `(n, dim)` from the site of block `first`, the adapter's branch added there and in all blocks above.

        What the pooled feature does not depend on is left out: most of the last block where the class token is pooled.
        """

    def linears(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of linear layers that every block has, by name, such as `attn.qkv`. Raises BadInput."""

    def changed(self, images: Tensor, names: Sequence[str], change: Change) -> Tensor:
        """Features `(n, dim)` of raw images, with `change(name, block, x, y)` in place of the output y of each of these
        linear layers; x is its input, `(n, tokens, inputs)`."""

    def fresh(self) -> nn.Module:
        """A module tree of its own on the same tensors, for code that edits modules: from the stream that enters block
        0 to features. Replacing its parameters leaves the backbone as it is; writing into them does not."""

    def parameters(self) -> dict[str, Tensor]:
        """The frozen weights by name; read-only."""

    def with_parameters(self, parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        """Features `(n, dim)` of raw images with some weights replaced."""

    def pixels(self, images: Tensor) -> Tensor:
        """Raw images at the network's size, float32 `(n, 3, side, side)` in [0, 1] on its device, not normalised."""

    def from_pixels(self, parameters: dict[str, Tensor], pixels: Tensor) -> Tensor:
        """Features `(n, dim)` of what `pixels` gives, with some weights replaced."""


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


def batches(samples: Samples, label: str) -> Iterator[tuple[int, Tensor]]:
    """Raw images in id order, in the one padded shape: (real rows, uint8 `(BATCH, 3, height, width)`)."""
    starts = range(0, len(samples), BATCH)
    for start in track(starts, label) if len(starts) > 1 else starts:
        images = samples.images(slice(start, start + BATCH))
        padding = images.new_zeros((BATCH - len(images), *images.shape[1:]))
        yield len(images), torch.cat([images, padding])


@torch.no_grad()
def rows(backbone: Backbone, padded: Iterable[tuple[int, Tensor]], function: Callable[[Tensor], Tensor]) -> Tensor:
    """`function` over padded batches: its real rows, joined, on the CPU."""
    found = []
    for real, inputs in padded:
        with real_passes(backbone, real):
            found.append(function(inputs)[:real].cpu())
    return torch.cat(found)


@contextmanager
def real_passes(backbone: Backbone, real: int) -> Iterator[None]:
    """Of the padded batches that run inside, count the `real` rows only."""
    before = backbone.passes
    yield
    backbone.passes -= (backbone.passes - before) * (BATCH - real) / BATCH


def on_device(tensors: Mapping[str, Tensor], backbone: Backbone) -> dict[str, Tensor]:
    """The tensors where the backbone runs."""
    return {name: value.to(backbone.device) for name, value in tensors.items()}


def embed(backbone: Backbone, samples: Samples, attach: Attach | None = None) -> Tensor:
    """Features `(n, dim)` float32 of a shard, on the CPU, in id order."""
    return rows(backbone, batches(samples, "features"), lambda images: backbone.features(images, attach))


WEIGHTS = resources.files("cl") / "weights"


def shipped() -> dict[str, dict[str, Any]]:
    """The backbones that come with the package: name -> card."""
    cards = [entry for entry in WEIGHTS.iterdir() if entry.name.endswith(".json")]
    return {card.name.removesuffix(".json"): json.loads(card.read_text(encoding="utf-8")) for card in cards}


def load_backbone(name: str = "glyph-vit", device: str = "cpu") -> TimmBackbone:
    """The backbone called `name`: a shipped one, a timm name with its pretrained weights, `random:TIMM-NAME`, a TOML
    file (see `cl.models.loading`), or `module:factory`, a function of the device that returns a `TimmBackbone`.

    Raises UnknownName, or BadInput where the weights cannot be had or the network gives no features of an image.
    """
    return _tried(_loaded(name, device))


def _loaded(name: str, device: str) -> TimmBackbone:
    if name.endswith(".toml"):
        from cl.models.loading import load_described

        return load_described(Path(name), device)
    cards = shipped()
    if name in cards:
        return _load_shipped(name, cards[name], device)
    if ":" in name and not name.startswith("random:"):
        return _load_factory(name, device)
    plain = name.removeprefix("random:")
    if not timm.is_model(plain.partition(".")[0]):
        raise UnknownName("backbone", name, [*cards, *timm.list_models()])
    return _load_timm(name, plain, is_random=plain != name, device=device)


def _tried(backbone: TimmBackbone) -> TimmBackbone:
    """The backbone, once it has shown that it makes one row of features of an image."""
    size = backbone.image_size
    what = f"backbone '{shown(backbone.name)}' makes no features of an image of {size} x {size} pixels"
    try:
        with torch.no_grad():
            found = backbone.features(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    except Exception as error:  # whatever the network makes of an input that it was not made for
        raise BadInput(f"{what} ({first_line(error)}); correct its name or [kwargs]") from error
    if not isinstance(found, Tensor) or tuple(found.shape) != (1, backbone.dim):
        raise BadInput(f"{what}: not one row of {backbone.dim}; correct its name or [kwargs]")
    if not found.isfinite().all():
        raise BadInput(f"{what}: they are NaN or infinite; get its weights anew")
    backbone.passes = 0.0
    return backbone


def _load_shipped(name: str, card: dict[str, Any], device: str) -> TimmBackbone:
    arguments = card["arguments"]
    network = VisionTransformer(**arguments)
    with resources.as_file(WEIGHTS / f"{name}.safetensors") as path:
        network.load_state_dict(load_file(path), strict=True)
    return TimmBackbone(name, network, arguments["img_size"], card["mean"], card["std"], device)


def _load_factory(name: str, device: str) -> TimmBackbone:
    factory = imported(name, "backbone")
    try:
        made = factory(device)
    except TypeError as error:
        raise BadInput(f"'{shown(name)}' is no function of the device ({first_line(error)}); check it") from error
    if not isinstance(made, TimmBackbone):
        raise BadInput(f"'{shown(name)}' made a {type(made).__name__}, not a TimmBackbone; check the factory")
    return made


def _load_timm(name: str, plain: str, is_random: bool, device: str) -> TimmBackbone:
    network = _random(plain) if is_random else pretrained(plain)
    data = resolve_data_config({}, model=network)
    return TimmBackbone(name, network, int(data["input_size"][-1]), data["mean"], data["std"], device, plain)


def pretrained(plain: str, **arguments: Any) -> nn.Module:
    """timm's network of this name with its pretrained weights, without classifier. Raises BadInput."""
    try:
        with _no_logging():
            return timm.create_model(plain, pretrained=True, num_classes=0, **arguments)
    except Exception as error:  # hubs fail in many ways: no network, no such weights, no such tag
        mend = f"fetch them into timm's cache first, give a checkpoint, or use random:{plain} for random weights"
        raise BadInput(f"no pretrained weights for '{plain}' ({first_line(error)}); {mend}") from error


@contextmanager
def _no_logging() -> Iterator[None]:
    """Hubs log every failed attempt; the one line that follows says it all."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _random(plain: str) -> nn.Module:
    try:
        with Seeds(f"random weights|{plain}").forked("init"):
            return timm.create_model(plain, pretrained=False, num_classes=0)
    except Exception as error:  # timm knows the family, but not this tag
        raise BadInput(f"timm cannot make '{plain}': {first_line(error)}") from error
