"""Means, spreads and bootstrap intervals of measured numbers; numpy only.

Two kinds of uncertainty are kept apart. The standard deviation over trials, as the paper prints it,
says how much data and training matter. The intervals here resample episodes, so they say how well
the episodes that were run pin down the mean of what was trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]

LEVEL = 0.95
NUM_RESAMPLES = 5000
# Resamples are drawn in blocks of about this many numbers, so that memory stays small.
_BLOCK_SIZE = 2_000_000


class Estimate(NamedTuple):
    """A number with its interval; `low` and `high` are NaN where there is nothing to resample."""

    value: float
    low: float = math.nan
    high: float = math.nan


class Shortfall(NamedTuple):
    """How far a method stays below planning in the true environment.

    Attributes:
      cells: One estimate per cell, in the order given.
      mean: Their mean over cells, with an interval from resampling within every cell.
    """

    cells: tuple[Estimate, ...]
    mean: Estimate


def mean_and_std(values: ArrayLike) -> tuple[float, float]:
    """Returns the mean and the sample standard deviation (n - 1) of values over trials.

    NaN, a trial without a value, is passed over. An infinite value, a trial that diverged, is not:
    the mean is infinite then, and the deviation NaN. The deviation of a single trial is NaN, too,
    not 0: one trial says nothing about the spread.
    """
    array = np.asarray(values, np.float64).reshape(-1)
    array = array[~np.isnan(array)]
    if array.size == 0:
        return math.nan, math.nan
    spread_is_known = array.size > 1 and np.isfinite(array).all()
    return float(array.mean()), float(array.std(ddof=1)) if spread_is_known else math.nan


def mean_interval(
    values: ArrayLike, level: float = LEVEL, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Estimate:
    """Returns the mean over episodes with its percentile bootstrap interval."""
    return cells_interval([values], level, num_resamples, seed)


def cells_interval(
    cells: Sequence[ArrayLike],
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Returns the mean over cells of each cell's mean, resampled within every cell.

    Args:
      cells: Per cell its episodes' values `[E]`; lengths may differ, every cell weighs the same.
      level: Coverage of the interval.
      num_resamples: Bootstrap resamples.
      seed: Seed of the resampling: the same rows give the same report.
    """
    arrays = [_finite(cell) for cell in cells]
    return _stratified([a[:, None] for a in arrays], _mean_column, level, num_resamples, seed)[0]


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """Returns the mean over episodes of `a - b`, both `[E]` and met by the same episodes.

    Raises:
      ValueError: If the lengths differ, so that episodes cannot be pairs.
    """
    pairs = paired(a, b)
    return mean_interval(pairs[:, 0] - pairs[:, 1], level, num_resamples, seed)


def relative_shortfall(
    cells: Sequence[tuple[ArrayLike, ArrayLike]],
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Shortfall:
    """Returns `(R_true - R_method) / |R_true|` per cell and its mean over cells.

    Args:
      cells: Per cell the returns of the true environment and of the method, each `[E]`, paired by
        episode; a resample keeps pairs together.
      level: Coverage of the intervals.
      num_resamples: Bootstrap resamples.
      seed: Seed of the resampling.

    Returns:
      Positive numbers where the method is behind. NaN where the true environment's mean is 0.
    """
    pairs = [paired(true, method) for true, method in cells]
    mean, per_cell = _stratified(pairs, _shortfall_column, level, num_resamples, seed)
    return Shortfall(per_cell, mean)


def paired(a: ArrayLike, b: ArrayLike) -> Array:
    """Stacks two `[E]` arrays to `[E, 2]`, without the episodes that lack either value."""
    first, second = (np.asarray(x, np.float64).reshape(-1) for x in (a, b))
    if first.size != second.size:
        raise ValueError(
            f"{first.size} and {second.size} episodes cannot be paired: give the values of the "
            "same episodes, in the same order"
        )
    both = np.stack([first, second], axis=1)
    return np.asarray(both[np.isfinite(both).all(axis=1)])


def _finite(values: ArrayLike) -> Array:
    array = np.asarray(values, np.float64).reshape(-1)
    return np.asarray(array[np.isfinite(array)])


def _mean_column(means: Array) -> Array:
    return np.asarray(means[..., 0])


def _shortfall_column(means: Array) -> Array:
    true, method = means[..., 0], means[..., 1]
    scale = np.where(true == 0, np.nan, np.abs(true))
    return np.asarray((true - method) / scale)


def _stratified(
    strata: Sequence[Array],
    statistic: Callable[[Array], Array],
    level: float,
    num_resamples: int,
    seed: int,
) -> tuple[Estimate, tuple[Estimate, ...]]:
    """Bootstraps `mean over strata of statistic(column means of a stratum)`.

    Args:
      strata: Per stratum its units `[E, C]`; a unit is drawn whole.
      statistic: From column means `[..., C]` to numbers `[...]`.
      level: Coverage.
      num_resamples: Resamples.
      seed: Seed.

    Returns:
      The estimate of the mean, and one per stratum.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; give a coverage between 0 and 1, such as 0.95")
    if not strata:
        return Estimate(math.nan), ()
    rng = np.random.default_rng(seed)
    values, draws = [], []
    for units in strata:
        if len(units) == 0:
            values.append(math.nan)
            draws.append(np.full(num_resamples, np.nan))
            continue
        values.append(float(statistic(units.mean(axis=0))))
        draws.append(statistic(_resampled_means(units, num_resamples, rng)))
    # One unit cannot vary, so a stratum of one has no interval, and neither has a mean with it.
    known = np.array([len(units) > 1 for units in strata])
    table = np.where(known[:, None], np.stack(draws), np.nan)
    cells = tuple(_estimate(v, row, level) for v, row in zip(values, table, strict=True))
    return _estimate(float(np.mean(values)), table.mean(axis=0), level), cells


def _resampled_means(units: Array, num_resamples: int, rng: np.random.Generator) -> Array:
    """Returns column means `[num_resamples, C]` of units drawn with replacement."""
    block = max(1, _BLOCK_SIZE // units.size)
    means: list[Any] = []
    for start in range(0, num_resamples, block):
        size = (min(block, num_resamples - start), len(units))
        means.append(units[rng.integers(len(units), size=size)].mean(axis=1))
    return np.concatenate(means)


def _estimate(value: float, draws: Array, level: float) -> Estimate:
    if not math.isfinite(value) or not np.isfinite(draws).all():
        return Estimate(value)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high))
