"""PerSim against each other method over all cells of an environment: two numbers a method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from experiments.records import NO_BEHAVIOR, TRUE_ENV, Row
from experiments.reporting import model
from experiments.reporting.build import CONTROL, PREDICTION, is_ablation
from experiments.reporting.measures import (
    BETTER,
    SAME,
    UNKNOWN,
    WORSE,
    Measure,
    episode_values,
    trial_values,
)
from experiments.reporting.model import Cell, Column, Line, Table
from experiments.reporting.selection import METHOD_ORDER, AgentKey, ordered
from experiments.reporting.sheet import Sheet, environments, is_augmented, make_sheet
from persim_jax.evaluation import statistics
from persim_jax.evaluation.statistics import Pooled

Cells: TypeAlias = Mapping[tuple[str, AgentKey], list[list[float]]]
"""By behavior and agent: per trial the values of its episodes."""
TITLES: Mapping[str, str] = {PREDICTION[0]: "RMSE over 50 steps", CONTROL[0]: "return"}
NOTES = (
    "IQM: interquartile mean of the runs' scores, over the cells that both methods have; a run's "
    "score is its mean over episodes. Probability of improvement: of a run of PerSim being better "
    "than a run of the other method, ties half, mean over cells; 0.5 is level. A run that diverged "
    "has the worst score that there is. In brackets: 95 % bootstrap intervals, stratified by cell.",
    "Intervals over episodes know nothing of other data and other training: with one trial they "
    "are too narrow.",
)


def overview_table(rows: Sequence[Row], metric: str, reference: str = "persim") -> Table:
    """Makes the table of a metric: interquartile means, and how likely `reference` is better.

    A line is better or worse where the interval of the probability excludes 0.5.
    """
    lines = []
    for environment in environments(rows):
        sheet = make_sheet(rows, environment, 1, (metric,), lambda r: _is_compared(r["method"]))
        ours = _cells(sheet, reference)
        for method in ordered({key[1] for key in sheet.cells} - {reference}, METHOD_ORDER):
            found = _line(environment, ours, _cells(sheet, method), method, metric)
            lines += [found] if found else []
    name = model.method_name(reference)
    columns = (
        Column("Probability of improvement", f"of {name} over the method"),
        Column("IQM", name),
        Column("IQM", "the method"),
        Column("Cells"),
        Column("Runs", "of the method"),
        Column("Interval over"),
    )
    return Table(
        name=f"overview_{metric}",
        environment="",
        title=f"{name} against other methods: {TITLES[metric]}",
        stubs=("Environment", "Against"),
        columns=columns,
        lines=tuple(lines),
        notes=NOTES if any(_over_episodes(line) for line in lines) else NOTES[:1],
    )


def overview_tables(rows: Sequence[Row]) -> list[Table]:
    """Returns the overviews of prediction and return that have something to compare."""
    found = [overview_table(rows, metric) for metric in (PREDICTION[0], CONTROL[0])]
    return [table for table in found if table.lines]


def _is_compared(method: str) -> bool:
    return not (is_augmented(method) or is_ablation(method))


def _cells(sheet: Sheet, method: str) -> Cells:
    """The cells of a method in which a run has a score."""
    return {
        (behavior, key): [episode_values(row) for row in rows]
        for (behavior, name, key, _), rows in sheet.cells.items()
        if name == method and not all(map(math.isnan, trial_values(rows)))
    }


def _line(environment: str, ours: Cells, theirs: Cells, method: str, metric: str) -> Line | None:
    # True env has no data, so each of our behaviors meets the same cell of it.
    partner = {cell: (NO_BEHAVIOR, cell[1]) if method == TRUE_ENV else cell for cell in ours}
    shared = [cell for cell in ours if partner[cell] in theirs]
    if not shared:
        return None
    first, second = [ours[cell] for cell in shared], [theirs[partner[cell]] for cell in shared]
    lower = metric == PREDICTION[0]
    better = statistics.improvement(first, second, lower_is_better=lower)
    means = [statistics.aggregate(cells) for cells in (first, second)]
    verdict = UNKNOWN
    if math.isfinite(better.low):
        verdict = BETTER if better.low > 0.5 else WORSE if better.high < 0.5 else SAME
    probability = Cell(
        pieces=((f"{better.value:.2f}", verdict), (_interval(better, "probability"), "")),
        measures=(_measure("probability_of_improvement", better, verdict),),
    )
    cells = [
        _mean_cell(mean, found, metric) for mean, found in zip(means, (first, second), strict=True)
    ]
    counts = (str(means[1].num_cells), str(means[1].num_runs), better.over)
    plain = [Cell(pieces=((text, ""),)) for text in counts]
    labels = (model.environment_name(environment), model.method_name(method))
    return Line(labels, (probability, *cells, *plain), "", method, environment=environment)


def _mean_cell(mean: Pooled, cells: Sequence[list[list[float]]], metric: str) -> Cell:
    """An interquartile mean, and how many of the runs diverged; without it if too many did."""
    num_diverged = sum(any(map(math.isinf, run)) for cell in cells for run in cell)
    said = model.diverged_text(num_diverged, mean.num_runs, "runs") if num_diverged else ""
    write = model.error_text if metric == PREDICTION[0] else model.return_text
    pieces = ((write(mean.value), ""), (_interval(mean, metric), ""))
    measured = _measure(f"{metric}_iqm", mean, "", num_diverged)
    if math.isinf(mean.value):
        return Cell(((said, ""),), measures=(measured,))
    return Cell(pieces, extra=said, measures=(measured,))


def _measure(name: str, found: Pooled, verdict: str, num_diverged: int = 0) -> Measure:
    return Measure(
        name, found.value, low=found.low, high=found.high, num_trials=found.num_runs,
        verdict=verdict, num_diverged=num_diverged,
    )  # fmt: skip


def _interval(found: Pooled, metric: str) -> str:
    if not math.isfinite(found.low):
        return ""
    if metric == PREDICTION[0]:
        return f"[{model.error_text(found.low)}, {model.error_text(found.high)}]"
    digits = 2 if metric == "probability" else 0 if abs(found.value) >= 1000 else 1
    return model.interval_text(found.low, found.high, digits)


def _over_episodes(line: Line) -> bool:
    return line.cells[-1].pieces[0][0] != statistics.TRIALS
