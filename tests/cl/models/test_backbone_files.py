"""Backbones from TOML files, and checkpoints that are wrong."""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import cl
from cl.errors import BadInput, PalimpsestError
from cl.models.loading import load_backbone
from cl.models.vit import TimmBackbone
from cl.seeds import Seeds
from cl.testing import tiny_backbone, tiny_stream
from tests.backbone_file import KWARGS, described


def weights() -> dict[str, Tensor]:
    return tiny_backbone().network.state_dict()


def test_weights_and_scaling_are_the_files(tmp_path: Path) -> None:
    backbone = load_backbone(described(tmp_path))
    assert backbone.name == "mine" and backbone.image_size == 32
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert backbone.prepare(images).equal(images / 255)
    assert backbone.features(images).equal(backbone.network(images / 255))
    same = load_backbone(described(tmp_path, preprocess=None, mean="[0.5, 0.5, 0.5]", std="[0.5, 0.5, 0.5]"))
    assert same.features(images).equal(tiny_backbone().features(images))


def test_pth_files_and_wrapped_ones(tmp_path: Path) -> None:
    expected = load_backbone(described(tmp_path)).digest
    for content in (
        weights(),
        {"state_dict": weights(), "epoch": 3},
        {"model": weights()},
    ):
        torch.save(content, tmp_path / "weights.pth")
        assert load_backbone(described(tmp_path, checkpoint='"weights.pth"')).digest == expected


def test_a_classifier_that_is_not_used_is_left_out(tmp_path: Path) -> None:
    expected = load_backbone(described(tmp_path)).digest
    save_file(
        {**weights(), "head.weight": torch.zeros(5, 32), "head.bias": torch.zeros(5)},
        tmp_path / "c.safetensors",
    )
    assert load_backbone(described(tmp_path, checkpoint='"c.safetensors"')).digest == expected


def test_what_the_shapes_do_not_show_is_in_the_digest(tmp_path: Path) -> None:
    first = load_backbone(described(tmp_path))
    assert load_backbone(described(tmp_path, {**KWARGS, "num_heads": 4})).digest != first.digest
    assert (
        load_backbone(described(tmp_path, preprocess=None, mean="[0, 0, 0.5]", std="[1, 1, 1]")).digest != first.digest
    )


def test_a_timm_name_with_a_checkpoint(tmp_path: Path) -> None:
    with Seeds("test").forked("network"):
        network = timm.create_model("resnet10t", num_classes=3)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    backbone = load_backbone(described(tmp_path, {}, timm='"resnet10t"', preprocess=None))
    assert backbone.mean == (0.485, 0.456, 0.406) and backbone.dim == 512


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [("resnet10t", {}), ("efficientnet_lite0", {}), ("mobilenetv3_small_050", {}), ("resmlp_12_224", {"img_size": 32})],
)
def test_other_nets_work_without_adapters(tmp_path: Path, name: str, kwargs: dict[str, int]) -> None:
    with Seeds("test").forked("network"):
        network = timm.create_model(name, num_classes=0, **kwargs)
    backbone = TimmBackbone(name, network, 32, (0.5,) * 3, (0.5,) * 3)
    stream = tiny_stream(tasks=2, train=2, test=1)
    result = cl.run(stream, "simplecil", backbone=backbone, home=tmp_path)
    assert len(result.figures["curve"]) == 2
    with pytest.raises(BadInput, match=f"'{name}' has no sites for bottleneck adapters; use simplecil"):
        cl.run(stream, "ease", backbone=backbone, home=tmp_path)


def test_the_run_remembers_where_it_came_from(tmp_path: Path) -> None:
    path = described(tmp_path)
    result = cl.run(tiny_stream(tasks=1), "simplecil", backbone=path, home=tmp_path / "home")
    source = json.loads((tmp_path / "home" / "runs" / result.id / "source.json").read_bytes())
    assert load_backbone(source["backbone"]).name == result.figures["backbone"] == "mine"


