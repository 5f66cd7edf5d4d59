"""Streams from a TOML file and a folder of images."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cl
from cl.data.recipes import resolve_stream
from cl.data.stream import Recipe
from cl.deletion.forget_set import Selector
from cl.deletion.plan import plan
from cl.errors import PalimpsestError
from cl.running.reopening import open_run
from tests.homes import files
from tests.image_folder import CLASSES, folder, listing, toml
from tests.palimpsest import palimpsest
from tests.tiny import BACKBONE, run_tiny


def table(place: Path, text: str) -> Path:
    """my-stream.toml whose samples.csv holds `text`."""
    (place / "samples.csv").write_text(text, encoding="utf-8")
    return toml(place, samples='"samples.csv"', tasks="[1, 1]", classes='["cat", "owl"]')


def test_the_file_says_order_and_tasks(tmp_path: Path) -> None:
    stream = resolve_stream(toml(folder(tmp_path)))
    assert stream.name == "my-stream"
    assert [task.classes for task in stream.tasks] == [("owl", "cat"), ("newt", "ibex")]
    assert stream.tasks[0].train.ids[0] == "train/cat/0.png" and len(stream.tasks[0].train) == 12
    assert stream.tasks[0].test.images().shape == (6, 3, 16, 16)


def test_orders_and_sizes_in_other_words(tmp_path: Path) -> None:
    folder(tmp_path)
    seeded = resolve_stream(toml(tmp_path, classes=None, class_order_seed="1993", tasks=None, first="1", next="3"))
    expected = np.random.RandomState(1993).permutation(4)
    assert list(seeded.classes) == [sorted(CLASSES)[place] for place in expected]
    assert [len(task.classes) for task in seeded.tasks] == [1, 3]
    assert resolve_stream(toml(tmp_path, classes=None)).classes == tuple(sorted(CLASSES))


def test_a_table_of_samples(tmp_path: Path) -> None:
    folder(tmp_path)
    lines = ["sample,class,split,subject,labels"]
    for label, kind in (("cat", "mammal"), ("owl", "bird")):
        lines += [f"train/{label}/0.png,{kind},train,ann,", f'"test/{label}/0.png",{kind},test,ben,site a; b']
    (tmp_path / "samples.csv").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    stream = resolve_stream(
        toml(tmp_path, samples='"samples.csv"', classes='["mammal", "bird"]', tasks=None, first="1", next="1")
    )
    assert stream.classes == ("mammal", "bird") and stream.ids == {
        f"{split}/{label}/0.png" for split in ("train", "test") for label in ("cat", "owl")
    }
    assert stream.subjects["train/cat/0.png"] == "ann" and stream.access["test/owl/0.png"] == ("b", "site a")


def test_augmentation_is_for_training(tmp_path: Path) -> None:
    stream = resolve_stream(toml(folder(tmp_path), augment='"crop-flip"', augment_scale="[0.2, 1.0]"))
    assert stream.tasks[0].train.augment == "crop-flip 0.2 1.0" and stream.tasks[0].test.augment == "none"
    result = run_tiny(tmp_path / "home", "ease", stream)
    again = run_tiny(tmp_path / "other", "ease", stream)
    assert result.figures["manifest"] == again.figures["manifest"]


def test_names_of_any_letters(tmp_path: Path) -> None:
    odd = ("two words", "línea\nnueva", "猫", "cafe\u0301")
    path = toml(folder(tmp_path, odd), classes=None)
    stream = resolve_stream(path)
    assert set(stream.classes) == {
        "two words",
        "línea\nnueva",
        "猫",
        "caf\u00e9",
    }  # composed, as other systems write it
    result = run_tiny(tmp_path / "home", "simplecil", stream)
    assert result.figures["average_accuracy"] is not None


def test_a_run_does_not_depend_on_where_files_lie(tmp_path: Path) -> None:
    first = toml(folder(tmp_path / "here"))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    results = [
        run_tiny(tmp_path / "home", "ease", resolve_stream(first)),
        run_tiny(tmp_path / "other", "ease", resolve_stream(tmp_path / "there" / first.name)),
    ]
    assert results[0].id == results[1].id
    assert results[0].figures["manifest"] == results[1].figures["manifest"]


def test_a_run_can_be_replayed(tmp_path: Path) -> None:
    stream = resolve_stream(toml(folder(tmp_path)))
    result = run_tiny(tmp_path / "home", "simplecil", stream)
    source = json.loads((tmp_path / "home" / "runs" / result.id / "source.json").read_bytes())
    again = resolve_stream(Recipe(**source["stream"]))
    assert again.resolution() == stream.resolution() and again.recipe == stream.recipe


def test_a_stream_grows(tmp_path: Path) -> None:
    folder(tmp_path)
    small = resolve_stream(toml(tmp_path, tasks="[2]", classes='["owl", "cat"]'))
    before = run_tiny(tmp_path / "home", "ease", small)
    after = run_tiny(tmp_path / "home", "ease", resolve_stream(toml(tmp_path)))
    alone = run_tiny(tmp_path / "alone", "ease", resolve_stream(toml(tmp_path)))
    assert "newt" in small.notes[0]
    assert after.id == before.id and after.figures["manifest"] == alone.figures["manifest"]
    assert after.figures["components_built"] == alone.figures["components_built"] - before.figures["components_built"]
    shared = [name for name in before.figures["components"] if name.startswith("task-00/")]
    assert shared and all(after.figures["components"][name] == before.figures["components"][name] for name in shared)


def test_no_image_is_part_of_a_name(tmp_path: Path) -> None:
    """Who has a run's name and the images that are left cannot find out by it which one was deleted."""
    path = toml(folder(tmp_path))
    before = resolve_stream(path).recipe
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "train" / "cat" / "0.png")
    assert resolve_stream(path).recipe == before


