"""Figure 1: what the agent factors know of covariates that training never saw."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from experiments.figures.style import PAGE_WIDTH, UNITS, draw
from persim_jax.evaluation.latent import (
    first_component_correlation,
    linear_r2,
    principal_components,
)


def plot_agent_factors(
    factors: ArrayLike,
    covariates: ArrayLike,
    covariate_names: Sequence[str],
    test_rows: Sequence[int] | NDArray[Any],
    path: str | os.PathLike[str],
    member: int = 0,
) -> Figure:
    """Draws t-SNE and principal components of agent factors, a row of panels per covariate.

    Args:
      factors: `[M, N, r]`. One member is drawn: the factors of different members are equal only up
        to a linear map, so they cannot share axes. The titles give all members' correlations.
      covariates: `[N, C]`.
      covariate_names: Length C.
      test_rows: Rows of the test agents, ringed.
      path: File to write.
      member: The member that is drawn.

    Returns:
      The figure: axes [C x 2], t-SNE left, principal components right.

    Raises:
      ValueError: If the shapes do not fit each other.
    """
    factors, covariates = np.asarray(factors, float), np.asarray(covariates, float)
    if factors.ndim != 3 or covariates.shape != (factors.shape[1], len(covariate_names)):
        raise ValueError(
            f"factors {factors.shape}, covariates {covariates.shape} and {len(covariate_names)} "
            "names do not fit: give [members, agents, rank], [agents, covariates] and their names"
        )
    tsne = tsne_embedding(factors[member])
    components, shares = principal_components(factors[member])
    rings = np.asarray(test_rows, int)
    height = 3.9 * len(covariate_names) + 0.3

    def paint(figure: Figure) -> None:
        grid = figure.subplots(len(covariate_names), 2, squeeze=False)
        for row, name in enumerate(covariate_names):
            values = covariates[:, row]
            _scatter(grid[row, 0], tsne, values, rings)
            grid[row, 0].set(xlabel="t-SNE 1", ylabel="t-SNE 2", xticks=[], yticks=[])
            points = _scatter(grid[row, 1], components, values, rings)
            labels = [f"component {i + 1} ({100 * share:.1f} %)" for i, share in enumerate(shares)]
            grid[row, 1].set(xlabel=labels[0], ylabel=labels[1])
            grid[row, 1].set_title(_correlation_text(factors, values, member))
            fit = linear_r2(factors[member], values)
            title = f"{UNITS.get(name, name)}: R² from all factors {fit:.2f}"
            grid[row, 0].set_title(title)
            bar = figure.colorbar(points, ax=list(grid[row]), fraction=0.04, pad=0.02)
            bar.set_label(UNITS.get(name, name))
            bar.outline.set_visible(False)  # type: ignore[operator]
        if rings.size:
            grid[0, 1].legend(loc="best", handletextpad=0.3)

    return draw(path, PAGE_WIDTH, height, paint)


def tsne_embedding(factors: ArrayLike, seed: int = 0) -> NDArray[np.float64]:
    """Returns the t-SNE embedding `[N, 2]` of factors `[N, r]`, scaled per factor."""
    from sklearn.manifold import TSNE  # slow to import, and only this figure needs it

    factors = np.asarray(factors, float)
    spread = factors.std(axis=0)
    scaled = (factors - factors.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    perplexity = min(30.0, (len(factors) - 1) / 3)
    model = TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=seed)
    return np.asarray(model.fit_transform(scaled), float)


def _scatter(axes: Axes, points: Any, values: Any, rings: NDArray[Any]) -> Any:
    drawn = axes.scatter(points[:, 0], points[:, 1], c=values, cmap="viridis", s=14, linewidths=0)
    if rings.size:
        axes.scatter(
            points[rings, 0],
            points[rings, 1],
            s=95,
            facecolors="none",
            edgecolors="#D55E00",
            linewidths=1.8,
            label="test agents",
        )
    return drawn


def _correlation_text(factors: NDArray[Any], values: NDArray[Any], member: int) -> str:
    found = [first_component_correlation(own, values) for own in factors]
    text = f"|r| with component 1: {found[member]:.2f}"
    if len(found) == 1 or not np.isfinite(found).all():
        return text
    return f"{text} (all members: {min(found):.2f} to {max(found):.2f})"
