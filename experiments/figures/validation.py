"""Figures of a validation: errors of rivals, coverage, what personalization is worth, support."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import ArrayLike

from experiments.figures.style import COLORS, DASHES, PAGE_WIDTH, draw
from persim_jax.validation.verdicts import counted

LABELS = {
    "personalized": "personal simulator",
    "pooled": "one simulator for all",
    "one_per_agent": "a simple model of each alone",
    "persistence": "nothing changes",
}
SOFT = "#8a939e"


def precise(share: float) -> str:
    """A share in percent; one decimal where whole percents would round to a hundred."""
    return f"{share:.1%}" if 0.99 < share < 1 else f"{share:.0%}"


def plot_rivals(
    panels: Mapping[str, Mapping[str, ArrayLike]], path: str | os.PathLike[str]
) -> Figure:
    """Draws the error at each step of several methods, one panel for each kind of held-out data.

    Args:
      panels: By title, by method of `LABELS`, RMSE `[H]` in standard deviations.
      path: File to write.
    """

    def paint(figure: Figure) -> None:
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for own, (title, curves) in zip(axes, panels.items(), strict=True):
            for index, (name, values) in enumerate(curves.items()):
                curve = np.asarray(values, float)
                own.plot(
                    np.arange(1, len(curve) + 1),
                    curve,
                    color=COLORS[index],
                    linestyle=DASHES[index],
                    label=LABELS[name],
                    linewidth=2.6 if name == "personalized" else 1.6,
                )
            own.set(title=title, xlabel="steps simulated ahead", xlim=(1, None), yscale="log")
            own.axhline(1.0, color=SOFT, linewidth=0.9)
            own.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes[0].set_ylabel("error, in usual spreads of a value")
        _clip_low(axes, panels)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))

    return draw(path, PAGE_WIDTH, 4.2, paint)


def _clip_low(axes: Sequence[Axes], panels: Mapping[str, Mapping[str, ArrayLike]]) -> None:
    """Leaves out what has left the world, and keeps at least two decades in sight."""
    values = np.concatenate(
        [np.asarray(curve, float) for curves in panels.values() for curve in curves.values()]
    )
    values = values[np.isfinite(values) & (values > 0)]
    top = min(values.max() * 1.5, 30.0)
    axes[0].set_ylim(min(values.min() * 0.7, top / 100), top)


def plot_coverage(
    before: Sequence[tuple[float, int, float]],
    after: Sequence[tuple[float, int, float, float, float]],
    path: str | os.PathLike[str],
) -> Figure:
    """Draws how often intervals held, against how often they should.

    Args:
      before: (level, step, share) of the model's own intervals.
      after: (level, step, share, low, high) of rescaled ones.
      path: File to write.
    """
    levels = sorted({entry[0] for entry in after})

    def paint(figure: Figure) -> None:
        axes = figure.subplots(1, len(levels), squeeze=False)[0]
        for own, level in zip(axes, levels, strict=True):
            # A step that was reached may still have no interval that other agents rescaled.
            told = [
                (old, new)
                for old, new in zip(before, after, strict=True)
                if new[0] == level and np.isfinite(old[2])
            ]
            places = np.arange(len(told), dtype=float)
            own.axhline(level, color=SOFT, linewidth=1.4)
            own.plot(
                places - 0.12, [old[2] for old, _ in told], "o", color=COLORS[1], mfc="white",
                markersize=8, mew=1.8, label="as the model gives them",
            )  # fmt: skip
            shares, *ends = np.asarray([new[2:5] for _, new in told]).reshape(-1, 3).T
            own.errorbar(
                places + 0.12, shares, yerr=np.abs(ends - shares), fmt="o", color=COLORS[0],
                markersize=8, capsize=4, label="rescaled on other agents",
            )  # fmt: skip
            own.set_xticks(places, [counted(new[1], "step") for _, new in told])
            width = max(len(told), 1)
            own.set(title=f"should hold {level:.0%} of values", xlim=(-0.5, width - 0.5))
            seen = np.concatenate([shares - 0.05, *ends])
            lowest = min([0.0 if level < 0.6 else level - 0.35, *seen[np.isfinite(seen)]])
            own.set_ylim(max(lowest, 0.0) - 0.02, 1.02)
            own.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes[0].set_ylabel("values inside")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)

    return draw(path, PAGE_WIDTH, 3.8, paint)


def plot_gain(
    gains: Mapping[str, tuple[float, float, float]], path: str | os.PathLike[str]
) -> Figure:
    """Draws by how much personal simulators err less than one for all, with intervals.

    Args:
      gains: By kind of held-out data: gain, and the ends of its interval.
      path: File to write.
    """

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        places = np.arange(len(gains))[::-1]
        for place, (gain, low, high) in zip(places, gains.values(), strict=True):
            color = COLORS[2] if low > 0 else COLORS[1]
            axes.errorbar(
                gain, place, xerr=[[gain - low], [high - gain]], fmt="o", color=color,
                markersize=9, capsize=6, linewidth=2.2,
            )  # fmt: skip
            axes.annotate(
                precise(gain), (gain, place), xytext=(0, 11), textcoords="offset points",
                ha="center", color=color,
            )  # fmt: skip
        axes.axvline(0.0, color="#1B2A41", linewidth=1.2)
        lowest = min(low for _, low, _ in gains.values())
        axes.set(
            yticks=places, yticklabels=list(gains), ylim=(-0.6, len(gains) - 0.3),
            xlim=(min(-0.15, max(lowest * 1.1, -3.0)), 1.02),
            xlabel="how much smaller the error is than that of one simulator for all",
        )  # fmt: skip
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))

    return draw(path, PAGE_WIDTH, 2.3, paint)


def plot_agents(
    errors: ArrayLike,
    outside: ArrayLike,
    trusted: ArrayLike,
    limits: tuple[float, float],
    path: str | os.PathLike[str],
) -> Figure:
    """Draws every agent by its error and by how far it was from the data.

    Args:
      errors: `[N]`, in standard deviations.
      outside: `[N]`, share of steps outside the data.
      trusted: `[N]`, 0 for no trust, 1 for trust up to some steps, 2 for trust.
      limits: The thresholds of errors and of shares outside.
      path: File to write.
    """
    errors, outside, trusted = (np.asarray(x, float) for x in (errors, outside, trusted))
    names = ("do not trust", "trust up to some steps", "trust")
    colors, marks = (COLORS[1], COLORS[5], COLORS[0]), ("X", "s", "o")

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for kind in (2, 1, 0):
            own = trusted == kind
            if own.any():
                axes.scatter(
                    np.maximum(errors[own], 1e-6), outside[own], s=26, alpha=0.65, linewidths=0,
                    color=colors[kind], marker=marks[kind], label=f"{names[kind]}: {own.sum()}",
                )  # fmt: skip
        axes.axvline(limits[0], color=SOFT, linewidth=1.2, linestyle="--")
        axes.axhline(limits[1], color=SOFT, linewidth=1.2, linestyle="--")
        axes.set(
            xscale="log", xlabel="error of the whole simulated path, in usual spreads of a value",
            ylabel="steps unlike the data", ylim=(-0.03, 1.03),
        )  # fmt: skip
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title="one mark per agent")

    return draw(path, PAGE_WIDTH, 3.6, paint)