def test_tasks_may_have_names_of_their_own(tmp_path: Path) -> None:
    named = '[{ name = "birds", classes = ["owl"] }, { name = "rest", classes = ["cat", "newt"] }]'
    stream = resolve_stream(toml(folder(tmp_path), tasks=named, classes=None, name='"my pets"'))
    assert [task.id for task in stream.tasks] == ["birds", "rest"] and stream.classes == ("owl", "cat", "newt")
    assert stream.name == "my pets" and "ibex" in stream.notes[0]


def test_a_task_without_classes_keeps_its_place(tmp_path: Path) -> None:
    folder(tmp_path)
    whole, rest = (
        resolve_stream(toml(tmp_path)),
        resolve_stream(toml(tmp_path, tasks="[0, 2]", classes='["newt", "ibex"]')),
    )
    assert [task.id for task in whole.tasks] == ["task-00", "task-01"]
    assert [task.id for task in rest.tasks] == ["task-01"] and rest.tasks[0].classes == whole.tasks[1].classes


def test_one_spelling_for_one_thing(tmp_path: Path) -> None:
    folder(tmp_path)
    lines = ["sample,class,split,subject"]
    lines += [
        "train/cat/0.png,cat ,train,zoe\u0308",
        "train/cat/1.png,cat,train, zo\u00eb ",
        "test/cat/0.png,cat,test,",
    ]
    (tmp_path / "samples.csv").write_text("\n".join(lines), encoding="utf-8")
    stream = resolve_stream(toml(tmp_path, samples='"samples.csv"', tasks="[1]", classes='["cat"]'))
    assert len(stream.tasks[0].train) == 2 and set(stream.subjects.values()) == {"zo\u00eb"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": None}, 'has no kind; add kind = "..."'),
        ({"kind": '"class-incrementl"'}, "unknown stream kind 'class-incrementl'; did you mean class-incremental"),
        ({"clases": "[]"}, "unknown key 'clases' in .*my-stream.toml; did you mean classes"),
        ({"access": "{ polcy = 'any' }"}, "unknown key 'access.polcy' in .*my-stream.toml; did you mean access.policy"),
        ({'"two\\nlines"': "1"}, r"unknown key 'two\\nlines'"),
        ({"image_size": None}, "has no 'image_size'"),
        ({"image_size": "0"}, "image_size: .*greater than or equal to 1"),
        ({"image_size": '"32"'}, "image_size: .*valid integer"),
        ({"image_size": "9" * 5000}, "not valid TOML"),
        ({"tasks": "[2, -1]"}, r"tasks.*greater than or equal to 0"),
        ({"tasks": "[]"}, "tasks is empty"),
        ({"tasks": "[2, 3]"}, "tasks add up to 5 classes, but there are 4"),
        ({"tasks": None}, "say how many classes each task has"),
        ({"tasks": None, "first": "2"}, "say how many classes each task has"),
        ({"first": "2", "next": "2"}, "say how many classes each task has"),
        ({"tasks": None, "first": "1", "next": "2"}, "do not add up to 4 classes"),
        ({"tasks": None, "first": "5", "next": "2"}, "do not add up to 4 classes"),
        ({"classes": '["cat", "owl", "newt", "lynx"]'}, "class 'lynx' has no images"),
        ({"classes": '["cat", "owl", "newt", "newt"]'}, "class 'newt' is listed twice"),
        ({"class_order_seed": "1"}, "keep one of them"),
        ({"class_order_seed": "-1", "classes": None}, "class_order_seed"),
        ({"augment": '"blur"'}, "augment: .*'none' or 'crop-flip'"),
        ({"augment": '"crop-flip"', "augment_scale": "[0.5, 0.1]"}, "smallest, largest"),
        ({"augment": '"crop-flip"', "augment_scale": "[0.5, 2.0]"}, "augment_scale"),
        ({"augment_scale": "[0.1, 0.5]"}, 'needs augment = "crop-flip"'),
        ({"data": '"nowhere"'}, "folder .*nowhere is missing"),
        ({"data": '"\\u0000"'}, "data"),
        ({"samples": '"a\\u0000b"'}, "samples: "),
        ({"samples": '"nowhere.csv"'}, "nowhere.csv cannot be read"),
        ({"deep": "[" * 5000 + "]" * 5000}, "nested too deeply"),
        ({"data": '"images'}, "not valid TOML"),
    ],
)
def test_a_fault_in_the_file_is_one_line(tmp_path: Path, changes: dict[str, str | None], message: str) -> None:
    path = toml(folder(tmp_path), **changes)
    with pytest.raises(PalimpsestError, match=message) as caught:
        resolve_stream(path)
    assert "\n" not in str(caught.value)


