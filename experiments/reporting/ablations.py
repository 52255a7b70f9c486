"""What each idea of PerSim is worth: methods that leave one out, beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from experiments.records import Row
from experiments.reporting import model
from experiments.reporting.build import CONTROL, PREDICTION, is_ablation
from experiments.reporting.measures import (
    BETTER,
    LOWER_IS_BETTER,
    SAME,
    WORSE,
    Measure,
    diverged,
    measure,
    sign_verdict,
)
from experiments.reporting.model import Cell, Column, Line, Table
from experiments.reporting.selection import (
    ABLATIONS,
    BEHAVIOR_ORDER,
    AgentKey,
    ordered,
)
from experiments.reporting.sheet import Sheet, make_sheet
from experiments.reporting.side_tables import paired_episodes
from persim_jax.evaluation import aggregate, paper

REFERENCE = "persim"
TITLES = {PREDICTION[0]: "RMSE over 50 steps", CONTROL[0]: "return"}
NOTE = (
    "Marks are against PerSim on the same data, not against the paper: the 95 % interval of the "
    "difference, paired by episode, lies on the better side of 0 (▲), holds it (=), lies on the "
    "worse side (▼). In brackets: 95 % interval of the mean over episodes."
)


def ablation_tables(rows: Sequence[Row], environment: str) -> list[Table]:
    """Returns the tables of errors and returns of an environment's ablations that have lines."""
    found = [_ablation_table(rows, environment, metric) for metric in TITLES]
    return [table for table in found if table.lines]


def _ablation_table(rows: Sequence[Row], environment: str, metric: str) -> Table:
    shown = (REFERENCE, *ABLATIONS)
    sheet = make_sheet(rows, environment, 0, (metric,), lambda r: r["method"] in shown)
    found = {(key[0], key[1]) for key in sheet.cells}
    lines = []
    for behavior in ordered({b for b, m in found if is_ablation(m)}, BEHAVIOR_ORDER):
        for method in ordered({m for b, m in found if b == behavior}, shown):
            keys = [paper.agent_key(environment, agent) for agent in sheet.agents]
            cells = tuple(
                _cell(sheet, behavior, method, key, model.agent_name(agent))
                for key, agent in zip(keys, sheet.agents, strict=True)
            )
            labels = (model.behavior_name(behavior), model.method_name(method))
            lines.append(Line(labels, cells, behavior, method))
    return Table(
        name=f"ablations_{metric}",
        environment=environment,
        title=f"Ablations, {model.environment_name(environment)}: {TITLES[metric]}",
        stubs=("Data", "Method"),
        columns=tuple(Column(model.agent_name(agent)) for agent in sheet.agents),
        lines=tuple(lines),
        notes=(NOTE,),
    )


def _cell(sheet: Sheet, behavior: str, method: str, key: AgentKey, agent: str) -> Cell:
    metric = sheet.metrics[0]
    rows = sheet.cells.get((behavior, method, key, metric), [])
    if not rows:
        return Cell(agent=agent)
    found = measure(rows, None)
    verdict = ""
    if is_ablation(method):
        verdict = against(rows, sheet.cells.get((behavior, REFERENCE, key, metric), []))
    interval = _interval(found, metric in LOWER_IS_BETTER)
    pieces = ((model.measure_text(found), verdict), (interval, ""))
    return Cell(pieces, measures=(found,), agent=agent)


def against(rows: Sequence[Row], others: Sequence[Row]) -> str:
    """Returns whether rows are better than, level with or worse than others, paired by episode.

    Both are rows of one metric and agent; unknown, which is empty, without an interval. Where
    trials diverged, those decide: fewer of them are better.
    """
    shares = [sum(map(diverged, found)) / max(len(found), 1) for found in (rows, others)]
    if others and any(shares):
        return SAME if shares[0] == shares[1] else BETTER if shares[0] < shares[1] else WORSE
    a, b, _ = paired_episodes(rows, others)
    found = aggregate.paired_difference(a, b)
    if rows[0]["metric"] in LOWER_IS_BETTER:
        found = aggregate.Estimate(-found.value, -found.high, -found.low)
    return sign_verdict(found)


def _interval(found: Measure, errors: bool) -> str:
    if errors and math.isfinite(found.low):
        return f"[{model.error_text(found.low)}, {model.error_text(found.high)}]"
    return model.interval_text(found.low, found.high)
