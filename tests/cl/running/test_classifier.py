"""A finished run's model, opened from its manifest: the bits of learning it again, without data, without a trace."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import cl
from cl.data.samples import Samples
from cl.deletion.execution import execute
from cl.deletion.forget_set import Selector
from cl.errors import BadInput, DeletionError, PalimpsestError, StoreError
from cl.home.gc import collect
from cl.home.layout import MARKER
from cl.home.results import Result
from cl.home.runs import Runs
from cl.home.store import Record, Store, Tensors
from cl.models.backbone import embed
from cl.numerics import Numerics
from cl.running.reopening import open_run
from cl.running.run import run
from cl.testing import tiny_backbone, tiny_stream
from tests.homes import files, key_of
from tests.image_folder import folder, toml
from tests.palimpsest import palimpsest
from tests.tiny import BACKBONE, run_tiny

PIXELS = tiny_stream().tasks[1].test.images()  # (n, 3, 32, 32)


def driven_again(home: Path, made: str, pixels: Tensor) -> Tensor:
    """The scores of the run's model, learnt again."""
    session = open_run(home, made)
    model = session.drive().model
    visiting = Samples.visiting(pixels.permute(0, 2, 3, 1).numpy())
    return session.strategy().scores(model, visiting).open()["scores"]


def no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every stream is gone."""

    def gone(*_: object, **__: object) -> None:
        raise AssertionError("a stream was resolved")

    monkeypatch.setattr("cl.running.reopening.resolve_stream", gone)


def check(home: Path, made: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening the run gives what driving it gives, from the entries of its manifest alone."""
    expected = driven_again(home, made.id, PIXELS)
    collect(Store(home), caches=True)
    no_stream(monkeypatch)
    before = files(home)
    opened = cl.open(made.id, home)
    assert torch.equal(opened.scores(PIXELS), expected)
    assert torch.equal(opened.scores(PIXELS), expected)
    assert opened.components.items() <= made.figures["components"].items() and opened.components
    assert files(home) == before


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ease", {"complete": "oracle", "exemplars": True}),
        ("ease", {"complete": "ptm", "beta": 0.5, "shards": 2}),
        ("ease", {"adapt": "first", "synthesis": "once"}),
        ("adapterswap", {"head": "ncm", "far": 0.05, "covariance": "full"}),
        ("adapterswap", {"scope": "global", "mixing": "weights", "top": "all"}),
        ("mos", {"one_adapter": True}),
        ("joint", {"when": "last", "tune": "full"}),
        ("ssiat", {"head": "lda", "restart": 2}),
        ("sema", {"order": "batch"}),
    ],
)
def test_an_opened_model_scores_as_one_that_is_driven_again(
    name: str, settings: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(tmp_path, run_tiny(tmp_path, name, **settings), monkeypatch)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one run of `ease`, to look at or to copy."""
    place = tmp_path_factory.mktemp("opened") / "home"
    run_tiny(place)
    return place


@pytest.fixture
def copied(home: Path, tmp_path: Path) -> Path:
    """A copy of it at another place."""
    return Path(shutil.copytree(home, tmp_path / "copied"))


def only(home: Path) -> str:
    (found,) = Runs(Store(home)).ids()
    return found


def test_a_copied_home_is_enough_without_images_in_another_process(tmp_path: Path) -> None:
    place = folder(tmp_path / "data")
    made = run(
        str(toml(place)), "ease", backbone=BACKBONE, settings={"epochs": 1}, home=tmp_path / "home", device="cpu"
    )
    picture = tmp_path / "picture.png"
    shutil.copy(place / "images" / "test" / "owl" / "0.png", picture)
    expected = cl.open(made.id, tmp_path / "home").scores(picture)
    shutil.move(tmp_path / "home", tmp_path / "elsewhere")
    shutil.rmtree(place)
    words = ["predict", made.id, str(picture), "--home", str(tmp_path / "elsewhere"), "--json"]
    found = subprocess.run(
        [sys.executable, "-c", "import cl.cli; cl.cli.main()", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    (row,) = json.loads(found.stdout)
    assert row["score"] == float(expected.max()) and found.stderr == ""


def test_what_is_printed_of_a_finished_run_needs_no_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, home = folder(tmp_path / "data"), tmp_path / "home"
    made = run(str(toml(place)), "simplecil", backbone=BACKBONE, home=home, device="cpu").id
    component = next(iter(cl.open(made, home).components))
    shutil.rmtree(place)
    for words in (
        ["results"],
        ["show", made],
        ["show", made, "--growth"],
        ["show", made, "--lineage", component],
        ["store", "verify"],
    ):
        code, out, err = palimpsest(capsys, monkeypatch, *words, "--home", str(home))
        assert (code, err) == (0, "") and out, words


def test_every_form_of_an_image_is_the_same_image(home: Path, tmp_path: Path) -> None:
    opened = cl.open(only(home), home)
    whole, path = PIXELS[:2].permute(0, 2, 3, 1).numpy(), tmp_path / "0.png"  # (2, 32, 32, 3)
    Image.fromarray(whole[0]).save(path)
    expected = opened.scores(PIXELS[:2])
    assert expected.shape == (2, len(opened.classes))
    for several in (whole, list(whole), [Image.fromarray(row) for row in whole], list(PIXELS[:2])):
        assert torch.equal(opened.scores(several), expected)
    mixed = [[path, PIXELS[1]], (whole[0], Image.fromarray(whole[1])), [PIXELS[0], whole[1]]]
    assert all(torch.equal(opened.scores(both), expected) for both in mixed)
    alone = opened.scores(path)  # a product of one row may differ from one of two in the last digit
    assert torch.allclose(alone, expected[:1], rtol=1e-5)
    for one in (str(path), Image.open(path), whole[0], PIXELS[0], [path], (PIXELS[0],)):
        assert torch.equal(opened.scores(one), alone)
    grey = whole[..., 0]  # (2, 32, 32)
    expected = opened.scores(np.repeat(grey[..., None], 3, axis=-1))
    for several in (grey, list(grey), [Image.fromarray(row) for row in grey]):
        assert torch.equal(opened.scores(several), expected)


def test_images_of_another_size_are_resized_as_files_are(home: Path, tmp_path: Path) -> None:
    opened = cl.open(only(home), home)
    wide = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert torch.equal(opened.scores(wide), opened.scores(tmp_path / "wide.png"))


BAD: list[tuple[Any, str]] = [
    (np.zeros((32, 32, 3)), "must be uint8, from 0 to 255, not float64"),
    (np.full((32, 32), np.nan, np.float32), "not float32 with NaN"),
    (torch.zeros(3, 32, 32), "must be uint8"),
    (torch.full((3, 32, 32), float("nan"), dtype=torch.bfloat16), "with NaN"),
    (np.zeros((32, 32, 4), np.uint8), r"shape \(32, 32, 4\)"),
    (np.zeros((2, 0, 32), np.uint8), r"shape \(2, 0, 32\)"),
    (np.zeros(32, np.uint8), r"shape \(32,\)"),
    (torch.zeros(32, 32, 3, dtype=torch.uint8), r"shape \(32, 32, 3\)"),
    (torch.zeros(1, 1, 3, 32, 32, dtype=torch.uint8), "shape"),
    (Image.new("F", (32, 32)), "floating-point"),
    ([], "there is no image"),
    (7, "a int is no image"),
    (["nowhere.png"], "nowhere.png cannot be read"),
]


@pytest.mark.parametrize(("images", "told"), BAD)
def test_what_is_no_image_is_refused_in_one_line(home: Path, images: Any, told: str) -> None:
    with pytest.raises(BadInput, match=told) as refused:
        cl.open(only(home), home).predict(images)
    assert "\n" not in str(refused.value)


def test_what_is_said_of_the_model(home: Path) -> None:
    opened = cl.open(only(home)[:6], home)
    stream = tiny_stream()
    assert opened.classes == stream.classes and [task.id for task in opened.tasks] == [task.id for task in stream.tasks]
    with pytest.raises(PalimpsestError, match="sealed"):
        _ = opened.tasks[0].train
    scores = opened.scores(PIXELS)
    assert opened.predict(PIXELS) == [opened.classes[int(row.argmax())] for row in scores]
    p = opened.predict_proba(PIXELS)
    assert p.dtype == torch.float64 and torch.allclose(p.sum(1), torch.ones(len(p), dtype=torch.float64))
    assert torch.equal(p.argmax(1), scores.argmax(1))
    assert torch.equal(opened.embed(PIXELS), embed(tiny_backbone(), stream.tasks[1].test))
    assert opened.warnings == ()


def test_only_the_entries_of_the_live_manifest_are_read(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = only(copied)
    run_tiny(copied, seed=1)
    live = Runs(Store(copied)).served(made)
    entries = {entry.key for entry in live.entries}
    read: list[str] = []
    for name in ("record", "load"):
        monkeypatch.setattr(Store, name, noted(getattr(Store, name), read))
    cl.open(made, copied).predict(PIXELS)
    assert set(read) <= entries and read


def noted(method: Callable[..., Any], read: list[str]) -> Callable[..., Any]:
    """A method of the store that tells which component it was asked for."""

    def called(store: Store, what: str | Record, *rest: Any) -> Record | Tensors:
        read.append(what if isinstance(what, str) else what.key)
        return method(store, what, *rest)

    return called


def test_a_home_that_cannot_be_written_is_enough(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    for place in ("cl.home.store.write_atomic", "cl.home.store.FileLock", "cl.home.store.os.utime"):
        monkeypatch.setattr(place, refused)
    assert cl.open(only(copied), copied).predict(PIXELS)


def test_an_open_model_notices_a_deletion(copied: Path) -> None:
    made = only(copied)
    opened = cl.open(made, copied)
    before = opened.scores(PIXELS)
    outcome = execute(copied, made, [Selector("sample", "t1/c0/1")])
    with pytest.raises(DeletionError, match="changed since it was opened"):
        opened.predict(PIXELS)
    again = cl.open(made, copied)
    assert not torch.equal(again.scores(PIXELS), before)
    assert again.components.items() <= outcome.components_after.items()


def test_a_stale_run_is_built_again_first(copied: Path) -> None:
    made, other = only(copied), run_tiny(copied, "simplecil").id
    execute(copied, made, [Selector("sample", "t1/c0/1")])
    assert Runs(Store(copied)).stale(other)
    assert cl.open(other, copied).predict(PIXELS) and Runs(Store(copied)).stale(other) is None


@pytest.mark.parametrize("damage", ["blob", "bytes", "record", "checksum"])
def test_a_damaged_part_is_one_line_with_the_command_that_mends_it(copied: Path, damage: str) -> None:
    made = only(copied)
    key = key_of(copied, "t1/adapter")
    record, blob = (copied / "store" / key[:2] / f"{key}.{suffix}" for suffix in ("json", "safetensors"))
    place = record if damage in ("record", "checksum") else blob
    content = bytearray(place.read_bytes())
    content[-8 if damage == "bytes" else 20] ^= 1
    place.unlink()
    if damage in ("bytes", "checksum"):
        place.write_bytes(content)
    before = files(copied)
    with pytest.raises(StoreError, match=r"'t1/adapter' is missing or damaged.* palimpsest run .*--home") as told:
        cl.open(made, copied).predict(PIXELS)
    assert "\n" not in str(told.value) and files(copied) == before


def test_what_is_no_home_of_ours_is_left_as_it_is(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"{MARKER} is missing"):
        cl.open("3fa9", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    (copied / MARKER).write_text('{"format":99}')
    with pytest.raises(StoreError, match="format 99"):
        cl.open("3fa9", copied)


def test_under_other_numerics_it_answers_and_says_so(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cl.running.classifier.configure", lambda *_: Numerics("cpu", 1, torch="99.0"))
    opened = cl.open(only(copied), copied)
    (told,) = opened.warnings
    assert f"torch {torch.__version__}, not 99.0" in told and len(opened.predict(PIXELS)) == len(PIXELS)
    Image.fromarray(PIXELS[0].permute(1, 2, 0).numpy()).save(tmp_path / "0.png")
    words = ("predict", only(copied), str(tmp_path / "0.png"), "--home", str(copied), "--json")
    code, out, err = palimpsest(capsys, monkeypatch, *words)
    assert code == 0 and json.loads(out) and err == f"palimpsest: {told}\n"


def test_nothing_warns_on_standard_error(home: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cl.open(only(home), home).predict(np.asarray(Image.new("L", (9, 9))))  # an array that cannot be written


def test_a_users_model_is_the_users_run(tmp_path: Path) -> None:
    made = run_tiny(tmp_path, "simplecil").id
    own = run_tiny(tmp_path, "simplecil", user="alice").id
    opened = cl.open(made, tmp_path)
    alice = opened.as_user("alice")
    assert alice.user == "alice" and alice.classes == opened.classes
    assert torch.equal(alice.scores(PIXELS), cl.open(own, tmp_path).scores(PIXELS))
    assert not torch.equal(alice.scores(PIXELS), opened.scores(PIXELS))
    nobody = opened.as_user("dave")
    assert nobody.abstains and nobody.classes == () and nobody.predict(PIXELS) == [None] * len(PIXELS)
    assert nobody.predict_proba(PIXELS).shape == (len(PIXELS), 0)


def test_a_users_model_that_needs_training_names_the_command(tmp_path: Path) -> None:
    opened = cl.open(run_tiny(tmp_path).id, tmp_path)
    with pytest.raises(BadInput, match=r"palimpsest run .*--as alice"):
        opened.as_user("alice")