def _without_test(place: Path) -> None:
    shutil.rmtree(place / "images" / "test")


def _only_tested(place: Path) -> None:
    shutil.rmtree(place / "images" / "train" / "ibex")


def _emptied(place: Path) -> None:
    for path in (place / "images" / "train" / "ibex").iterdir():
        path.unlink()


def _stray(place: Path) -> None:
    (place / "images" / "train" / "notes.txt").write_text("hello")


def _nested(place: Path) -> None:
    (place / "images" / "train" / "cat" / "more").mkdir()


def _no_image(place: Path) -> None:
    (place / "images" / "train" / "cat" / "0.png").write_text("hello")


def _truncated(place: Path) -> None:
    path = place / "images" / "train" / "cat" / "0.png"
    path.write_bytes(path.read_bytes()[:-40])


def _dangling(place: Path) -> None:
    (place / "images" / "train" / "cat" / "link.png").symlink_to("nowhere")


def _not_utf8(place: Path) -> None:
    shutil.copy(place / "images" / "train" / "cat" / "0.png", os.fsencode(place / "images/train/cat") + b"/\xff.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_test, "images/test cannot be read"),
        (_only_tested, "class 'ibex' has test images but no training images"),
        (_emptied, "class 'ibex' has test images but no training images"),
        (_stray, "notes.txt lies beside the class folders"),
        (_nested, "more is not a file"),
        (_no_image, "0.png is not an image"),
        (_truncated, "0.png is corrupt or truncated"),
        (_dangling, "link.png is not a file"),
        (_not_utf8, "is not UTF-8; rename it"),
    ],
)
def test_a_fault_in_the_folder_is_one_line(tmp_path: Path, damage: object, message: str) -> None:
    path = toml(folder(tmp_path))
    assert callable(damage)
    damage(tmp_path)
    with pytest.raises(PalimpsestError, match=message) as caught:
        resolve_stream(path).prepare()
    assert "\n" not in str(caught.value)


