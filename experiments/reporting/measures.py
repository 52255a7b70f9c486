"""One cell's number: ours over trials, the paper's, and which of the two is ahead."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from experiments.records import Row
from persim_jax.evaluation import aggregate, statistics
from persim_jax.evaluation.aggregate import Estimate
from persim_jax.evaluation.paper import NUM_TRIALS, PaperCell, equal_as_printed

BETTER, SAME, WORSE, UNKNOWN = "better", "same", "worse", ""
LOWER_IS_BETTER = frozenset({"rmse_mean"})
# A root mean squared error that the paper prints as 0.0 counts as reached below this.
ZERO_REACHED = 0.005
_NORMAL_95 = 1.959964


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number of ours beside the paper's.

    Attributes:
      metric: Name in rows.
      value: Mean over trials.
      std: Standard deviation over trials; NaN for one trial.
      low: Lower end of the 95 % interval over episodes, of their mean or median; NaN if unknown.
      high: Its upper end.
      num_trials: Trials behind the value.
      num_episodes: Episodes of one trial; None if rows do not say.
      paper: The paper's number; None where it prints none.
      verdict: `better`, `same`, `worse`, or empty without a number to compare with.
    """

    metric: str
    value: float
    std: float = math.nan
    low: float = math.nan
    high: float = math.nan
    num_trials: int = 0
    num_episodes: int | None = None
    paper: PaperCell | None = None
    verdict: str = UNKNOWN


def measure(rows: Sequence[Row], paper: PaperCell | None) -> Measure:
    """Makes a measure of one cell's rows of one metric, one row per trial."""
    metric = rows[0]["metric"]
    values = [math.nan if row["value"] is None else float(row["value"]) for row in rows]
    mean, std = aggregate.mean_and_std(values)
    interval = _interval(rows, metric)
    num_trials = int(np.isfinite(values).sum())
    made = Measure(
        metric=metric,
        value=mean,
        std=std,
        low=interval.low,
        high=interval.high,
        num_trials=num_trials,
        num_episodes=rows[0].get("num_episodes"),
        paper=paper,
    )
    return dataclasses.replace(made, verdict=verdict(made))


def sign_verdict(difference: Estimate) -> str:
    """Says whether a difference, better where it is above 0, is decided by its interval.

    Unknown where there is no interval, such as of one episode.
    """
    if not math.isfinite(difference.low):
        return UNKNOWN
    return BETTER if difference.low > 0 else WORSE if difference.high < 0 else SAME


def verdict(measured: Measure) -> str:
    """Says whether a measure is better than, the same as, or worse than the paper's number.

    It is the same when it is equal as the paper printed it, and when the 95 % interval of the
    difference holds 0: ours over episodes or, if wider, over trials; the paper's over its five
    trials where it prints their spread, else half a unit of the last digit that it prints.
    """
    paper, value = measured.paper, measured.value
    if paper is None or not math.isfinite(value):
        return UNKNOWN
    lower_is_better = measured.metric in LOWER_IS_BETTER
    if lower_is_better and paper.value == 0:
        return SAME if value < ZERO_REACHED else WORSE
    if equal_as_printed(value, paper) or abs(value - paper.value) <= _margin(measured, paper):
        return SAME
    ahead = value < paper.value if lower_is_better else value > paper.value
    return BETTER if ahead else WORSE


def reached(measured: Measure, share: float = 1.0) -> bool:
    """Returns whether an error is at or below a share of the paper's."""
    if measured.paper is None or not math.isfinite(measured.value):
        return False
    if measured.paper.value == 0:
        return measured.verdict == SAME
    as_printed = share == 1.0 and equal_as_printed(measured.value, measured.paper)
    return as_printed or measured.value <= share * measured.paper.value


def _margin(measured: Measure, paper: PaperCell) -> float:
    """Returns how far our number may lie from the paper's and still be the same."""
    towards = (
        measured.value - measured.low
        if paper.value < measured.value
        else (measured.high - measured.value)
    )
    ours = towards if math.isfinite(towards) else 0.0
    if measured.num_trials > 1:
        ours = max(ours, _NORMAL_95 * measured.std / math.sqrt(measured.num_trials))
    if paper.std is None:
        return ours + 0.5 * 10.0**-paper.decimals
    return math.hypot(ours, _NORMAL_95 * paper.std / math.sqrt(NUM_TRIALS))


def _interval(rows: Sequence[Row], metric: str) -> Estimate:
    episodes = [row.get("episode_values") for row in rows]
    if any(not values for values in episodes) or not metric.endswith(("_mean", "_median")):
        return Estimate(math.nan)
    cells = [[math.nan if v is None else float(v) for v in values or ()] for values in episodes]
    if metric.endswith("_median"):
        return statistics.median_interval(cells)
    return aggregate.cells_interval(cells)
