"""The page of a deletion certificate: what was asked, what was touched, how it was proved, what it cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reports import figures
from reports.pages import environment, write

# Lanes of the picture, from what was given to what came out; other roles follow in the order in which they appear.
LANES = ("train images", "test images", "adapter", "head", "prototype", "statistics", "cache", "prediction")
LANE_NAMES = {"train images": "training images", "cache": "features, scores", "prediction": "predictions"}
WIDTH, LEFT, STEP, RADIUS = 1040, 130, 15, 4.5

CHECKS = {
    "V1": "Two cold oracles agree with each other, so there is something to compare with.",
    "V2": "Every name and every byte of the run is the oracle's.",
    "V3": "So is every score, on test sets, on the deleted samples and on noise.",
    "V4": "The run before the deletion was another one, so the comparison has power.",
    "V5": "With other content in place of the deleted samples, nothing outside the tainted part changes.",
    "V6": "No id, pixel row or digest of the samples is left in the home.",
    "environment": "The oracle ran on the processor and the libraries of the run.",
}
ACTIONS = {
    "keep": "untouched",
    "rebuild": "built again without the data",
    "drop": "gone with its data",
    "purge": "purged",
    "filter": "images that were filtered",
}


def write_certificate(certificate: Mapping[str, Any], out: Path) -> Path:
    """Write the page of `certificate`, as `palimpsest forget certify` signed it, to `out`; returns `out`."""
    template = environment().get_template("certificate.html.j2")
    html = template.render(
        c=certificate,
        picture=picture(certificate["graph"]),
        actions={name: text for name, text in ACTIONS.items() if name in _actions(certificate)},
        checks=[(name, CHECKS[name], found) for name, found in sorted(certificate["checks"].items())],
        tokens={"light": figures.LIGHT, "dark": figures.DARK},
    )
    write(out, html)
    return out


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
