"""Test time on the comparison page."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

from reports import aggregate
from tests.pages import figures, page


def drifted(strategy: str, seed: int = 0, rounds: int = 2, **evidence: list[float | None]) -> dict[str, Any]:
    """A run that met `rounds` visits to two domains, with plausible figures."""
    draw = random.Random(f"{strategy} {seed}")
    errors = {f"r{r:02d}/{name}/5": draw.uniform(0.1, 0.5) for r in range(rounds) for name in ("GN", "SW")}
    values = list(errors.values())
    calibrated = {"error": 0.3, "brier": 0.4, "nll": 0.9, "ece": 0.1}
    online = {
        "online_error": errors,
        "mean_error": sum(values) / len(values),
        "source_error_before": 0.1,
        "source_error_after": 0.2,
        "recurrence": [values[2] - values[0]] if rounds > 1 else [],
        "updates": 4,
        "test_time": {
            "segments": [{"id": name, "domain": name[4:6], "images": 8, **calibrated} for name in errors],
            "calibration": calibrated,
            "batches": {"passes": [3.0] * len(errors), "images": [8] * len(errors), **evidence},
            "per_image": {"seconds": 0.01, "passes": 3},
        },
    }
    return figures(strategy, seed, tasks=1, online=online)


def test_errors_recurrence_and_evidence_are_drawn(tmp_path: Path) -> None:
    runs = [drifted("tent", seed) for seed in (0, 1)]
    runs += [drifted("vida", seed, uncertainty=[0.1, 0.2, None, 0.3], lambda_high=[1.1] * 4) for seed in (0, 1)]
    html = page(tmp_path, runs)
    for text in (
        "At test time",
        "Online error of each segment",
        "r01/SW/5",
        "at each later visit",
        "Uncertainty of each",
    ):
        assert text in html
    assert "Share above" not in html, "what no method told of is not drawn"
    assert html == page(tmp_path, runs[::-1])


def test_methods_stand_beside_their_own_weights_not_adapted(tmp_path: Path) -> None:
    still = {"source": [0.5] * 4, "vida-static": [0.25] * 4, "vida-static+hka": [0.75] * 4, "simplecil": [0.75] * 4}
    moving = {"vida": [0.25, 0.5, 0.5, 0.5], "tent": [0.5, 0.25] * 2}
    runs = [drifted(name, seed, error=list(e)) for name, e in (still | moving).items() for seed in (0, 1)]
    for run in runs:
        run["online"]["updates"] *= run["strategy"] in moving
    table = page(tmp_path, runs).partition("not adapted</h3>")[2].partition("</table>")[0]
    told = [" ".join(re.sub("<[^>]+>", " ", f"<tr{row}").split()) for row in table.split("<tr")[2:]]
    assert sorted(told) == ["tent source 0.0 0 0 of 2", "vida vida-static 75.0 3 2 of 2, from batch 2, 2 on"]
    assert "not adapted</h3>" not in page(tmp_path, [run for run in runs if run["strategy"] == "tent"])


def test_what_ranks_the_methods_is_in_the_first_table_and_less_is_better(tmp_path: Path) -> None:
    html = page(tmp_path, [drifted(name, seed) for name in ("tent", "vida") for seed in (0, 1)])
    results = html.partition("<h2>Results</h2>")[2].partition("</section>")[0]
    assert "Mean online error" in results and 'aria-sort="ascending"' in results
    differences = " ".join(html.partition("seed by seed</h2>")[2].partition("</p>")[0].split())
    assert "in mean online error (points)" in differences and "left of the line is better" in differences


def test_pages_without_test_time_say_nothing_of_it(tmp_path: Path) -> None:
    html = page(tmp_path, [figures()])
    assert "At test time" not in html and "Brier" not in html


def test_streams_without_recurrence_and_a_single_segment_make_a_page(tmp_path: Path) -> None:
    run = drifted("tent", rounds=1)
    first = dict(list(run["online"]["online_error"].items())[:1])
    html = page(tmp_path, [{**run, "online": {**run["online"], "online_error": first}}])
    assert "At test time" in html and "at each later visit" not in html


def test_strategies_are_ranked_by_their_mean_error_lowest_first() -> None:
    runs = [drifted(name) for name in ("tent", "vida", "source")]
    best = min(runs, key=lambda run: run["online"]["mean_error"])
    assert aggregate(runs)[0]["strategy"] == best["strategy"]
