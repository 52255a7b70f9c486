"""Figure 2: true states, opaque, and predicted states, translucent, over the horizon."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Polygon
from numpy.typing import ArrayLike

from experiments.figures.scenes import Scene, Shape, Window, scene_of, windows_of
from experiments.figures.style import PAGE_WIDTH, PREDICTED_COLOR, TRUE_COLOR, agent_label, draw

STEPS = (0, 10, 20, 30, 40, 50)
PREDICTED_ALPHA = 0.4
GROUND_COLOR = "#A7AFBA"


def plot_filmstrip(
    environment: str,
    true: ArrayLike,
    predicted: ArrayLike,
    agents: Sequence[Mapping[str, float]],
    path: str | os.PathLike[str],
    steps: Sequence[int] = STEPS,
) -> Figure:
    """Draws a grid of agents (rows) by steps of the open-loop prediction (columns).

    Args:
      environment: `cart_pole` or `mountain_car`.
      true: `[A, S + 1, D]`; NaN after an episode has ended.
      predicted: `[A, S + 1, D]`, as `true`.
      agents: The agents' covariates by name, length A.
      path: File to write.
      steps: Steps to show; those beyond S are left out.

    Returns:
      The figure, one axes per panel, row by row.
    """
    scene = scene_of(environment)
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    if true.shape != predicted.shape or true.ndim != 3 or len(agents) != len(true):
        raise ValueError(
            f"true {true.shape}, predicted {predicted.shape} and {len(agents)} agents do not fit: "
            "give [agents, steps + 1, coordinates] twice and one set of covariates per agent"
        )
    shown = [step for step in steps if step < true.shape[1]]
    windows = windows_of(scene, np.concatenate([true, predicted], axis=1), agents)
    ratios = [(high - low) / (right - left) for left, right, low, high in windows]
    # Each row has the shape of its window, with a line of text above.
    height = sum(ratio * PAGE_WIDTH / len(shown) + 0.3 for ratio in ratios) + 0.7

    def paint(figure: Figure) -> None:
        grid = figure.subplots(
            len(agents), len(shown), squeeze=False, gridspec_kw={"height_ratios": ratios}
        )
        for row, agent in enumerate(agents):
            for column, step in enumerate(shown):
                axes = grid[row, column]
                _panel(axes, scene, windows[row], true[row, step], predicted[row, step], agent)
                if row == 0:
                    axes.set_title("start" if step == 0 else f"step {step}", fontsize=11, pad=20)
            _row_title(grid[row, 0], agent)
        handles = [
            Patch(facecolor=TRUE_COLOR, label="true state"),
            Patch(
                facecolor=(PREDICTED_COLOR, PREDICTED_ALPHA),
                edgecolor=PREDICTED_COLOR,
                label="predicted state",
            ),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)

    return draw(path, PAGE_WIDTH, height, paint)


def _row_title(axes: Axes, agent: Mapping[str, float]) -> None:
    # Above the row's left end: beside it, the text would take a third of the width.
    text = axes.annotate(
        agent_label(agent),
        (0.0, 1.0),
        xytext=(0, 3),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9.5,
        color="#3B4450",
        annotation_clip=False,
    )
    # It may reach over the next panels without pushing them aside.
    text.set_in_layout(False)


def _panel(
    axes: Axes,
    scene: Scene,
    limits: Window,
    true: ArrayLike,
    predicted: ArrayLike,
    agent: Mapping[str, float],
) -> None:
    axes.set(xlim=limits[:2], ylim=limits[2:], xticks=[], yticks=[], aspect="equal")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#E3E6EA")
    for shape in scene.ground:
        _add(axes, shape, GROUND_COLOR, 1.0, 1)
    drawn = 0
    for state, color, alpha, order in (
        (true, TRUE_COLOR, 1.0, 2),
        (predicted, PREDICTED_COLOR, PREDICTED_ALPHA, 3),
    ):
        if np.isfinite(state).all():
            drawn += 1
            for shape in scene.shapes(list(np.asarray(state)), agent):
                _add(axes, shape, color, alpha, order)
    if not drawn:
        axes.text(
            0.42,
            0.76,
            "episode\nhas ended",
            ha="center",
            va="center",
            transform=axes.transAxes,
            fontsize=9,
            color="#6B7480",
        )


def _add(axes: Axes, shape: Shape, color: str, alpha: float, order: int) -> None:
    # A translucent shape keeps an opaque edge, or it would vanish on top of the true state.
    look: dict[str, Any] = {"facecolor": (color, alpha), "zorder": order}
    look |= {"edgecolor": color, "linewidth": 0.0 if alpha == 1 else 0.9}
    if shape.kind == "polygon":
        axes.add_patch(Polygon(shape.points, **look))
    elif shape.kind == "disc":
        axes.add_patch(Circle(shape.points[0], shape.width / 2, **look))
    else:
        axes.plot(*zip(*shape.points, strict=True), color=color, zorder=order, linewidth=1.4)
