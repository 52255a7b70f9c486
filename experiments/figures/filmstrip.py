"""Figure 2: true states, opaque, and predicted states, translucent, over the horizon."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Polygon
from numpy.typing import ArrayLike

from experiments.figures.scenes import Scene, Shape, scene_of
from experiments.figures.style import PAGE_WIDTH, PREDICTED_COLOR, TRUE_COLOR, agent_label, draw

STEPS = (0, 10, 20, 30, 40, 50)
PREDICTED_ALPHA = 0.55
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
    window = scene.window(true[0], agents[0])
    aspect = (window[3] - window[2]) / (window[1] - window[0])
    panel = PAGE_WIDTH / len(shown)
    # A row has the panel's shape and a line of text above it.
    height = len(agents) * (panel * min(aspect, 1.1) + 0.34) + 0.75

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(agents), len(shown), squeeze=False)
        for row, agent in enumerate(agents):
            states = np.concatenate([true[row], predicted[row]])
            limits = scene.window(states, agent)
            for column, step in enumerate(shown):
                axes = grid[row, column]
                _panel(axes, scene, limits, true[row, step], predicted[row, step], agent)
                if row == 0:
                    axes.set_title("start" if step == 0 else f"step {step}", fontsize=11, pad=14)
            _row_title(grid[row, 0], agent)
        handles = [
            Patch(color=TRUE_COLOR, label="true state"),
            Patch(color=PREDICTED_COLOR, alpha=PREDICTED_ALPHA, label="predicted state"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)

    return draw(path, PAGE_WIDTH, height, paint)


def _row_title(axes: Axes, agent: Mapping[str, float]) -> None:
    # Above the row's left end: beside it, the text would take a third of the width.
    axes.annotate(
        agent_label(agent),
        (0.0, 1.0),
        xytext=(0, 2),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=9.5,
        color="#3B4450",
        annotation_clip=False,
    )


def _panel(
    axes: Axes,
    scene: Scene,
    limits: tuple[float, float, float, float],
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
    kinds = ((true, TRUE_COLOR, 1.0, 2), (predicted, PREDICTED_COLOR, PREDICTED_ALPHA, 3))
    drawn = 0
    for state, color, alpha, order in kinds:
        if np.isfinite(state).all():
            drawn += 1
            for shape in scene.shapes(np.asarray(state), agent):
                _add(axes, shape, color, alpha, order)
    if not drawn:
        axes.text(
            0.5,
            0.6,
            "episode\nhas ended",
            ha="center",
            va="center",
            transform=axes.transAxes,
            fontsize=9,
            color="#6B7480",
        )


def _add(axes: Axes, shape: Shape, color: str, alpha: float, order: int) -> None:
    if shape.kind == "polygon":
        axes.add_patch(Polygon(shape.points, color=color, alpha=alpha, zorder=order, linewidth=0))
    elif shape.kind == "disc":
        axes.add_patch(
            Circle(
                shape.points[0],
                shape.width / 2,
                color=color,
                alpha=alpha,
                zorder=order,
                linewidth=0,
            )
        )
    else:
        x, y = zip(*shape.points, strict=True)
        # Line widths are in points: from world units by the width of a panel.
        left, right = axes.get_xlim()
        scale = 72 * axes.get_figure().get_figwidth() / _columns(axes) / (right - left)  # type: ignore[union-attr]
        axes.plot(
            x,
            y,
            color=color,
            alpha=alpha,
            zorder=order,
            linewidth=shape.width * scale,
            solid_capstyle="round" if len(shape.points) == 2 else "butt",
        )


def _columns(axes: Axes) -> int:
    spec = axes.get_subplotspec()
    return 1 if spec is None else spec.get_gridspec().ncols