def test_two_tasks_of_one_name_are_one_line(tmp_path: Path) -> None:
    named = '[{ name = "a", classes = ["owl"] }, { name = "a", classes = ["cat"] }]'
    with pytest.raises(PalimpsestError, match="two tasks are called 'a'; give each a name of its own"):
        resolve_stream(toml(folder(tmp_path), tasks=named, classes=None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'sample'"),
        ("sample,class\n", "has no column 'split'"),
        ("sample,class,split,subjet\n", "unknown column 'subjet' in .*; did you mean subject"),
        ("sample,class,split,split\n", "column 'split' twice"),
        ("sample,class,split\n", "class 'cat' has no images"),
        (listing("train/cat/9.png,cat,train"), "line 6: sample 'train/cat/9.png' is not in"),
        (listing("train/cat/0.png,owl,train"), "line 6, as line 2: sample 'train/cat/0.png' is listed twice"),
        (listing("../my-stream.toml,cat,train"), "must be a path inside"),
        (listing("/etc/hosts,cat,train"), "must be a path inside"),
        (listing("a\0b,cat,train"), "must be a path inside"),
        (listing("train/cat/1.png,cat,trian"), "split 'trian' is neither train nor test"),
        (listing("train/cat/1.png,,train"), "has no class"),
        (listing("train/cat/1.png,cat"), "2 cells, but 3 columns"),
        (listing('train/cat/1.png,cat,"train'), "unexpected end of data"),
        (listing(f"{'a/' * 300}b,cat,train"), "is not in"),
        (listing(f"{'b' * 300},cat,train"), "is not in"),
        (listing("x" * 200_000), "field larger than field limit"),
    ],
)
def test_a_fault_in_the_table_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = table(folder(tmp_path), text)
    with pytest.raises(PalimpsestError, match=message) as caught:
        resolve_stream(path)
    assert "\n" not in str(caught.value)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = toml(folder(tmp_path))
    code, out, _ = palimpsest(capsys, monkeypatch, "describe", str(path), "--json")
    assert code == 0 and [task["train"] for task in json.loads(out)["tasks"]] == [12, 12]
    home = str(tmp_path / "home")
    code, out, err = palimpsest(capsys, monkeypatch, "run", str(tmp_path / "none.toml"), "ease", "--home", home)
    assert code == 2 and out == "" and err.count("\n") == 1 and "none.toml cannot be read" in err
    code, _, err = palimpsest(capsys, monkeypatch, "run", str(path), "ease", "--data", "x", "--home", home)
    assert code == 2 and err.count("\n") == 1 and "leave --data out" in err
    assert not (tmp_path / "home").exists()


def test_names_that_look_like_markup_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = listing().replace(",cat,", ",[/b] cat,")
    path = toml(folder(tmp_path), samples='"samples.csv"', tasks="[1, 1]", classes=None)
    (tmp_path / "samples.csv").write_text(text, encoding="utf-8")
    code, out, _ = palimpsest(capsys, monkeypatch, "describe", str(path))
    assert code == 0 and "[/b] cat" in out


def test_a_plan_writes_nothing_though_it_reads_the_files(tmp_path: Path) -> None:
    home, path = tmp_path / "home", toml(folder(tmp_path))
    made = cl.run(path, "simplecil", backbone=BACKBONE, home=home)
    for image in (tmp_path / "images").rglob("*.png"):
        os.utime(image, (2e9, 2e9))  # what was remembered of it no longer holds: it has to be read
    before = files(home)
    found = plan(open_run(home, made.id), [Selector("sample", "train/owl/0.png")])
    assert list(found.forget.samples) == ["train/owl/0.png"]
    assert files(home) == before
    (home / "files.sqlite").unlink()
    plan(open_run(home, made.id), [Selector("sample", "train/owl/0.png")])
    assert not (home / "files.sqlite").exists()
