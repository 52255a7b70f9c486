"""One cell's number: ours over trials, the paper's, and which of the two is ahead."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.records import Row
from persim_jax.evaluation import aggregate, statistics
from persim_jax.evaluation.aggregate import Estimate
from persim_jax.evaluation.paper import NUM_TRIALS, PaperCell, equal_as_printed

BETTER, SAME, WORSE, UNKNOWN = "better", "same", "worse", ""
LOWER_IS_BETTER = frozenset({"rmse_mean"})
WORST: Mapping[str, float] = {
    "rmse_mean": math.inf,
    "r2_median": -math.inf,
    "return_mean": -math.inf,
}
"""The value of a run that diverged: JSON has no infinity, so its row says null."""
# A root mean squared error that the paper prints as 0.0 counts as reached below this.
ZERO_REACHED = 0.005
_NORMAL_95 = 1.959964


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number of ours beside the paper's.

    Attributes:
      metric: Name in rows.
      value: Mean over trials; infinite if one diverged, NaN if none has a score.
      std: Standard deviation over trials; NaN for one trial, or if one diverged.
      low: Lower end of the 95 % interval over episodes, of their mean or median; NaN if unknown.
      high: Its upper end.
      num_trials: Trials behind the value, those that diverged among them.
      num_episodes: Episodes of one trial; None if rows do not say.
      paper: The paper's number; None where it prints none.
      verdict: `better`, `same`, `worse`, or empty without a number to compare with.
      num_diverged: Trials that diverged.
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
    num_diverged: int = 0


def diverged(row: Row) -> bool:
    """Returns whether a row's null says that its run diverged, not that no episode has a score.

    Predictions leave the finite numbers in an episode; of the median R^2, in half of them. Returns
    have no other reason. Rows of errors say which it was, those from before they did by
    `with_divergence`.
    """
    known = row["metric"] in WORST and row["value"] is None
    return known and row.get("episodes_diverged", 1) > 0


def with_divergence(rows: Iterable[Row]) -> list[Row]:
    """Returns rows of which those that are null for want of a score say so.

    Where a row itself does not, the row beside it counts the episodes that were too short.
    """
    rows = list(rows)
    too_short = {
        _run(row)
        for row in rows
        if row["metric"] == "episodes_left_out" and row["value"] == row.get("num_episodes")
    }
    return [
        {"episodes_diverged": 0} | row if row["value"] is None and _run(row) in too_short else row
        for row in rows
    ]


def _run(row: Row) -> tuple[Any, ...]:
    """What rows of one prediction test share."""
    names = ("environment", "behavior", "method", "agent_id", "trial", "config_digest")
    return tuple(row.get(name) for name in (*names, "code_version"))


def episode_values(row: Row) -> list[float]:
    """Returns the values of a run's episodes; its value alone where they were not kept.

    A run that diverged has the worst value, one without a score NaN.
    """
    if row["value"] is None:
        return [WORST[row["metric"]] if diverged(row) else math.nan]
    values = row.get("episode_values") or [row["value"]]
    return [math.nan if value is None else float(value) for value in values]


def trial_values(rows: Iterable[Row]) -> list[float]:
    """Returns the values of rows, one per trial; of null ones as in `episode_values`."""
    return [episode_values(row)[0] if row["value"] is None else float(row["value"]) for row in rows]


def measure(rows: Sequence[Row], paper: PaperCell | None) -> Measure:
    """Makes a measure of one cell's rows of one metric, one row per trial."""
    metric = rows[0]["metric"]
    values = trial_values(rows)
    mean, std = aggregate.mean_and_std(values)
    interval = _interval(rows, metric)
    made = Measure(
        metric=metric,
        value=mean,
        std=std,
        low=interval.low,
        high=interval.high,
        num_trials=int((~np.isnan(values)).sum()),
        num_episodes=rows[0].get("num_episodes"),
        paper=paper,
        num_diverged=sum(map(diverged, rows)),
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
    trials where it prints their spread, else half a unit of the last digit that it prints. One
    trial that diverged makes it worse: a mean with it has no bound.
    """
    paper, value = measured.paper, measured.value
    if paper is None or math.isnan(value):
        return UNKNOWN
    if measured.num_diverged:
        return WORSE
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
    episodes = [None if diverged(row) else row.get("episode_values") for row in rows]
    if any(not values for values in episodes) or not metric.endswith(("_mean", "_median")):
        return Estimate(math.nan)
    cells = [[math.nan if v is None else float(v) for v in values or ()] for values in episodes]
    if metric.endswith("_median"):
        return statistics.median_interval(cells)
    return aggregate.cells_interval(cells)
