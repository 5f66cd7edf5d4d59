import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl.errors import BadInput, UnknownName
from reports import aggregate, paired_differences, write_comparison
from reports.figures import _apart
from reports.quantities import quantity, tick
from reports.summary import places
from tests.pages import Figures, figures, page


def joint(seed: int = 0, tasks: int = 3) -> Figures:
    """A joint model, trained and measured after the last task only."""
    last = [0.95 - 0.01 * seed] * tasks
    return figures(
        "joint", seed, tasks, accuracy=[[None] * tasks] * (tasks - 1) + [last], curve=[None] * (tasks - 1) + last[:1],
        average_accuracy=last[0], average_incremental_accuracy=None, forgetting=None, backward_transfer=None,
    )  # fmt: skip


class Elements(HTMLParser):
    """Every start tag with its attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def metric(runs: list[Figures], name: str, strategy: str = "ease") -> dict[str, Any]:
    return next(row["metrics"][name] for row in aggregate(runs) if row["strategy"] == strategy)


def test_means_and_sample_deviations_are_numpys() -> None:
    runs = [figures(seed=seed) for seed in range(4)]
    values = [run["average_accuracy"] for run in runs]
    expected = {"mean": np.mean(values), "std": np.std(values, ddof=1), "n": 4}
    assert metric(runs, "average_accuracy") == pytest.approx(expected)


def test_costs_are_summed_over_phases_and_tasks_before_the_mean() -> None:
    runs = [figures(seed=0), figures(seed=1)]
    assert metric(runs, "seconds") == pytest.approx({"mean": 4.5, "std": np.sqrt(0.5), "n": 2})
    assert metric(runs, "forward_passes")["mean"] == 220
    assert metric(runs, "parameters_added")["mean"] == pytest.approx(3001.5)
    assert metric(runs, "adapters")["mean"] == 3


def test_inference_is_told_by_the_image() -> None:
    runs = [figures(inference={"images": 20, "passes": 50, "seconds": 4.0}), figures(seed=1)]
    assert metric(runs, "passes_per_image") == {"mean": 2.5, "std": None, "n": 1}
    assert metric(runs, "seconds_per_image")["mean"] == pytest.approx(0.2)


def test_a_missing_figure_is_not_counted() -> None:
    runs = [figures(seed=0, forgetting=None), figures(seed=1, forgetting=0.25), figures(seed=2, cost={})]
    del runs[2]["forgetting"]
    assert metric(runs, "forgetting") == {"mean": 0.25, "std": None, "n": 1}
    assert metric(runs, "seconds")["n"] == 2
    assert metric(runs, "intransigence") == {"mean": None, "std": None, "n": 0}


def test_ranking_is_by_incremental_accuracy_then_by_final() -> None:
    runs = [
        figures("late", average_incremental_accuracy=0.7, average_accuracy=0.6),
        figures("best", average_incremental_accuracy=0.8, average_accuracy=0.1),
        figures("tied", average_incremental_accuracy=0.7, average_accuracy=0.5),
    ]
    assert [row["strategy"] for row in aggregate(runs)] == ["best", "late", "tied"]


def test_ranking_is_by_final_accuracy_if_one_strategy_has_no_incremental_one() -> None:
    runs = [
        joint(),
        figures("a", average_accuracy=0.5),
        figures("b", average_accuracy=0.6),
        figures("c", average_accuracy=None),
    ]
    assert [row["strategy"] for row in aggregate(runs)] == ["joint", "b", "a", "c"]


def test_those_that_nothing_sets_apart_share_a_place(tmp_path: Path) -> None:
    same = {"average_accuracy": 0.8, "average_incremental_accuracy": 0.9}
    runs = [figures("ease", **same), figures("mos", **same), figures("ssiat", **{**same, "average_accuracy": 0.7})]
    assert places(aggregate(runs)) == [1, 1, 3]
    assert re.findall(r'class="rank"[^>]*>(\d)<', page(tmp_path, runs)) == ["1", "1", "3"]


def test_rows_are_json() -> None:
    assert json.loads(json.dumps(aggregate([figures(), joint()])))[0]["strategy"] == "joint"


def test_differences_pair_the_seeds_that_both_have() -> None:
    runs = [figures("a", seed, average_accuracy=0.5 + seed / 10) for seed in (0, 1, 2)]
    runs += [figures("b", seed, average_accuracy=0.75) for seed in (1, 2, 3)]
    (row,) = paired_differences(runs, "average_accuracy", "a")
    assert row["differences"] == pytest.approx({1: 0.15, 2: 0.05})
    assert (row["strategy"], row["n"]) == ("b", 2)
    assert (row["mean"], row["std"]) == pytest.approx((0.1, np.std([0.15, 0.05], ddof=1)))


def test_a_seed_run_twice_is_one_pair() -> None:
    runs = [figures("a"), *(figures("b", run=f"b{i}", average_accuracy=0.4 + i / 5) for i in range(2))]
    (row,) = paired_differences(runs, "average_accuracy", "a")
    assert row["differences"] == pytest.approx({0: 0.5 - runs[0]["average_accuracy"]})


@pytest.mark.parametrize(("name", "reference"), [("accuracies", "ease"), ("average_accuracy", "eese")])
def test_an_unknown_metric_or_reference_is_named(name: str, reference: str) -> None:
    with pytest.raises(UnknownName, match="did you mean"):
        paired_differences([figures()], name, reference)


def test_the_page_shows_percent(tmp_path: Path) -> None:
    runs = [figures(seed=seed, average_accuracy=0.7125 + seed / 100, forgetting=0.0561) for seed in (0, 2)]
    text = Elements(page(tmp_path, runs)).text
    assert "72.2 ± 1.4" in text
    assert "5.6 ± 0.0" in text


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    html = page(tmp_path, [figures(), joint()], links=[("Certificate", "certificate.html")])
    parsed = Elements(html)
    assert not [tag for tag, _ in parsed.tags if tag in {"link", "img", "image", "iframe", "object", "base"}]
    assert parsed.named("script") == [{}]
    assert [link["href"] for link in parsed.named("a")] == ["certificate.html"]
    assert not re.search(r"https?:|@import|url\((?!#)|src=", html)


def test_every_reference_inside_a_figure_has_one_target(tmp_path: Path) -> None:
    runs = [figures(name, seed, tasks=4) for name in ("a", "b") for seed in range(2)]
    html = page(tmp_path, runs)
    targets = [attributes["id"] for _, attributes in Elements(html).tags if "id" in attributes]
    used = set(re.findall(r"(?:href=\"|url\()#([^\")]+)", html))
    assert len(targets) == len(set(targets))
    assert used and used <= set(targets)


def test_texts_are_escaped_everywhere(tmp_path: Path) -> None:
    evil = "<img src=x onerror=\"alert('$1')\">&amp;"
    run = figures(evil, backbone=evil, presets=[evil], hyper={evil: evil}, run=evil, cost={evil: {"seconds": 1.0}})
    run["tasks"][0] = {"id": evil, "classes": [evil]}
    runs = [run, {**run, "seed": 1}, figures()]
    parsed = Elements(
        write_comparison(runs, tmp_path / "x.html", title=evil, notes=[evil], links=[(evil, evil)]).read_text()
    )
    assert not parsed.named("img")
    assert parsed.text.count(evil) >= 15
    assert any(
        attributes.get("data-tip", "").startswith(evil) for _, attributes in parsed.tags if "data-tip" in attributes
    )


def test_the_same_runs_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    runs = [figures(name, seed) for name in ("a", "b") for seed in (0, 1)]
    turned = [dict(reversed([*run.items(), ("cost", dict(reversed(run["cost"].items())))])) for run in reversed(runs)]
    assert page(tmp_path, runs) == page(tmp_path, turned)


def test_unmeasured_cells_stay_blank(tmp_path: Path) -> None:
    html = page(tmp_path, [joint(seed, tasks=4) for seed in (0, 1)])
    rows = re.findall(r"<tr><th scope=\"row\">\d</th>(.*?)</tr>", html)
    assert rows[:3] == ["<td></td>" * 4] * 3
    assert re.findall(r">([\d.]+)</td>", rows[3]) == ["94.5"] * 4
    assert "Points of accuracy that each task had lost" not in html


def test_many_tasks_drop_the_numbers_of_the_matrix_and_only_those(tmp_path: Path) -> None:
    html = page(tmp_path, [figures(f"strategy {i}", tasks=40) for i in range(10)])
    assert html.count('<table class="matrix dense"') == 10
    assert html.count("--a:") == 10 * 40 * 41 / 2


def test_one_run_of_one_task(tmp_path: Path) -> None:
    run = figures(tasks=1, forgetting=None, backward_transfer=None)
    html = page(tmp_path, [run])
    assert "1 task, 2 classes" in html
    assert "Not measured in these runs: forgetting, backward transfer" in html
    assert "Accuracy after each task" not in html
    assert "Differences, seed by seed" not in html


def test_a_run_with_only_its_identity_makes_a_page(tmp_path: Path) -> None:
    bare = {name: figures()[name] for name in ("run", "stream", "strategy", "seed", "tasks", "classes_per_task")}
    assert "Not measured in these runs: average incremental" in page(tmp_path, [bare])


def test_a_domain_stream_says_that_its_tasks_share_classes(tmp_path: Path) -> None:
    tasks = [{"id": f"d{i}", "classes": ["cat", "dog"]} for i in range(3)]
    assert "3 tasks, 2 classes, the same in each task" in page(tmp_path, [figures(tasks=3) | {"tasks": tasks}])


def test_a_preset_is_told_with_the_strategies_that_it_holds_for(tmp_path: Path) -> None:
    html = page(tmp_path, [figures("a"), figures("b", presets=[])])
    assert "<dt>Preset of a</dt><dd><code>quick</code><small>few epochs" in html


def test_a_manifest_is_short_with_the_whole_in_its_title(tmp_path: Path) -> None:
    digest = "0123456789abcdef" * 4
    assert f'<code title="{digest}">0123456789ab</code>' in page(tmp_path, [figures(manifest=digest)])


def test_runs_that_cannot_be_compared_are_called_so(tmp_path: Path) -> None:
    runs = [figures(), figures(run="again", hyper={"epochs": 9}), figures("b", stream="glyphs")]
    text = Elements(page(tmp_path, runs)).text
    assert "the runs differ in stream (glyphs, digits)" in text
    assert "the runs of ease differ in hyperparameters" in text
    assert "ease has several runs with seed 0" in text


def test_hyperparameters_that_all_share_are_told_once(tmp_path: Path) -> None:
    html = page(tmp_path, [figures("a", hyper={"lr": 0.03, "rank": 4}), figures("b", hyper={"lr": 0.03})])
    assert html.count("lr <b>0.03</b>") == 1
    assert html.count("rank <b>4</b>") == 1


def test_a_failed_write_leaves_the_old_page_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = page(tmp_path, [figures(tasks=1)])

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(BadInput, match="No space left"):
        page(tmp_path, [figures("other", tasks=1)])
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == [old]


def test_no_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no runs"):
        page(tmp_path, [])


@pytest.mark.parametrize(
    ("value", "kind", "spread", "text"),
    [
        (0.7125, "percent", 0.0141, "71.2 ± 1.4"),
        (-0.0004, "points", None, "0.0"),
        (-0.123, "points", 0.01, "−12.3 ± 1.0"),
        (0.05, "points", None, "+5.0"),
        (3, "number", None, "3"),
        (1_234_567, "count", 10_000, "1.23 ± 0.01\u202fM"),
        (90, "seconds", 3, "1.50 ± 0.05\u202fmin"),
        (2.5, "seconds", None, "2.50\u202fs"),
        (0.0042, "seconds", None, "4.20\u202fms"),
        (2**31, "bytes", None, "2.00\u202fGiB"),
        (None, "percent", None, "–"),
        (float("nan"), "percent", None, "–"),
    ],
)  # fmt: skip
def test_quantities(value: float | None, kind: Any, spread: float | None, text: str) -> None:
    assert quantity(value, kind, spread) == text


def test_ticks_are_as_short_as_they_can_be() -> None:
    assert [tick(0, "count"), tick(5e6, "count"), tick(-0.15, "points")] == ["0", "5\u202fM", "−15"]


def test_labels_keep_apart_stay_inside_and_move_no_further_than_they_must() -> None:
    heights = _apart(np.array([0.5, 0.5, 0.98, 0.99, 0.1]), 0.1, 0.0, 1.0)
    assert heights == pytest.approx([0.45, 0.55, 0.9, 1.0, 0.1])


def grown(seed: int = 0, tasks: int = 3) -> Figures:
    """A run whose model grew at its second task, in the deeper of two layers."""
    decisions = [
        {"task": f"t{t}", "block": block, "z": [0.5, None], "signal": 3.0 if (t, block) == (1, 1) else None,
         "threshold": 2.0, "expand": (t, block) == (1, 1)}
        for t in range(1, tasks) for block in (0, 1)
    ]  # fmt: skip
    routing = [{"task": "t2", "block": 1, "weights": {"t0": 0.75, "t1": 0.25}}]
    growth = {
        "adapters": [[1, 1], *[[1, 2]] * (tasks - 1)], "decisions": decisions, "routing": routing,
        "expansion_rate": 0.5, "reuse_rate": 0.5, "growth_exponent": {"slope": 0.42, "low": 0.1, "high": 0.7},
        "expansion_exponent": None, "accuracy_per_million_parameters": 3.5,
        "truth": {"new": [True, True, False], "precision": 1.0, "recall": None},
    }  # fmt: skip
    return figures("sema", seed, tasks, growth=growth)


def test_growth_is_drawn_where_a_run_has_it(tmp_path: Path) -> None:
    html = page(tmp_path, [grown(), figures()])
    parsed = Elements(html)
    tips = [attributes["data-tip"] for _, attributes in parsed.tags if "data-tip" in attributes]
    assert "layer 2, after task 2: 2" in tips
    assert "task 3 gives 25.0 % to the adapter of task 2" in tips
    assert any(tip and "layer 2  3.00, added" in tip for tip in tips)
    assert "growth exponent 0.42 [0.10, 0.70]" in parsed.text
    assert "0.42" in parsed.text and "what decided, and what is reused (seed 0)" in parsed.text
    assert "Where adapters were added" not in page(tmp_path, [figures()])


def test_growth_metrics_are_summed_up() -> None:
    runs = [grown(seed) for seed in range(2)]
    assert metric(runs, "growth_exponent", "sema") == {"mean": 0.42, "std": 0.0, "n": 2}
    assert metric(runs, "expansion_recall", "sema")["n"] == 0
    assert metric(runs, "expansion_precision", "sema")["mean"] == 1
