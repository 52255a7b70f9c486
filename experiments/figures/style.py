"""One look for all figures: legible at page width, told apart without seeing colours."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg", force=False)

from matplotlib.figure import Figure

# Okabe and Ito's palette, which people with any kind of colour vision can tell apart; its yellow is
# left out, as it is too light for lines on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (2, 1)))
TRUE_COLOR, PREDICTED_COLOR = "#1B2A41", "#D55E00"
PAGE_WIDTH = 10.0
"""Inches; reports and documents show a figure of this width about 1:1."""

_STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E3E6EA",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.edgecolor": "#5B6470",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "svg.fonttype": "none",
}

UNITS: Mapping[str, str] = {
    "gravity": "gravity",
    "force": "force",
    "length": "half pole length",
    "mass_scale": "mass scale",
    "damping_scale": "damping scale",
}


def draw(
    path: str | os.PathLike[str],
    width: float,
    height: float,
    paint: Callable[[Figure], None],
) -> Figure:
    """Makes a figure in the common style, lets `paint` fill it, and saves it.

    Args:
      path: File whose suffix decides the format, such as .png or .svg.
      width: Inches.
      height: Inches.
      paint: Draws on the figure.

    Returns:
      The figure, not registered with pyplot, so that nothing has to close it.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure)
        figure.savefig(path)
    return figure


def agent_label(covariates: Mapping[str, float]) -> str:
    """Names an agent by its covariates, such as `force 10, half pole length 0.85`."""
    return ", ".join(f"{UNITS.get(k, k)} {float(v):.4g}" for k, v in covariates.items())
