"""Figures of a run, each a pure function of arrays that writes one file and returns its figure.

Nothing here computes results or knows where a run keeps its files; `gallery` does the latter.
"""

from experiments.figures.animation import write_gif
from experiments.figures.curves import plot_horizon_error, plot_learning_curves, plot_timings
from experiments.figures.factors import plot_agent_factors
from experiments.figures.filmstrip import plot_filmstrip, plot_side_by_side

__all__ = [
    "plot_agent_factors",
    "plot_filmstrip",
    "plot_horizon_error",
    "plot_learning_curves",
    "plot_side_by_side",
    "plot_timings",
    "write_gif",
]
