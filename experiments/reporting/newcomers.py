"""Agents that were not in the training data: errors by how much they have shown of themselves."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from experiments.records import Row
from experiments.reporting import model
from experiments.reporting.commands import run_command
from experiments.reporting.measures import Measure
from experiments.reporting.model import Cell, Column, Line, Table
from experiments.reporting.selection import BEHAVIOR_ORDER, ENVIRONMENT_ORDER, ordered, select
from experiments.reporting.studies import Curve, Point
from persim_jax.evaluation import statistics

_NEWCOMERS = re.compile(
    r"rmse_newcomers_(?P<policy>behavior|test_policy)_(?P<count>\d+)_transitions(?P<told>_and_.*)?"
)
_KNOWN = re.compile(r"rmse_known_agents_(?P<policy>behavior|test_policy)")
POLICIES: Mapping[str, str] = {"behavior": "of the data", "test_policy": "of the test"}
SHOWN, TOLD = "transitions", "covariates, too"


def is_of_newcomers(metric: str) -> bool:
    """Returns whether a metric is about agents that were not in the training data."""
    return bool(_NEWCOMERS.fullmatch(metric) or _KNOWN.fullmatch(metric))


def newcomers_tables(rows: Sequence[Row]) -> list[Table]:
    """Returns a table for each environment and behavior of the data that newcomers were met on."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in select([row for row in rows if is_of_newcomers(row["metric"])]):
        groups[row["environment"], row["behavior"]].append(row)
    return [
        _table(environment, behavior, groups[environment, behavior])
        for environment in ordered({name for name, _ in groups}, ENVIRONMENT_ORDER)
        for behavior in ordered({b for name, b in groups if name == environment}, BEHAVIOR_ORDER)
    ]


def newcomers_curves(rows: Sequence[Row], policy: str = "behavior") -> list[Curve]:
    """Returns the median errors of newcomers against the transitions that they have shown."""
    found: dict[tuple[str, str, str], list[Point]] = defaultdict(list)
    for row in select([row for row in rows if _NEWCOMERS.fullmatch(row["metric"])]):
        match = _NEWCOMERS.fullmatch(row["metric"])
        if match and match["policy"] == policy and (row["value"] is not None or _diverged(row)):
            value = math.inf if row["value"] is None else float(row["value"])
            name = (row["environment"], row["behavior"], TOLD if match["told"] else SHOWN)
            found[name].append(Point(int(match["count"]), value, *_interval(row)))
    ranks = {name: index for index, name in enumerate(ENVIRONMENT_ORDER)}
    return [
        Curve(*name, "rmse_mean", tuple(sorted(points, key=lambda p: p.x)), 0)
        for name, points in sorted(found.items(), key=lambda x: (ranks.get(x[0][0], 99), x[0]))
    ]


def _table(environment: str, behavior: str, rows: Sequence[Row]) -> Table:
    found: dict[tuple[str, str], dict[int, Row]] = defaultdict(dict)
    known: dict[str, Row] = {}
    for row in rows:
        if match := _NEWCOMERS.fullmatch(row["metric"]):
            source = TOLD if match["told"] else SHOWN
            found[match["policy"], source][int(match["count"])] = row
        elif match := _KNOWN.fullmatch(row["metric"]):
            known[match["policy"]] = row
    counts = sorted({count for cells in found.values() for count in cells})
    lines = []
    command = run_command(environment, behavior, (), module="experiments.unseen")
    for policy in POLICIES:
        for source in (SHOWN, TOLD):
            cells = found.get((policy, source), {})
            line = [_cell(cells.get(count)) for count in counts]
            if cells:
                labels = (POLICIES[policy], source)
                bound = _cell(known.get(policy))
                lines.append(Line(labels, (*line, bound), behavior, "persim", command))
    head = [Column(str(count), "transitions") for count in counts]
    sizes = sorted({len(row["agent_values"]) for row in rows if row.get("agent_values")})
    return Table(
        name=f"unseen_{behavior}",
        environment=environment,
        title=f"Unseen agents, {model.environment_name(environment)}, "
        f"{model.behavior_name(behavior)} data: median RMSE over newcomers",
        stubs=("Policy", "Known"),
        columns=(*head, Column("Known agents", "the bound")),
        lines=tuple(lines),
        notes=(
            f"Newcomers: {' or '.join(map(str, sizes)) or 'unknown'}, drawn by another seed. In "
            "brackets: 95 % bootstrap interval of the median over agents. Policy: who acts in the "
            "fresh episodes that are predicted.",
        ),
    )


def _cell(row: Row | None) -> Cell:
    if row is None or (row["value"] is None and not _diverged(row)):
        return Cell()
    if row["value"] is None:
        said = model.diverged_text(_diverged(row), len(row["agent_values"]), "agents")
        measured = Measure(row["metric"], math.inf, num_trials=1, num_diverged=1)
        return Cell(((said, ""),), measures=(measured,))
    low, high = _interval(row)
    interval = ""
    if math.isfinite(low):
        interval = f"[{model.error_text(low)}, {model.error_text(high)}]"
    measured = Measure(row["metric"], float(row["value"]), low=low, high=high)
    pieces = ((model.error_text(float(row["value"])), ""),)
    return Cell(pieces, extra=interval, measures=(measured,))


def _diverged(row: Row) -> int:
    """How many agents' predictions diverged; one without a score has no value, not null."""
    return (row.get("agent_values") or []).count(None)


def _interval(row: Row) -> tuple[float, float]:
    """The 95 % interval of the median over agents."""
    values = [math.inf if v is None else float(v) for v in row.get("agent_values") or ()]
    found = statistics.median_interval([values])
    return found.low, found.high
