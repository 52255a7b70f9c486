"""Figure 2: true states, opaque, and predicted states, translucent, over the horizon."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, PathPatch, Polygon
from matplotlib.path import Path
from numpy.typing import ArrayLike, NDArray

from experiments.figures.scenes import Film, film_of, scene_of
from experiments.figures.shapes import Scene, Shape, Window, moved, visible
from experiments.figures.style import PAGE_WIDTH, PREDICTED_COLOR, TRUE_COLOR, agent_label, draw

STEPS = (0, 10, 20, 30, 40, 50)
PREDICTED_ALPHA = 0.4
GROUND_COLOR = "#A7AFBA"
LOST = "prediction left\nthe finite numbers"
OUTSIDE = "out of view"


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
      environment: A name in `SCENES`.
      true: `[A, S + 1, D]`; NaN after an episode has ended.
      predicted: `[A, S + 1, D]`, as `true`.
      agents: The agents' covariates by name, length A.
      path: File to write.
      steps: Steps to show; those beyond S are left out.

    Returns:
      The figure, one axes per panel, row by row.
    """
    film = film_of(scene_of(environment), true, predicted, agents)
    shown = [step for step in steps if step < film.true.shape[1]]
    return _draw_strips(environment, film, {"": film.predicted}, agents, shown, path)


def plot_side_by_side(
    environment: str,
    true: ArrayLike,
    predicted: Mapping[str, ArrayLike],
    agents: Sequence[Mapping[str, float]],
    path: str | os.PathLike[str],
    steps: Sequence[int] = (10, 30, 50),
) -> Figure:
    """Draws several models' predictions of the same episodes: a block of columns for each model.

    What is seen follows the truth and the first model; another's prediction may leave the picture.

    Args:
      environment: A name in `SCENES`.
      true: `[A, S + 1, D]`; NaN after an episode has ended.
      predicted: `[A, S + 1, D]` by the name of the model.
      agents: The agents' covariates by name, length A.
      path: File to write.
      steps: Steps to show of each; where none is within S, the last.

    Returns:
      The figure; its axes are block by block, in each row by row.

    Raises:
      ValueError: If there is no model, or shapes do not fit each other.
    """
    if not predicted:
        raise ValueError("there is no model's prediction: give one by its name at least")
    scene, first = scene_of(environment), next(iter(predicted.values()))
    film = film_of(scene, true, first, agents)
    poses = {name: film_of(scene, true, own, agents).predicted for name, own in predicted.items()}
    last = film.true.shape[1] - 1
    shown = [step for step in steps if step <= last] or [last]
    return _draw_strips(environment, film, poses, agents, shown, path)


