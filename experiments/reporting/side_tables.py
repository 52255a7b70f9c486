"""Tables that the paper does not have: differences between methods, policies."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.records import TRUE_ENV, Row
from experiments.reporting import model
from experiments.reporting.build import in_table_2
from experiments.reporting.measures import Measure, sign_verdict
from experiments.reporting.model import Cell, Column, Line, Table
from experiments.reporting.selection import (
    BEHAVIOR_ORDER,
    ENVIRONMENT_ORDER,
    METHOD_ORDER,
    common_episodes,
    ordered,
    select,
)
from experiments.reporting.sheet import is_policy, make_sheet
from persim_jax.evaluation import aggregate, paper


def differences_table(rows: Sequence[Row], environment: str, reference: str = "persim") -> Table:
    """Makes the table of `reference` minus each other method, return, paired by episode.

    A cell is better or worse where the 95 % interval of the difference excludes 0, else a tie.
    """
    metric = ("return_mean",)
    sheet = make_sheet(
        rows,
        environment,
        2,
        metric,
        lambda r: r["method"] != TRUE_ENV and in_table_2(r["method"]),
    )
    by_cell = {(b, m, key): found for (b, m, key, _), found in sheet.cells.items()}
    names = {(b, m) for b, m, _ in by_cell if m != reference}
    lines = []
    for behavior in ordered({b for b, _ in names}, BEHAVIOR_ORDER):
        for method in ordered({m for b, m in names if b == behavior}, METHOD_ORDER):
            cells = []
            for agent in sheet.agents:
                key = paper.agent_key(environment, agent)
                ours, other = (by_cell.get((behavior, m, key), []) for m in (reference, method))
                cells.append(difference_cell(ours, other, model.agent_name(agent)))
            labels = (model.behavior_name(behavior), model.method_name(method))
            lines.append(Line(labels, tuple(cells), behavior, method))
    return Table(
        name="differences",
        environment=environment,
        title=f"{model.environment_name(environment)}: return of {model.method_name(reference)} "
        "minus that of other methods, paired by episode",
        stubs=("Data", "Against"),
        columns=tuple(Column(model.agent_name(agent)) for agent in sheet.agents),
        lines=tuple(lines),
        notes=("Marks: the 95 % interval of the difference lies above 0, holds 0, lies below 0.",),
    )


def paired_episodes(
    ours: Sequence[Row], others: Sequence[Row]
) -> tuple[list[float], list[float], int]:
    """Returns the values of the episodes that both have, trial after trial, and their trials."""
    by_trial = {(row["trial"], row.get("seed")): row for row in others}
    pairs = [
        common_episodes(row, partner)
        for row in ours
        if (partner := by_trial.get((row["trial"], row.get("seed")))) is not None
        and row.get("episode_values")
        and partner.get("episode_values")
    ]
    a, b = ([value for pair in pairs for value in pair[i]] for i in (0, 1))
    return a, b, len(pairs)


def difference_cell(ours: Sequence[Row], others: Sequence[Row], agent: str) -> Cell:
    """Makes the cell of ours minus others, paired by trial and episode; empty without pairs."""
    a, b, num_trials = paired_episodes(ours, others)
    found = aggregate.paired_difference(a, b)
    if not math.isfinite(found.value):
        return Cell(agent=agent)
    verdict = sign_verdict(found)
    interval = model.interval_text(found.low, found.high)
    measured = Measure("return_difference", found.value, math.nan, found.low, found.high)
    measured = dataclasses.replace(
        measured, num_trials=num_trials, num_episodes=len(a), verdict=verdict
    )
    pieces = ((model.return_text(found.value), verdict), (interval, ""))
    return Cell(pieces, measures=(measured,), agent=agent)


def policies_table(rows: Sequence[Row]) -> Table:
    """Makes the table of behavior and test policies: what they were trained to, and reach.

    It shows the rows of returns that have a `scope`: `own_agent` for the agent that a policy was
    trained on, `all_agents` for the whole population.
    """
    metrics = ("return_mean", "return_std")
    found = select([row for row in rows if is_policy(row) and row["metric"] in metrics])
    lines: dict[tuple[str, ...], dict[str, Row]] = defaultdict(dict)
    for row in found:
        own = row["scope"] == "own_agent"
        agent = model.agent_name(row["covariates"]) if own else "all agents"
        behavior = model.behavior_name(row["behavior"])
        lines[row["environment"], behavior, row["method"].upper(), agent][row["metric"]] = row
    made = []
    # The population last, below the policies that it was played with.
    for (environment, *labels), cells in sorted(lines.items(), key=lambda x: _policy_order(*x[0])):
        row = cells.get("return_mean", {})
        target = math.nan if row.get("target") is None else float(row["target"])
        shown = (
            model.return_text(target),
            model.return_text(_value(row), _value(cells.get("return_std"))),
            str(row.get("num_episodes") or model.DASH),
        )
        names = (model.environment_name(environment), *labels)
        made.append(Line(names, tuple(map(plain, shown)), labels[0], labels[1]))
    columns = (Column("Target"), Column("Return", "mean ± std over episodes"), Column("Episodes"))
    title = "Behavior and test policies"
    stubs = ("Environment", "Policy", "Learner", "Agent")
    missing = () if made else ("returns of the behavior and test policies",)
    return Table("policies", "", title, stubs, columns, tuple(made), missing=missing)


def _policy_order(environment: str, behavior: str, learner: str, agent: str) -> tuple[object, ...]:
    rank = ENVIRONMENT_ORDER.index(environment) if environment in ENVIRONMENT_ORDER else 99
    # Stable sorting keeps the order of training agents.
    return rank, environment, behavior, learner, agent == "all agents"


def plain(text: str) -> Cell:
    """Returns a cell of text that is compared with nothing."""
    return Cell(pieces=((text, ""),))


def _value(row: Mapping[str, Any] | None) -> float:
    value = None if row is None else row.get("value")
    return math.nan if value is None else float(value)
