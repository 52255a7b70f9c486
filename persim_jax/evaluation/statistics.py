"""Statistics over runs, cells and methods that a few outlying numbers cannot carry; numpy only.

A *cell* is one number of a table: one agent under one behavior. It holds a run per trial, and a run
holds its episodes. A run's score is the mean over its episodes: infinite, the worst that there is,
for a run that diverged, and NaN, passed over, for one without a score. What is said of a method is
said of the scores of all its cells: their interquartile mean, and how often they beat another's.

Intervals are bootstrapped, stratified by cell: the cells are those of the table, not a sample, so a
resample keeps every cell and draws within it. Of n trials it draws n - 1 with replacement (Rao and
Wu, 1988, with draws one fewer than units), which has the variance of a mean of n right at every n;
n draws would understate it by (n - 1) / n, which with two trials is half. A cell of one trial knows
nothing of training and data, so there its episodes are drawn instead, in the same way, and `over`
says so. Where cells differ in their number of trials, what is drawn counts so often that each cell
weighs in a resample what its trials weigh in the statistic. See Agarwal et al., "Deep Reinforcement
Learning at the Edge of the Statistical Precipice", 2021, for why interquartile means and
probabilities of improvement.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from persim_jax.evaluation.aggregate import LEVEL, Array, Estimate

Cell: TypeAlias = Sequence[ArrayLike] | NDArray[np.float64]
"""Per trial the values of its episodes `[E]`; trials may differ in length."""

NUM_RESAMPLES = 2000
MAX_COPIES = 60
TRIALS, EPISODES, BOTH = "trials", "episodes", "trials; episodes of one trial"


class Pooled(NamedTuple):
    """A statistic of many cells.

    Attributes:
      value: The statistic of the scores.
      low: Lower end of its interval; NaN where a cell has but one episode.
      high: Upper end.
      over: What the interval resamples: `TRIALS`, `EPISODES` or, where cells differ, `BOTH`.
      num_cells: Cells with a score.
      num_runs: Runs with a score, in all cells.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    over: str = EPISODES
    num_cells: int = 0
    num_runs: int = 0


def interquartile_mean(values: ArrayLike) -> float:
    """Returns the mean of the middle half of values that are not NaN; NaN if there is none.

    Of n values, sorted, the floor(n / 4) smallest and as many of the largest are left out, as in
    `scipy.stats.trim_mean(values, 0.25)`. So it is finite while at most floor(n / 4) are infinite.
    """
    array = _scored(values)
    return float(_trimmed_mean(array)) if array.size else math.nan


def probability_of_improvement(a: ArrayLike, b: ArrayLike) -> float:
    """Returns the share of pairs (x of `a`, y of `b`) with x above y, ties counted half.

    It is Mann and Whitney's U over n m. The two need not be of one length. NaN if one is empty.
    Values that are NaN are passed over; infinite ones are above or below all others.
    """
    first, second = (_scored(x) for x in (a, b))
    if not (first.size and second.size):
        return math.nan
    return float(_share_above(first, second))


