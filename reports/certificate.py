"""The page of a deletion certificate: what was asked, what was touched, how it was proved, what it cost."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rfc8785

from reports.pages import environment, write_page
from reports.palette import DARK, LIGHT

# Lanes of the picture, from what was given to what came out; other roles follow in the order in which they appear.
LANES = ("train images", "test images", "adapter", "head", "prototype", "statistics", "cache", "prediction")
LANE_NAMES = {"train images": "training images", "cache": "features, scores", "prediction": "predictions"}
WIDTH, LEFT, STEP, RADIUS = 1040, 130, 15, 4.5

# What each check asks, in plain words, and what it counted.
CHECKS = {
    "V1": (
        "The comparison can be repeated: two runs that never saw the samples, each in a new process with nothing of "
        "the old one at hand, came out the same.",
        "{components} parts of the model compared",
    ),
    "V2": (
        "Every part of the model that is served is, byte for byte, what it is in a run that never saw the samples.",
        "{components} parts, {names_differ} names differ, {bytes_differ} contents differ",
    ),
    "V3": (
        "The model also answers the same: to test images, to the deleted samples themselves, and to noise.",
        "{rows} answers compared",
    ),
    "V4": (
        "The comparison could have failed: before the deletion the model was another one.",
        "{trained_on} of the deleted samples had been trained on",
    ),
    "V5": (
        "What is said to be untouched is: with other images in place of the deleted ones it comes out the same.",
        "{outside} untouched parts, {moved} of them changed",
    ),
    "V6": (
        "The storage was searched, file by file: no id of a sample, no row of its pixels, no digest of it is left.",
        "{hits} traces found, {excepted} of them in runs that are listed as exceptions",
    ),
    "environment": (
        "The comparison ran on the same processor, libraries and settings as the model.",
        "{components} parts, {elsewhere} made elsewhere; {cpu} {isa}, Python {python}",
    ),
}
SELECTED = {"task": "whole tasks", "class": "whole classes", "subject": "people", "sample": "single samples"}
REMOVED = {
    "components": "parts and intermediate results",
    "shards": "lists of images",
    "checkpoints": "unfinished trainings",
    "temporaries": "temporary files",
    "pages": "pages and figures",
}
ACTIONS = {
    "keep": "not made from the samples: untouched",
    "rebuild": "made from them: built again without",
    "drop": "made from them alone: removed",
    "purge": "intermediate result: removed",
    "filter": "images that held the samples",
}


def write_certificate(certificate: Mapping[str, Any], out: Path) -> Path:
    """Write the page of `certificate`, as `palimpsest forget certify` signed it, to `out`; returns `out`."""
    template = environment().get_template("certificate.html.j2")
    html = template.render(
        c=certificate,
        digest=hashlib.sha256(rfc8785.dumps(certificate)).hexdigest(),  # of its file, which is in this form
        picture=picture(certificate["graph"]),
        actions={name: text for name, text in ACTIONS.items() if name in _actions(certificate)},
        checks=[_check(name, found) for name, found in sorted(certificate["checks"].items())],
        selected=[f"{SELECTED[kind]}: {n}" for kind, n in Counter(certificate["selectors"]).items()],
        removed=[f"{n} {REMOVED[name]}" for name, n in certificate["purged"].items() if n],
        tokens={"light": LIGHT, "dark": DARK},
    )
    write_page(out, html)
    return out


def _check(name: str, found: Mapping[str, Any]) -> tuple[str, str, str, bool]:
    question, counted = CHECKS[name]
    return name, question, counted.format_map(defaultdict(str, found)), bool(found["passed"])


def _actions(certificate: Mapping[str, Any]) -> set[str]:
    return {node["action"] for node in certificate["graph"]["nodes"]}


def picture(graph: Mapping[str, Any]) -> dict[str, Any]:
    """Places of the component graph: a column a task, a lane a role; dots in a cell side by side."""
    nodes, tasks = graph["nodes"], graph["tasks"]
    lanes = [lane for lane in dict.fromkeys([*LANES, *(node["role"] for node in nodes)]) if _used(lane, nodes)]
    column = (WIDTH - LEFT) / max(1, len(tasks))
    across = max(1, int((column - 24) // STEP))
    cells: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, node in enumerate(nodes):
        cells[node["role"], node["task"]].append(number)
    top, places, rows = 34.0, {}, []
    for lane in lanes:
        deep = max(-(-len(cells[lane, task]) // across) for task in range(len(tasks)))
        rows.append({"name": LANE_NAMES.get(lane, f"{lane}s" if lane[-1] != "s" else lane), "y": top + RADIUS})
        for task in range(len(tasks)):
            for row, number in enumerate(cells[lane, task]):
                places[number] = (LEFT + task * column + 8 + STEP * (row % across), top + STEP * (row // across))
        top += STEP * deep + 34
    dots = [{**node, "x": round(places[n][0], 1), "y": round(places[n][1], 1)} for n, node in enumerate(nodes)]
    heads = [{"name": task, "x": round(LEFT + place * column, 1)} for place, task in enumerate(tasks)]
    return {
        "width": WIDTH,
        "height": round(top),
        "lanes": rows,
        "tasks": heads,
        "dots": dots,
        "edges": _edges(graph, dots),
    }


def _used(lane: str, nodes: list[dict[str, Any]]) -> bool:
    return any(node["role"] == lane for node in nodes)


def _edges(graph: Mapping[str, Any], dots: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Curves from what was read to what read it; marked where the taint went along."""
    edges = []
    for start, end in graph["edges"]:
        first, last = dots[start], dots[end]
        middle = (first["y"] + last["y"]) / 2
        path = f"M{first['x']} {first['y']}C{first['x']} {middle} {last['x']} {middle} {last['x']} {last['y']}"
        edges.append({"path": path, "tainted": "keep" not in (first["action"], last["action"])})
    return sorted(edges, key=lambda edge: edge["tainted"])
