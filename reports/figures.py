"""The figures of the comparison page: inline SVG drawn by matplotlib, coloured by the page.

Every colour is written as a CSS variable (its light value as the fallback), so that one figure serves light and dark;
text stays text in the page's own typeface. One unit of a figure is one CSS pixel. The same input gives the same bytes:
identifiers are salted with the figure's name, which must therefore be unique within a page.

Two marks tie a figure to the page's script: `data-s` (the strategy that a group of shapes belongs to) and `data-tip`
(what to say while the pointer is over it).
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from reports.palette import DASHES, LIGHT, PHASE_COLOURS, STRATEGY_COLOURS, STYLE, VARIABLE_OF
from reports.quantities import QuantityKind, quantity, tick

Floats = NDArray[np.float64]

_styled = style.context(["default", STYLE])

_LETTER = 6.6  # Mean advance of a letter at 12 px, generously.
_LONGEST_LABEL = 24


@dataclass(frozen=True)
class Series:
    """A strategy in a figure. `mean` and `spread` share one shape, with NaN where nothing was measured."""

    label: str
    index: int  # Its place among the page's strategies: chooses colour and dashes.
    mean: Floats
    spread: Floats

    @property
    def colour(self) -> str:
        return LIGHT[f"s{self.index % STRATEGY_COLOURS}"]

    @property
    def measured(self) -> NDArray[np.intp]:
        """The places of `mean` that hold a number."""
        return np.flatnonzero(np.isfinite(self.mean))


@dataclass(frozen=True)
class Frame:
    """What surrounds lines: pixels, whether the values begin at 0, and what the places along the axis are called."""

    width: int
    height: int
    from_zero: bool
    axis: str = "tasks learned"
    place: str = "task"


@_styled
def lines(name: str, series: Sequence[Series], kind: QuantityKind, what: str, frame: Frame) -> Markup:
    """Values after each of two or more tasks, or what else a place of the frame is, shape (tasks,): lines with bands of
    one spread, labels at their ends.

    Each series has a measured task; one that has a single one (a joint model trained last) is a marker on a dashed line
    across the figure.
    """
    tasks = max(len(one.mean) for one in series)
    right = 30 + _LETTER * max(len(_short(one.label)) for one in series)
    figure, axes = _canvas(frame.width, frame.height, left=40, right=right, top=10, bottom=38)
    for one in series:
        _draw_line(axes, one, tasks)
    _style_axes(axes, tasks, kind, frame.axis, from_zero=frame.from_zero)
    tips = _task_columns(axes, series, tasks, kind, frame.place)
    _label_ends(axes, series, tasks)
    return _svg(figure, name, f"{what} after each {frame.place}", tips)


@_styled
def task_bars(name: str, one: Series, limits: tuple[float, float], *, width: int, height: int) -> Markup:
    """One value per task (fractions, shown as percent), shape (tasks,), as bars with whiskers of one spread.

    `limits` is the vertical range, so that the figures of several strategies can be read side by side.
    """
    tasks = len(one.mean)
    figure, axes = _canvas(width, height, left=30, right=6, top=8, bottom=24)
    axes.grid(True, axis="y")
    places = np.arange(1, tasks + 1)
    axes.bar(places, np.nan_to_num(one.mean), width=0.72, color=one.colour, alpha=0.85, linewidth=0)
    if tasks <= 20:
        whiskers = np.nan_to_num(one.spread)
        axes.vlines(places, one.mean - whiskers, one.mean + whiskers, color=LIGHT["ink"], linewidth=1)
    axes.axhline(0, color=LIGHT["muted"], linewidth=0.8)
    axes.set_xlim(0.4, tasks + 0.6)
    axes.set_ylim(*limits)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, "percent")))
    tips = _task_columns(axes, [one], tasks, "percent")
    return _svg(figure, name, f"Forgetting of each task, {one.label}", tips)


@_styled
def stacked_bars(
    name: str, series: Sequence[Series], phases: Sequence[str], kind: QuantityKind, what: str, *, width: int
) -> Markup:
    """One bar per series made of its phases: `mean` has shape (phases,), NaN counts as nothing."""
    figure, axes = _rows(series, width, right=62, bottom=4)
    axes.xaxis.set_visible(False)
    tips: list[str] = []
    for row, one in enumerate(series):
        parts = np.nan_to_num(one.mean)
        for phase, (start, length) in enumerate(zip(np.cumsum(parts) - parts, parts, strict=True)):
            colour = LIGHT[f"p{phase % PHASE_COLOURS}"]
            axes.barh(row, length, left=start, height=0.52, color=colour, linewidth=0)[0].set_gid(f"tip{len(tips)}")
            tips.append(f"{one.label}, {phases[phase]}\n{quantity(one.mean[phase], kind)}")
        axes.annotate(
            quantity(parts.sum(), kind),
            (parts.sum(), row),
            (6, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=11,
            color=LIGHT["muted"],
        )
    axes.set_xlim(0, max(np.nansum(one.mean) for one in series) or 1)
    return _svg(figure, name, f"{what} of each phase", tips)


@_styled
def dots(name: str, series: Sequence[Series], samples: Sequence[Floats], what: str, *, width: int) -> Markup:
    """Signed fractions as points: `mean` and `spread` of shape () as dot and whisker, each seed of `samples` small."""
    figure, axes = _rows(series, width, right=16, bottom=26)
    axes.grid(True, axis="y")
    tips = []
    for row, (one, seeds) in enumerate(zip(series, samples, strict=True)):
        whisker = np.nan_to_num(one.spread)
        axes.plot([one.mean - whisker, one.mean + whisker], [row, row], color=one.colour, linewidth=2, alpha=0.5)
        axes.plot(seeds, np.full(len(seeds), row), "o", color=one.colour, markersize=3.5, alpha=0.55, markeredgewidth=0)
        axes.plot(one.mean, row, "o", color=one.colour, markersize=8, markeredgewidth=0, gid=f"tip{row}")
        tips.append(f"{one.label}\n{quantity(float(one.mean), 'points', float(one.spread))}")
    axes.axvline(0, color=LIGHT["muted"], linewidth=0.8, zorder=0)
    axes.margins(x=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, "points")))
    return _svg(figure, name, f"{what} in points", tips)


@_styled
def signals(
    name: str,
    signal: Floats,
    full: NDArray[np.bool_],
    rows: Sequence[str],
    threshold: float | None,
    new: Sequence[bool],
    *,
    width: int,
    height: int,
) -> Markup:
    """A signal `(rows, tasks)` against its threshold (None: infinite); dots are full where `full` is set.

    new: tasks that are shaded.
    """
    tasks = signal.shape[1]
    figure, axes = _canvas(width, height, left=40, right=70, top=10, bottom=38)
    axes.grid(True, axis="y")
    places = np.arange(1, tasks + 1)
    for place, shaded in zip(places, new, strict=False):
        if shaded:
            axes.axvspan(place - 0.5, place + 0.5, color=LIGHT["muted"], alpha=0.16, linewidth=0)
    for number, (row, values, marks) in enumerate(zip(rows, signal, full, strict=True)):
        colour = LIGHT[f"p{number % PHASE_COLOURS}"]
        axes.plot(places, values, color=colour, linewidth=1.2)
        axes.plot(places[marks], values[marks], "o", color=colour, markersize=6, markeredgewidth=0)
        paper = LIGHT["paper"]
        axes.plot(places[~marks], values[~marks], "o", markersize=5, markerfacecolor=paper, markeredgecolor=colour)
        axes.text(1.02, 0.95 - 0.08 * number, row, color=colour, transform=axes.transAxes, fontsize=11)
    if threshold is not None:
        axes.axhline(threshold, color=LIGHT["ink"], linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(0.5, tasks + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(min(tasks, 12), integer=True))
    axes.set_xlabel("task", fontsize=11, color=LIGHT["muted"], labelpad=3)
    axes.autoscale(False)
    tips = []
    for task in range(tasks):
        axes.axvspan(task + 0.5, task + 1.5, alpha=0, gid=f"tip{task}")
        told = zip(rows, signal[:, task], full[:, task], strict=True)
        lines = [f"{row}  {quantity(value, 'ratio')}{', added' if mark else ''}" for row, value, mark in told]
        tips.append("\n".join([f"task {task + 1}", *lines]))
    return _svg(figure, name, "Signal of each layer and task against the threshold", tips)


def _canvas(
    width: float, height: float, *, left: float, right: float, top: float, bottom: float
) -> tuple[Figure, Axes]:
    """A figure of `width` x `height` pixels, whose axes keep the given margins in pixels."""
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    box = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
    return figure, figure.add_axes(box)


def _rows(series: Sequence[Series], width: int, *, right: float, bottom: float) -> tuple[Figure, Axes]:
    """Axes with one row per series, from the top, and the labels on the left."""
    left = 16 + _LETTER * max(len(_short(one.label)) for one in series)
    figure, axes = _canvas(width, 26 * len(series) + 4 + bottom, left=left, right=right, top=4, bottom=bottom)
    axes.set_ylim(len(series) - 0.5, -0.5)
    axes.set_yticks(range(len(series)), [_short(one.label) for one in series], fontsize=12, color=LIGHT["ink"])
    axes.spines.bottom.set_visible(False)
    return figure, axes


def _draw_line(axes: Axes, one: Series, tasks: int) -> None:
    places, gid = np.arange(1, len(one.mean) + 1), f"s{one.index}"
    single = len(one.measured) == 1
    if single:
        level = one.mean[one.measured[0]]
        axes.plot([1, tasks], [level, level], color=one.colour, linewidth=1.2, linestyle=(0, (2, 3)), gid=gid)
    spread = np.nan_to_num(one.spread)
    if spread.any():
        low, high = one.mean - spread, one.mean + spread
        axes.fill_between(places, low, high, color=one.colour, alpha=0.15, linewidth=0, gid=gid)
    dashes = DASHES[one.index // STRATEGY_COLOURS % len(DASHES)]
    marker = "o" if single or tasks <= 20 else ""
    axes.plot(
        places,
        one.mean,
        color=one.colour,
        linewidth=2,
        linestyle=dashes,
        marker=marker,
        markersize=7 if single else 4.5,
        markeredgewidth=0,
        gid=gid,
    )


def _style_axes(axes: Axes, tasks: int, kind: QuantityKind, axis: str, *, from_zero: bool) -> None:
    axes.grid(True, axis="y")
    axes.set_xlim(1 - 0.02 * tasks, tasks * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(min(tasks, 12), integer=True))
    axes.set_xlabel(axis, fontsize=11, color=LIGHT["muted"], labelpad=3)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=kind == "number"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, kind)))
    if from_zero:
        axes.set_ylim(bottom=0)
    if kind == "percent":
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 0), min(high, 1.005))
    axes.autoscale(False)


def _task_columns(
    axes: Axes, series: Sequence[Series], tasks: int, kind: QuantityKind, place: str = "task"
) -> list[str]:
    """Invisible columns, one per task, for the pointer to rest on; returns what each has to say."""
    tips = []
    for task in range(tasks):
        axes.axvspan(task + 0.5, task + 1.5, alpha=0, gid=f"tip{task}")
        shown = [one for one in series if task < len(one.mean) and np.isfinite(one.mean[task])]
        shown.sort(key=lambda one: -one.mean[task])
        values = [f"{one.label}  {quantity(one.mean[task], kind, one.spread[task])}" for one in shown]
        tips.append("\n".join([f"{place} {task + 1}", *values]))
    return tips


def _label_ends(axes: Axes, series: Sequence[Series], tasks: int) -> None:
    """Name each line beside its last point, moved apart where names would overlap."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    across, up = (right - left) / axes.bbox.width, (high - low) / axes.bbox.height  # Of one pixel.
    ends = np.array([one.mean[one.measured[-1]] for one in series])
    for one, end, height in zip(series, ends, _apart(ends, 15 * up, low, high), strict=True):
        start, gid = tasks if len(one.measured) == 1 else one.measured[-1] + 1, f"s{one.index}"
        lead = [start, right + 4 * across, right + 14 * across]
        axes.plot(lead, [end, end, height], color=one.colour, linewidth=1, alpha=0.7, clip_on=False, gid=gid)
        axes.text(right + 18 * across, height, _short(one.label), va="center_baseline", gid=gid)