def aggregate(
    cells: Sequence[Cell],
    statistic: Callable[[Array], Array] | None = None,
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Pooled:
    """Returns a statistic of the scores of all cells' runs, with its stratified interval.

    Args:
      cells: Cells; one without a score is passed over.
      statistic: From scores `[..., R]` to numbers `[...]`; the interquartile mean if not given.
      level: Coverage of the interval.
      num_resamples: Bootstrap resamples.
      seed: Seed of the resampling: the same rows give the same report.

    Raises:
      ValueError: If the level is not between 0 and 1.
    """
    kept = [scores for scores in map(_Scores.of, cells) if scores.runs.size]
    if not kept:
        return Pooled(math.nan)
    num_runs = sum(scores.runs.size for scores in kept)
    # Of a resample, which has another number of scores, the same share is cut.
    of = functools.partial(_trimmed_mean, num_runs=num_runs) if statistic is None else statistic
    rng = np.random.default_rng(seed)
    value = float(of(np.concatenate([scores.runs for scores in kept])))
    copies = _copies([scores.runs.size for scores in kept])
    draws = [
        np.repeat(scores.resampled(num_resamples, rng), count, axis=1)
        for scores, count in zip(kept, copies, strict=True)
    ]
    estimate = _estimate(value, of(np.concatenate(draws, axis=1)), level)
    return Pooled(*estimate, _over(kept), len(kept), num_runs)


def improvement(
    a: Sequence[Cell],
    b: Sequence[Cell],
    lower_is_better: bool = False,
    level: float = LEVEL,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Pooled:
    """Returns the probability that a run of `a` beats a run of `b`, mean over cells.

    With one trial of each, a cell counts 1, 0 or, for a tie, half.

    Args:
      a: Cells of one method.
      b: Those of the other, in the same order; a pair that lacks either is passed over.
      lower_is_better: Whether a lower score wins, as with errors.
      level: Coverage of the interval.
      num_resamples: Bootstrap resamples.
      seed: Seed of the resampling.

    Raises:
      ValueError: If the numbers of cells differ, or the level is not between 0 and 1.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} cells against {len(b)}: give the same cells in the same order")
    pairs = [(_Scores.of(x), _Scores.of(y)) for x, y in zip(a, b, strict=True)]
    pairs = [(x, y) for x, y in pairs if x.runs.size and y.runs.size]
    if not pairs:
        return Pooled(math.nan)
    sign = -1.0 if lower_is_better else 1.0
    rng = np.random.default_rng(seed)
    value = float(np.mean([_share_above(sign * x.runs, sign * y.runs) for x, y in pairs]))
    draws = np.zeros(num_resamples)
    for pair in pairs:
        first, second = (sign * scores.resampled(num_resamples, rng) for scores in pair)
        draws += _share_above(first, second) / len(pairs)
    sides = [scores for pair in pairs for scores in pair]
    estimate = _estimate(value, draws, level)
    return Pooled(*estimate, _over(sides), len(pairs), sum(x.runs.size for x, _ in pairs))


def median_interval(
    trials: Cell, level: float = LEVEL, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Estimate:
    """Returns the mean over trials of the median over episodes, episodes resampled in each trial.

    Args:
      trials: Per trial its episodes' values `[E]`.
      level: Coverage of the interval.
      num_resamples: Bootstrap resamples.
      seed: Seed of the resampling.

    Raises:
      ValueError: If the level is not between 0 and 1.
    """
    kept = [found for trial in trials if (found := _scored(trial)).size]
    if not kept:
        return Estimate(math.nan)
    rng = np.random.default_rng(seed)
    value = float(np.mean([np.median(found) for found in kept]))
    if min(found.size for found in kept) < 2:
        return Estimate(value)
    draws = [np.median(_drawn(found, num_resamples, rng), axis=1) for found in kept]
    return _estimate(value, np.mean(draws, axis=0), level)


class _Scores(NamedTuple):
    """A cell's scores `[T]` and, for what to draw where there is one, its episodes `[E]`."""

    runs: Array
    episodes: Array

    @classmethod
    def of(cls, cell: Cell) -> _Scores:
        trials = [kept for trial in cell if (kept := _scored(trial)).size]
        runs = np.array([trial.mean() for trial in trials], np.float64)
        return cls(runs, trials[0] if len(trials) == 1 else np.empty(0))

    def resampled(self, num_resamples: int, rng: np.random.Generator) -> Array:
        """Scores of resampled runs `[num_resamples, max(T - 1, 1)]`; NaN if nothing can vary.

        A single run that diverged stays so, however its episodes are drawn.
        """
        if self.runs.size > 1:
            return _drawn(self.runs, num_resamples, rng)
        if np.isinf(self.runs).all():
            return np.full((num_resamples, 1), self.runs[0])
        if self.episodes.size < 2:
            return np.full((num_resamples, 1), np.nan)
        return np.asarray(_drawn(self.episodes, num_resamples, rng).mean(axis=1, keepdims=True))


def _drawn(units: Array, num_resamples: int, rng: np.random.Generator) -> Array:
    """Draws n - 1 of n units with replacement, `[num_resamples, n - 1]`."""
    return np.asarray(units[rng.integers(units.size, size=(num_resamples, units.size - 1))])


def _copies(num_runs: Sequence[int]) -> list[int]:
    """How often what is drawn of cells with so many runs counts, for weights as the runs have.

    Of T > 1 runs T - 1 are drawn, so each stands for T / (T - 1) runs. Whole numbers in these
    proportions; of large and unlike ones to two percent.
    """
    drawn = [max(number - 1, 1) for number in num_runs]
    whole = min(math.lcm(*drawn), MAX_COPIES)
    found = [round(n * whole / d) for n, d in zip(num_runs, drawn, strict=True)]
    common = math.gcd(*found)
    return [count // common for count in found]


def _over(cells: Sequence[_Scores]) -> str:
    single = {scores.runs.size == 1 for scores in cells}
    return BOTH if len(single) == 2 else EPISODES if True in single else TRIALS


def _trimmed_mean(values: Array, num_runs: int | None = None) -> Array:
    """Mean over the last axis `[..., R]` without its lowest and highest floor(n / 4) of n.

    Args:
      values: Scores.
      num_runs: n, whose share of R is cut; R if not given.
    """
    size = values.shape[-1]
    whole = num_runs or size
    cut = round(whole // 4 * size / whole)
    return np.asarray(np.sort(values, axis=-1)[..., cut : size - cut].mean(axis=-1))


def _share_above(a: Array, b: Array) -> Array:
    """Share of pairs with `a [..., n]` above `b [..., m]`, ties half; NaN with any NaN."""
    first, second = a[..., :, None], b[..., None, :]
    share = (0.5 * (first > second) + 0.5 * (first >= second)).mean(axis=(-2, -1))
    unknown = np.isnan(a).any(axis=-1) | np.isnan(b).any(axis=-1)
    return np.asarray(np.where(unknown, np.nan, share))


def _estimate(value: float, draws: Array, level: float) -> Estimate:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; give a coverage between 0 and 1, such as 0.95")
    if not np.isfinite(draws).all():
        return Estimate(value)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high))


def _scored(values: ArrayLike) -> Array:
    array = np.asarray(values, np.float64).reshape(-1)
    return np.asarray(array[~np.isnan(array)])
