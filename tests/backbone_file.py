"""A backbone's TOML file beside its weights: those of the tiny backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from cl.models.vit import TimmBackbone
from cl.testing import tiny_backbone

KWARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
PLAIN = {"timm": '"VisionTransformer"', "checkpoint": '"weights.safetensors"', "preprocess": '"raw01"'}
WEIGHTS = "weights.safetensors"


def described(place: Path, kwargs: dict[str, Any] = KWARGS, **changes: str | None) -> str:
    """The path of mine.toml of PLAIN with changes; None leaves a key out."""
    lines = [f"{key} = {value}" for key, value in {**PLAIN, **changes}.items() if value is not None]
    lines += ["[kwargs]", *(f"{key} = {value}" for key, value in kwargs.items())]
    path = place / "mine.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    if not (place / WEIGHTS).exists():
        save_weights(place, tiny_backbone())
    return str(path)


def save_weights(place: Path, backbone: TimmBackbone) -> None:
    """What mine.toml has as its checkpoint."""
    save_file(backbone.network.state_dict(), place / WEIGHTS)