def _apart(wanted: Floats, gap: float, low: float, high: float) -> Floats:
    """The heights nearest to `wanted` (least squares) that lie at least `gap` apart and within `low` to `high`.

    Less the room that the labels below take, heights must not decrease: isotonic regression, by pooling violators.
    """
    order = np.argsort(wanted, kind="stable")
    room = gap * np.arange(len(wanted))
    pools: list[list[float]] = []
    for value in wanted[order] - room:
        pools.append([value])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    level = np.concatenate([np.full(len(pool), np.mean(pool)) for pool in pools])
    heights = np.empty_like(wanted)
    heights[order] = np.clip(level, low, max(low, high - room[-1])) + room
    return heights


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"


def _svg(figure: Figure, name: str, description: str, tips: Sequence[str]) -> Markup:
    """`figure` as an `<svg>` without size, style or metadata of its own, marked for the page's script."""
    buffer = io.StringIO()
    nothing: Mapping[str, None] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    width, height = figure.get_size_inches() * 72
    body = buffer.getvalue().split(">", 3)[3]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL).replace("xlink:href", "href")
    body = re.sub(r'style="[^"]*"', _page_style, body)
    body = re.sub(r'\s*<g id="[^"]*"/>', "", body)
    body = re.sub(r'<g id="([^"]*)">', lambda found: _marked_group(found[1], tips), body)
    opening = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(description)}">'
    return Markup(opening + body)


def _page_style(attribute: re.Match[str]) -> str:
    """A style attribute in the page's typeface and colours."""
    text = re.sub(r"font-family: [^;\"]*;? ?", "", attribute[0])
    for value, name in VARIABLE_OF.items():
        text = text.replace(value, f"var(--{name}, {value})")
    return text


def _marked_group(identifier: str, tips: Sequence[str]) -> str:
    mark = re.fullmatch(r"(s|tip)(\d+)", identifier)
    if not mark:
        return "<g>"  # matplotlib's own names repeat in every figure, and nothing refers to them.
    if mark[1] == "s":
        return f'<g data-s="{mark[2]}">'
    return f'<g data-tip="{escape(tips[int(mark[2])])}">'