def _draw_strips(
    environment: str,
    film: Film,
    predicted: Mapping[str, NDArray[Any]],
    agents: Sequence[Mapping[str, float]],
    shown: Sequence[int],
    path: str | os.PathLike[str],
) -> Figure:
    """Agents by steps, a block of columns for each model's poses `[A, T, P]`."""
    ratios = [(high - low) / (right - left) for left, right, low, high in film.windows]
    width, gap = len(shown), 0.15
    columns = width * len(predicted) + gap * (len(predicted) - 1)
    # Each row has the shape of its window, with a line of text above.
    height = sum(ratio * PAGE_WIDTH / columns + 0.3 for ratio in ratios) + 0.7
    # Between two blocks stands an empty column.
    widths = [*([1.0] * width), gap] * len(predicted)
    spec = {"height_ratios": ratios, "width_ratios": widths[:-1]}

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(agents), len(widths) - 1, squeeze=False, gridspec_kw=spec)
        for axes in grid[:, width :: width + 1].flat:
            axes.remove()
        for index, (name, poses) in enumerate(predicted.items()):
            block = grid[:, index * (width + 1) :][:, :width]
            _strip(block, scene_of(environment), film, poses, shown, agents, columns)
            if name:
                middle = block[0, width // 2]
                middle.set_title(f"{name}\n{middle.get_title()}", fontsize=11, pad=20)
        for row, agent in enumerate(agents):
            _row_title(grid[row, 0], agent)
        figure.legend(handles=_legend(), loc="outside lower center", ncols=2)

    return draw(path, PAGE_WIDTH, height + (0.2 if len(predicted) > 1 else 0.0), paint)


def _strip(
    grid: NDArray[Any],
    scene: Scene,
    film: Film,
    predicted: NDArray[Any],
    shown: Sequence[int],
    agents: Sequence[Mapping[str, float]],
    columns: float,
) -> None:
    """Fills panels, agents (rows) by steps (columns), of a page of so many columns."""
    size = 9 if columns < 8 else 7.5
    for row, agent in enumerate(agents):
        for column, step in enumerate(shown):
            axes = grid[row, column]
            window = moved(film.windows[row], film.cameras[row, step])
            _panel(axes, scene, window, film.true[row, step], predicted[row, step], agent, size)
            if row == 0:
                axes.set_title("start" if step == 0 else f"step {step}", fontsize=11, pad=20)


def _legend() -> list[Patch]:
    color = (PREDICTED_COLOR, PREDICTED_ALPHA)
    return [
        Patch(facecolor=TRUE_COLOR, label="true state"),
        Patch(facecolor=color, edgecolor=PREDICTED_COLOR, label="predicted state"),
    ]


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
    window: Window,
    true: NDArray[Any],
    predicted: NDArray[Any],
    agent: Mapping[str, float],
    size: float,
) -> None:
    axes.set(xlim=window[:2], ylim=window[2:], xticks=[], yticks=[], aspect="equal")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color="#E3E6EA")
    _add(axes, visible(scene.ground(window), window), GROUND_COLOR, 1.0, 1)
    goes_on = [bool(np.isfinite(pose).all()) for pose in (true, predicted)]
    if goes_on[0]:
        _add(axes, visible(scene.shapes(list(true), agent), window), TRUE_COLOR, 1.0, 2)
        _write(axes, (0.04, 0.97), scene.note(list(true)), TRUE_COLOR, size, ha="left", va="top")
    if goes_on[1]:
        shapes = visible(scene.shapes(list(predicted), agent), window)
        _add(axes, shapes, PREDICTED_COLOR, PREDICTED_ALPHA, 3)
    if any(goes_on):
        note = LOST
        if goes_on[1]:
            note = scene.note(list(predicted)) or ("" if shapes else OUTSIDE)
        _write(axes, (0.96, 0.97), note, PREDICTED_COLOR, size, ha="right", va="top")
    else:
        _write(axes, (0.42, 0.76), "episode\nhas ended", "#6B7480", size, ha="center", va="center")


def _write(
    axes: Axes, place: tuple[float, float], text: str, color: str, size: float, **align: Any
) -> None:
    if text:
        # Legible on top of a pose, too.
        look: dict[str, Any] = {"fontsize": size, "color": color, "zorder": 4}
        box = {"facecolor": (1.0, 1.0, 1.0, 0.75), "linewidth": 0.0, "pad": 1.0}
        axes.text(place[0], place[1], text, transform=axes.transAxes, bbox=box, **look, **align)


def _add(axes: Axes, shapes: Sequence[Shape], color: str, alpha: float, order: int) -> None:
    # A translucent shape keeps an opaque edge, or it would vanish on top of the true state.
    look: dict[str, Any] = {"facecolor": (color, alpha), "zorder": order}
    look |= {"edgecolor": color, "linewidth": 0.0 if alpha == 1 else 0.9}
    for shape in shapes:
        if shape.kind == "polygon":
            axes.add_patch(Polygon(shape.points, **look))
        elif shape.kind == "disc":
            axes.add_patch(Circle(shape.points[0], shape.width / 2, **look))
        elif shape.kind == "line":
            axes.plot(*zip(*shape.points, strict=True), color=color, zorder=order, linewidth=1.4)
    outlines = [capsule_outline(shape) for shape in shapes if shape.kind == "capsule"]
    if outlines:
        # One path: where capsules overlap, a translucent fill does not add up.
        axes.add_patch(PathPatch(Path.make_compound_path(*outlines), **look))


def capsule_outline(shape: Shape, points: int = 13) -> Path:
    """Returns the outline of a capsule, anticlockwise, with so many points on each round end."""
    (x, y), (far_x, far_y) = shape.points
    across = math.atan2(far_y - y, far_x - x) + math.pi / 2
    turn = np.linspace(across, across + math.pi, points)
    back = shape.width / 2 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    corners = np.concatenate([np.array([x, y]) + back, np.array([far_x, far_y]) - back])
    return Path(np.concatenate([corners, corners[:1]]), closed=True)
