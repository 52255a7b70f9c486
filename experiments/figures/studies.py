"""Figures over many runs: a method against others, and numbers against one setting."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from experiments.figures.style import COLORS, DASHES, PAGE_WIDTH, draw
from experiments.reporting import model
from experiments.reporting.measures import BETTER, WORSE
from experiments.reporting.model import Table
from experiments.reporting.studies import METRICS, Curve

_MARKERS = "osD^vPX"
_VERDICT_COLORS = {BETTER: COLORS[0], WORSE: COLORS[1]}


def plot_improvement(table: Table, path: str | os.PathLike[str]) -> Figure:
    """Draws the probabilities of improvement of an overview with their intervals, a line each.

    Args:
      table: As `reporting.overview.overview_table` makes it.
      path: File to write.

    Raises:
      ValueError: If the table has no lines.
    """
    if not table.lines:
        raise ValueError("there is no method to compare with: measure another on the same cells")

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for row, line in enumerate(table.lines):
            found = line.cells[0].measures[0]
            color = _VERDICT_COLORS.get(found.verdict, "#5B6470")
            if math.isfinite(found.low):
                axes.plot(
                    [found.low, found.high], [row, row], color=color, linewidth=3.5, alpha=0.5
                )
            axes.plot([found.value], [row], "o", color=color, markersize=7)
        axes.axvline(0.5, color="#1B2A41", linewidth=1)
        names = [" · ".join(line.labels) for line in table.lines]
        axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.4, -0.6))
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("probability that PerSim is better (left of the line: the other is)")
        axes.grid(axis="y", visible=False)

    return draw(path, PAGE_WIDTH, 0.9 + 0.3 * len(table.lines), paint)


def plot_curves(
    curves: Sequence[Curve],
    path: str | os.PathLike[str],
    label: str,
    ticks: Sequence[str] = (),
    logarithmic: bool = False,
) -> Figure:
    """Draws errors, and returns, against a setting: a panel per environment, kind of data, metric.

    Args:
      curves: At least one.
      path: File to write.
      label: Of the horizontal axis.
      ticks: Names of the values 0, 1, ...; the values themselves if not given.
      logarithmic: Whether the horizontal axis is.

    Raises:
      ValueError: If there is no curve.
    """
    panels = list(dict.fromkeys((c.metric, c.environment, c.behavior) for c in curves))
    if not panels:
        raise ValueError("there is no curve to draw: it takes rows at two values of the setting")
    methods = list(dict.fromkeys(curve.method for curve in curves))
    width = min(len(panels), 3)
    height = math.ceil(len(panels) / width)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(height, width, squeeze=False)
        for axes, panel in zip(grid.flat, panels, strict=False):
            shown = [c for c in curves if (c.metric, c.environment, c.behavior) == panel]
            _panel(axes, shown, methods, ticks, logarithmic)
            axes.set_xlabel(label)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        lines = {
            h.get_label(): h for axes in grid.flat for h in axes.get_legend_handles_labels()[0]
        }
        figure.legend(
            lines.values(), lines.keys(), loc="outside lower center", ncols=min(len(lines), 6)
        )

    return draw(path, PAGE_WIDTH, 2.9 * height + 0.5, paint)


def line_look(index: int) -> dict[str, Any]:
    """Colour, dash and marker of a line; colours that come again have other dashes and markers."""
    cycle, place = divmod(index, len(COLORS))
    color, shifted = COLORS[place], (place + 2 * cycle) % len(COLORS)
    return {
        "color": color, "linestyle": DASHES[shifted], "marker": _MARKERS[shifted],
        "markerfacecolor": "white" if cycle % 2 else color,
    }  # fmt: skip


def _panel(
    axes: Axes,
    curves: Sequence[Curve],
    methods: Sequence[str],
    ticks: Sequence[str],
    logarithmic: bool,
) -> None:
    for curve in curves:
        look = line_look(methods.index(curve.method))
        xs = [p.x for p in curve.points]
        # A line breaks where a run diverged; the table says so.
        ys = [p.value if math.isfinite(p.value) else math.nan for p in curve.points]
        axes.plot(xs, ys, markersize=5, label=model.method_name(curve.method), **look)
        known = [p for p in curve.points if math.isfinite(p.low)]
        low, high = [p.low for p in known], [p.high for p in known]
        axes.fill_between(
            [p.x for p in known], low, high, color=look["color"], alpha=0.13, linewidth=0
        )
    first = curves[0]
    where = [model.environment_name(first.environment)]
    where += [model.behavior_name(first.behavior)] if first.behavior else []
    axes.set_title(", ".join(where))
    axes.set_ylabel(METRICS[first.metric])
    values = [p.value for curve in curves for p in curve.points if math.isfinite(p.value)]
    if values and first.metric == "rmse_mean" and 0 < 10 * min(values) < max(values):
        axes.set_yscale("log")
    xs = sorted({p.x for curve in curves for p in curve.points})
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    if ticks:
        axes.set_xticks(range(len(ticks)), ticks, rotation=20)
    else:
        axes.set_xticks(xs, [f"{x:g}" for x in xs])