@pytest.mark.parametrize(
    ("changes", "kwargs", "message"),
    [
        ({"timm": None}, KWARGS, "has no 'timm'"),
        ({"timm": '"vit_base_patch16_24"', "preprocess": None}, {}, "unknown timm network .*; did you mean vit_base"),
        ({"checkpont": '"x"'}, KWARGS, "unknown key 'checkpont' in .*; did you mean checkpoint"),
        ({"checkpoint": None}, KWARGS, 'has no weights of its own; add checkpoint = "FILE"'),
        ({"checkpoint": '"none.safetensors"'}, KWARGS, "none.safetensors is missing"),
        ({"checkpoint": '"."'}, KWARGS, "is missing"),
        ({"preprocess": None}, KWARGS, "say how pixels are scaled"),
        ({"preprocess": '"raw"'}, KWARGS, "preprocess: .*'raw01'"),
        ({"mean": "[0.5, 0.5, 0.5]"}, KWARGS, "mean and std belong together"),
        ({"mean": "[0, 0, 0]", "std": "[1, 1, 1]"}, KWARGS, "keep one of them"),
        ({"mean": "[0, 0]", "std": "[1, 1, 1]", "preprocess": None}, KWARGS, "mean: .*at least 3"),
        ({"mean": "[0, 0, 0]", "std": "[1, 0, 1]", "preprocess": None}, KWARGS, "std.1: .*greater than 0"),
        ({}, {**KWARGS, "embed_dim": 64}, "'.*' has shape .*, the network's is .*; correct timm or"),
        ({}, {**KWARGS, "depth": 3}, r"lacks 'blocks\.2\..*' and 11 more; it must hold timm's key names"),
        ({}, {**KWARGS, "depth": 1}, r"unknown key, 'blocks\.1\..*' and 11 more"),
        ({}, {**KWARGS, "num_head": 2}, "timm cannot make 'VisionTransformer' of these kwargs: .*num_head"),
        ({}, {**KWARGS, "num_heads": 5}, "timm cannot make 'VisionTransformer' of these kwargs"),
        ({}, {**KWARGS, "embed_dim": 0}, "timm cannot make 'VisionTransformer' of these kwargs"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_fault_in_the_file_is_one_line(
    tmp_path: Path, changes: dict[str, str | None], kwargs: dict[str, Any], message: str
) -> None:
    path = described(tmp_path, kwargs, **changes)
    with pytest.raises(PalimpsestError, match=message) as caught:
        load_backbone(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"img_size": "[32, 32]"}, r"'mine' makes no features of an image of 224 x 224 pixels \(.*\); correct"),
        ({"in_chans": 1}, "makes no features of an image of 32 x 32 pixels"),
        ({"global_pool": '""'}, "not one row of 32; correct its name"),
    ],
)
def test_a_network_that_gives_no_features_is_one_line(tmp_path: Path, kwargs: dict[str, Any], message: str) -> None:
    given = {**KWARGS, **kwargs}
    plain = {name: json.loads(value) if isinstance(value, str) else value for name, value in given.items()}
    save_file(VisionTransformer(num_classes=0, **plain).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(BadInput, match=message) as caught:
        load_backbone(described(tmp_path, given))
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_numbers_are_one_line(tmp_path: Path) -> None:
    save_file(
        {**weights(), "norm.weight": torch.full((32,), torch.nan)},
        tmp_path / "weights.safetensors",
    )
    with pytest.raises(BadInput, match="NaN or infinite; get its weights anew"):
        load_backbone(described(tmp_path))


class _Runs:
    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


def _truncated(path: Path) -> None:
    save_file(weights(), path)
    path.write_bytes(path.read_bytes()[:-100])


def _absurd_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


def _absurd_tensor(path: Path) -> None:
    header = json.dumps({"norm.weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def _truncated_pth(path: Path) -> None:
    torch.save(weights(), path)
    path.write_bytes(path.read_bytes()[:-3000])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("w.safetensors", _truncated, "damaged or truncated"),
        ("w.safetensors", _absurd_header, "damaged or truncated"),
        ("w.safetensors", _absurd_tensor, "damaged or truncated"),
        ("w.safetensors", lambda path: path.write_bytes(b""), "damaged or truncated"),
        ("w.pth", _truncated_pth, "damaged, truncated or no checkpoint"),
        ("w.pth", lambda path: path.write_bytes(b""), "damaged, truncated or no checkpoint"),
        ("w.pth", lambda path: path.write_text("hello"), "checkpoint"),
        ("w.pth", lambda path: torch.save([1, 2], path), "no table of weights"),
        ("w.pth", lambda path: torch.save({"a": 1}, path), "no table of weights"),
        ("w.pth", lambda path: torch.save(_Runs(path.parent / "pwned"), path), "nothing in it was run"),
        ("w.pth", lambda path: path.write_bytes(pickle.dumps(_Runs(path.parent / "pwned"))), "nothing in it was run"),
    ],
)
def test_a_fault_in_the_checkpoint_is_one_line(
    tmp_path: Path, name: str, damage: Callable[[Path], object], message: str
) -> None:
    damage(tmp_path / name)
    with pytest.raises(PalimpsestError, match=message) as caught:
        load_backbone(described(tmp_path, checkpoint=f'"{name}"'))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()
