"""Curves of a run: error over the horizon, training loss, time by stage."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from experiments.figures.style import COLORS, DASHES, PAGE_WIDTH, agent_label, draw

# Times the median agent's highest error: beyond, a model has left the world.
_EXPLODED = 1e3


def plot_horizon_error(
    rmse: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    agents: Sequence[Mapping[str, float]],
    path: str | os.PathLike[str],
    band: str = "band: 10 to 90 % of episodes",
) -> Figure:
    """Draws the open-loop error after each step, one line and band per agent.

    Args:
      rmse: `[A, S]`, mean over episodes; NaN where no episode lasted.
      low: `[A, S]`, lower end of the band.
      high: `[A, S]`, its upper end.
      agents: The agents' covariates by name, length A.
      path: File to write.
      band: What the band means.
    """
    rmse, low, high = (np.asarray(x, float) for x in (rmse, low, high))
    if rmse.shape != low.shape or rmse.shape != high.shape or len(agents) != len(rmse):
        raise ValueError(
            f"rmse {rmse.shape}, low {low.shape}, high {high.shape} and {len(agents)} agents do "
            "not fit: give [agents, steps] three times and one set of covariates per agent"
        )
    steps = np.arange(1, rmse.shape[1] + 1)

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for row, agent in enumerate(agents):
            color, dash = COLORS[row % len(COLORS)], DASHES[row % len(DASHES)]
            axes.plot(steps, rmse[row], color=color, linestyle=dash, label=agent_label(agent))
            axes.fill_between(steps, low[row], high[row], color=color, alpha=0.13, linewidth=0)
        log_if_positive(axes, rmse)
        cut_explosions(axes, rmse)
        axes.set(xlabel="open-loop step", ylabel="RMSE of the state", xlim=(1, rmse.shape[1]))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title=f"agent ({band})")

    return draw(path, PAGE_WIDTH, 4.0, paint)


def plot_learning_curves(
    epochs: ArrayLike,
    losses: ArrayLike,
    path: str | os.PathLike[str],
    phases: Sequence[str] = (),
) -> Figure:
    """Draws the training loss of every member.

    Args:
      epochs: `[E]`.
      losses: `[E, M]`; NaN where a loss was not finite.
      path: File to write.
      phases: The phase of training that each epoch belongs to, length E; where it changes, a line
        is drawn. None by default.
    """
    epochs, losses = np.asarray(epochs, float), np.asarray(losses, float)
    if losses.ndim != 2 or len(losses) != len(epochs):
        raise ValueError(
            f"losses {losses.shape} do not fit {len(epochs)} epochs; give [epochs, members]"
        )

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for member in range(losses.shape[1]):
            color, dash = COLORS[member % len(COLORS)], DASHES[member % len(DASHES)]
            label = f"member {member}"
            axes.plot(epochs, losses[:, member], color=color, linestyle=dash, label=label)
        log_if_positive(axes, losses)
        for row in range(1, len(phases)):
            if phases[row] != phases[row - 1]:
                where = (epochs[row - 1] + epochs[row]) / 2
                axes.axvline(where, color="#5B6470", linewidth=1.0)
                above = axes.get_xaxis_transform()
                axes.text(where, 1.0, f" {phases[row]}", transform=above, va="bottom", fontsize=9.5)
        axes.set(xlabel="epoch", ylabel="training loss")
        axes.margins(x=0.01)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper right", ncols=2)

    return draw(path, PAGE_WIDTH, 3.6, paint)


def plot_timings(timings: Mapping[str, float], path: str | os.PathLike[str]) -> Figure:
    """Draws the seconds that each stage took, in the order given, as horizontal bars."""
    if not timings:
        raise ValueError("timings are empty; give seconds by stage")
    names = [name.replace("_", " ") for name in timings]
    seconds = [float(value) for value in timings.values()]

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        bars = axes.barh(names, seconds, color=COLORS[0], height=0.62)
        axes.bar_label(bars, [duration(value) for value in seconds], padding=4, fontsize=9.5)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set(xlabel="seconds", title=f"total {duration(sum(seconds))}")
        axes.margins(x=0.12)

    return draw(path, PAGE_WIDTH, 0.36 * len(names) + 1.2, paint)


def duration(seconds: float) -> str:
    """Writes a duration: `0.4 s`, `12 s`, `4 min 20 s`, `2 h 5 min`."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def log_if_positive(axes: Axes, values: ArrayLike) -> None:
    """Errors span decades; a logarithmic axis shows all of them unless one is exactly 0."""
    finite = np.asarray(values)[np.isfinite(values)]
    if finite.size and (finite > 0).all():
        axes.set_yscale("log")


def cut_explosions(axes: Axes, rmse: NDArray[Any]) -> None:
    """Lets agents whose error `[A, S]` explodes leave the picture: the others stay legible."""
    finite = np.isfinite(rmse)
    if axes.get_yscale() != "log" or not finite.any():
        return
    highest = np.where(finite, rmse, 0.0).max(axis=1)
    top = _EXPLODED * float(np.median(highest))
    if highest.max() > top > 0:
        axes.set_ylim(rmse[finite].min() / 2, top)
