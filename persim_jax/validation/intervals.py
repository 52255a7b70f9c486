"""Whether intervals hold what they promise, and the rescaling that makes them.

Split conformal prediction (Lei et al., Distribution-free predictive inference for regression, 2018)
with the model's own standard deviation as scale: at each step and coordinate the errors of other
held-out agents, in standard deviations, say how wide an interval must be.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from persim_jax.validation.open_loop import Forecast
from persim_jax.validation.queries import Queries


class Coverage(NamedTuple):
    """Share of values inside their intervals at one level and step.

    Attributes:
      level: Nominal.
      step: Counted from 1.
      share: Observed, over windows and coordinates; NaN where there are none.
      low: Of its 95 % interval, clustered by agent.
      high: Likewise.
      windows: How many are behind it.
    """

    level: float
    step: int
    share: float
    low: float
    high: float
    windows: int


def scores(forecast: Forecast, queries: Queries) -> np.ndarray:
    """Errors in standard deviations `[Q, H, D]`, NaN where there was no step."""
    error = np.abs(queries.truth - forecast.mean)
    # Any other floor would be one in somebody's units.
    with np.errstate(over="ignore"):
        error = error / np.maximum(forecast.std, np.finfo(np.float64).tiny)
    return np.where(queries.mask[..., None], error, np.nan)


def nominal(levels: tuple[float, ...]) -> np.ndarray:
    """Half widths of a normal distribution's central intervals, in standard deviations."""
    return np.asarray([NormalDist().inv_cdf((1 + level) / 2) for level in levels])


def conformal_widths(scored: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    """Half widths in standard deviations, `[levels, H, D]`, from scores `[Q, H, D]`.

    The ceil((n + 1) level)-th smallest of n scores; the largest where that is beyond n. A step that
    no window reaches has the widths of the last one that some do.
    """
    steps, size = scored.shape[1:]
    widths = np.full((len(levels), steps, size), np.nan)
    for h in range(steps):
        column = np.sort(scored[~np.isnan(scored[:, h, 0]), h], axis=0)  # [n, D]
        n = len(column)
        for index, level in enumerate(levels):
            if n:
                rank = min(math.ceil((n + 1) * level), n)
                widths[index, h] = column[rank - 1]
            elif h:
                widths[index, h] = widths[index, h - 1]
    return widths


def cross_fitted(
    scored: np.ndarray, agents: np.ndarray, half: np.ndarray, levels: tuple[float, ...]
) -> np.ndarray:
    """Whether values lie in intervals that other agents rescaled: `[levels, Q, H, D]`, NaN if none.

    There are none of a half whose rescaling half has no window, as its records are too short.

    Args:
      scored: `[Q, H, D]`.
      agents: `[Q]` row of each window's agent.
      half: `[N]` bool, the half that an agent belongs to; each half is rescaled by the other.
      levels: Nominal coverage.
    """
    inside = np.full((len(levels), *scored.shape), np.nan)
    first = half[agents]
    for own, others in ((first, ~first), (~first, first)):
        widths = conformal_widths(scored[others], levels)
        inside[:, own] = contained(scored[own], widths)
    return inside


def contained(scored: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """`[Q, H, D]` against half widths `[levels, H, D]` or `[levels]`: 1, 0 or NaN as one is."""
    widths = widths.reshape(widths.shape + (1,) * (3 - widths.ndim))
    hit = (scored[None] <= widths[:, None]).astype(float)
    return np.where(np.isnan(scored)[None] | np.isnan(widths[:, None]), np.nan, hit)


def coverage(
    inside: np.ndarray,
    agents: np.ndarray,
    levels: tuple[float, ...],
    steps: tuple[int, ...],
    num_bootstraps: int,
    seed: int = 0,
) -> list[Coverage]:
    """Observed coverage at some steps, with intervals from resampled agents.

    Args:
      inside: `[levels, Q, H, D]`, from `contained` or `cross_fitted`.
      agents: `[Q]`.
      levels: Nominal.
      steps: Counted from 1; one beyond the horizon has no share.
      num_bootstraps: Draws of agents.
      seed: Of the draws.
    """
    found = []
    for index, level in enumerate(levels):
        for step in steps:
            hits = (
                inside[index, :, step - 1] if step <= inside.shape[2] else np.full((1, 1), np.nan)
            )
            there = ~np.isnan(hits[:, 0])
            if not there.any():
                found.append(Coverage(level, step, math.nan, math.nan, math.nan, 0))
                continue
            per_window = hits[there].mean(axis=1)
            low, high = ratio_interval(
                per_window, np.ones_like(per_window), agents[there], num_bootstraps, seed
            )
            share = float(per_window.mean())
            found.append(Coverage(level, step, share, low, high, int(there.sum())))
    return found


def ratio_interval(
    top: np.ndarray, bottom: np.ndarray, agents: np.ndarray, num_bootstraps: int, seed: int
) -> tuple[float, float]:
    """95 % percentile interval of sum(top) / sum(bottom) over windows, agents drawn anew."""
    draws = np.divide(*(drawn_sums(x, agents, num_bootstraps, seed) for x in (top, bottom)))
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def drawn_sums(
    values: np.ndarray, agents: np.ndarray, num_bootstraps: int, seed: int
) -> np.ndarray:
    """Sums of `values [Q]` over as many agents as there are, drawn with replacement, `[draws]`.

    The same agents, draws and seed give the same draws, so that ratios of sums are paired.
    """
    _, index = np.unique(agents, return_inverse=True)
    per_agent = np.bincount(index, weights=values)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(
        len(per_agent), np.full(len(per_agent), 1 / len(per_agent)), num_bootstraps
    )
    sums: np.ndarray = counts @ per_agent
    return sums
