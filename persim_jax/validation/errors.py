"""Errors over the horizon, and whether personalization beats pooling."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from persim_jax.validation.intervals import drawn_sums
from persim_jax.validation.open_loop import Forecast
from persim_jax.validation.queries import Queries


class Heterogeneity(NamedTuple):
    """What personalization is worth.

    Attributes:
      gain: 1 - RMSE personalized / RMSE pooled.
      low: Of its 95 % interval, agents drawn anew.
      high: Likewise.
      num_agents: Agents behind it.
      num_windows: Windows behind it.
    """

    gain: float
    low: float
    high: float
    num_agents: int
    num_windows: int

    @property
    def found(self) -> bool:
        """Whether agents differ in a way that personalization uses: the interval is above zero."""
        return self.low > 0.0


def squared_errors(forecast: Forecast, queries: Queries, scale: np.ndarray) -> np.ndarray:
    """Mean squared error over coordinates in units of `scale [D]`, `[Q, H]`, NaN without a step."""
    error = np.square((queries.truth - forecast.mean) / scale).mean(axis=-1)
    return np.where(queries.mask, error, np.nan)


def rmse_over_horizon(squared: np.ndarray) -> np.ndarray:
    """RMSE at each step, `[Q, H] -> [H]`; NaN where no window goes."""
    there = ~np.isnan(squared)
    total = np.where(there, squared, 0.0).sum(axis=0)
    return np.sqrt(total / np.where(there.any(axis=0), there.sum(axis=0), np.nan))


def heterogeneity(
    personalized: np.ndarray,
    pooled: np.ndarray,
    agents: np.ndarray,
    num_bootstraps: int,
    seed: int = 0,
) -> Heterogeneity:
    """Compares squared errors `[Q, H]` of two models on the same windows of agents `[Q]`.

    The gain and its percentile interval are of the RMSE over all windows and steps; the bootstrap
    draws agents with replacement, since windows of one agent are not independent.
    """
    ours, theirs = (np.nansum(x, axis=1) for x in (personalized, pooled))
    draws = [drawn_sums(x, agents, num_bootstraps, seed) for x in (ours, theirs)]
    gains = 1 - np.sqrt(draws[0] / draws[1])
    low, high = np.quantile(gains, [0.025, 0.975])
    gain = 1 - np.sqrt(ours.sum() / theirs.sum())
    return Heterogeneity(float(gain), float(low), float(high), len(np.unique(agents)), len(agents))
