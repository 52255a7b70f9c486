"""Errors and returns against one setting: agents in the data, rank, members, kind of data."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.records import NO_BEHAVIOR, Row
from experiments.reporting import model
from experiments.reporting.build import CONTROL, PREDICTION
from experiments.reporting.commands import command_of
from experiments.reporting.measures import Measure, diverged, episode_values, with_divergence
from experiments.reporting.model import Cell, Column, Line, Table
from experiments.reporting.overrides import (
    KNOBS,
    is_study,
    settings_key,
    settings_of,
    shipped_value,
)
from experiments.reporting.selection import (
    BEHAVIOR_ORDER,
    ENVIRONMENT_ORDER,
    METHOD_ORDER,
    AgentKey,
    agent_of,
    ordered,
    select,
)
from experiments.reporting.sheet import is_augmented, is_policy
from persim_jax.evaluation import paper, statistics

METRICS: Mapping[str, str] = {PREDICTION[0]: "RMSE", CONTROL[0]: "return"}
TITLES: Mapping[str, str] = {
    "agents.num_agents": "Data scarcity: agents in the data",
    "model.rank": "Rank of the factors",
    "model.ensemble_size": "Members of the ensemble",
}
_NAMES = ("environment", "behavior", "method", "metric")
QUALITY = ("random", "pure_eps40", "pure_eps20", "pure")
"""Kinds of data, from no policy at all to the policy alone."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One value of a line.

    Attributes:
      x: The setting.
      value: Mean over agents of the mean over trials; infinite if a run diverged.
      low: Lower end of its 95 % interval; NaN if unknown.
      high: Upper end.
      num_runs: Runs behind the value, trials of all agents.
      num_diverged: Those of them that diverged.
    """

    x: Any
    value: float
    low: float
    high: float
    num_runs: int = 0
    num_diverged: int = 0


@dataclasses.dataclass(frozen=True)
class Curve:
    """A method's numbers in one environment and kind of data, over a setting.

    Attributes:
      environment: Its name.
      behavior: Name of the data; empty where that is what varies.
      method: Its name.
      metric: `rmse_mean` or `return_mean`.
      points: By setting, smallest first.
      num_agents: Agents behind each point, the same for all of them.
    """

    environment: str
    behavior: str
    method: str
    metric: str
    points: tuple[Point, ...]
    num_agents: int


def study_names(rows: Sequence[Row]) -> list[str]:
    """Returns the settings that rows vary: the `KNOBS`, then any others by name."""
    found = {name for row in _measured(rows) for name in settings_of(row)}
    return [*KNOBS, *sorted(found - {*KNOBS})]


def study_title(name: str) -> str:
    """Returns the heading of a study of a setting."""
    return TITLES.get(name, f"Setting {name}")


def study_axis(name: str) -> str:
    """Returns how the axis of a setting is named."""
    return KNOBS.get(name, name)


def knob_curves(rows: Sequence[Row], knob: str) -> list[Curve]:
    """Returns the curves over one setting, the shipped value of it included where it has rows.

    A run that varies two settings at once belongs to no curve; what all of a line's runs set to
    the same value, as an override of a whole sweep does, is not varied.
    """
    found = {name: _by_value(group, knob) for name, group in _lines(rows).items()}
    return _curves(
        {name: dict(values.values()) for name, values in found.items() if len(values) > 1}
    )


def behavior_curves(rows: Sequence[Row]) -> list[Curve]:
    """Returns the curves over the kind of data."""
    values: dict[tuple[str, ...], dict[Any, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for (environment, behavior, method, metric), group in _lines(rows).items():
        if behavior in QUALITY and not is_augmented(method):
            for row in select([row for row in group if not is_study(row)]):
                values[environment, "", method, metric][QUALITY.index(behavior)].append(row)
    return _curves({name: found for name, found in values.items() if len(found) > 1})


def study_tables(rows: Sequence[Row]) -> dict[str, Table]:
    """Returns the tables of the studies that have rows, by setting."""
    found = {knob: _table(knob, rows) for knob in study_names(rows)}
    return {knob: table for knob, table in found.items() if table.lines}


def _lines(rows: Sequence[Row]) -> dict[tuple[str, ...], list[Row]]:
    lines: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in _measured(rows):
        lines[tuple(row[name] for name in _NAMES)].append(row)
    return lines


def _by_value(rows: Sequence[Row], knob: str) -> dict[str, tuple[Any, list[Row]]]:
    """The rows of a line that vary at most one setting, with its value, by the value's text."""
    settings = [settings_of(row) for row in rows]
    shared = {name for name in settings[0] if len({repr(s.get(name)) for s in settings}) == 1}
    values: dict[str, tuple[Any, list[Row]]] = {}
    for row, found in zip(rows, settings, strict=True):
        if {*found} - shared <= {knob}:
            variant = row.get("variant") or "default"
            x = found.get(knob, shipped_value(row["environment"], variant, knob))
            x = tuple(x) if isinstance(x, list) else x
            values.setdefault(repr(x), (x, []))[1].append(row)
    return values


def _measured(rows: Sequence[Row]) -> list[Row]:
    """Rows of test agents' errors and returns, each setting's newest."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in with_divergence(rows):
        if row["metric"] in METRICS and row["covariates"] and not is_policy(row):
            groups[settings_key(row)].append(row)
    return [
        row
        for group in groups.values()
        for row in select(group)
        if row["behavior"] != NO_BEHAVIOR and _is_tested(row)
    ]


def _is_tested(row: Row) -> bool:
    agents = paper.paper_agents(row["environment"])
    keys = {paper.agent_key(row["environment"], agent) for agent in agents}
    return not keys or agent_of(row) in keys


def _curves(
    values: Mapping[tuple[str, ...], Mapping[Any, Sequence[Row]]],
) -> list[Curve]:
    made = []
    for (environment, behavior, method, metric), by_x in values.items():
        agents = [{agent_of(row) for row in found} for found in by_x.values()]
        shared = set.intersection(*agents)
        points = tuple(_point(x, by_x[x], shared) for x in sorted(by_x, key=_order))
        if shared:
            made.append(Curve(environment, behavior, method, metric, points, len(shared)))
    order = [ordered({getattr(c, name) for c in made}, known) for name, known in _ORDERS]
    return sorted(
        made,
        key=lambda c: (
            list(METRICS).index(c.metric),
            *(
                names.index(getattr(c, name))
                for names, (name, _) in zip(order, _ORDERS, strict=True)
            ),
        ),
    )


_ORDERS: tuple[tuple[str, Sequence[str]], ...] = (
    ("environment", ENVIRONMENT_ORDER),
    ("behavior", BEHAVIOR_ORDER),
    ("method", METHOD_ORDER),
)


def is_number(x: Any) -> bool:
    """Returns whether a setting's value can stand on an axis."""
    return isinstance(x, int | float) and not isinstance(x, bool)


def _order(x: Any) -> tuple[Any, ...]:
    """Numbers by size, then everything else by its text."""
    return (0, x, "") if is_number(x) else (1, 0, str(x))


def _point(x: Any, rows: Sequence[Row], agents: set[AgentKey]) -> Point:
    cells: dict[AgentKey, list[list[float]]] = defaultdict(list)
    shown = [row for row in rows if agent_of(row) in agents]
    for row in shown:
        if row["value"] is not None or diverged(row):
            cells[agent_of(row)].append(episode_values(row))
    means = [np.mean([np.nanmean(trial) for trial in trials]) for trials in cells.values()]
    found = statistics.aggregate(list(cells.values()), lambda scores: scores.mean(axis=-1))
    value = float(np.mean(means)) if means else math.nan
    counts = (found.num_runs, sum(map(diverged, shown)))
    return Point(x, value, found.low, found.high, *counts)


def _table(knob: str, rows: Sequence[Row]) -> Table:
    curves = knob_curves(rows, knob)
    groups = _lines(rows)
    xs = sorted({point.x for curve in curves for point in curve.points}, key=_order)
    lines = []
    for curve in curves:
        points = {point.x: point for point in curve.points}
        labels = (
            model.environment_name(curve.environment),
            model.behavior_name(curve.behavior),
            model.method_name(curve.method),
            METRICS[curve.metric],
        )
        cells = tuple(_cell(points.get(x), curve.metric) for x in xs)
        where = (curve.environment, curve.behavior, curve.method, curve.metric)
        own = [row for _, found in _by_value(groups[where], knob).values() for row in found]
        command = command_of(own)
        keys = (curve.behavior, curve.method, command, curve.environment)
        lines.append(Line(labels, cells, *keys))
    return Table(
        name=knob.replace(".", "_"),
        environment="",
        title=study_title(knob),
        stubs=("Environment", "Data", "Method", "Number"),
        columns=tuple(
            Column(f"{x:,}" if is_number(x) and isinstance(x, int) else str(x)) for x in xs
        ),
        lines=tuple(lines),
        notes=(
            f"Columns: {study_axis(knob)} (--config.{knob}). Means over the test agents that all "
            "columns of a line have, with 95 % bootstrap intervals over trials or, of one trial, "
            "episodes.",
        ),
    )


def _cell(point: Point | None, metric: str) -> Cell:
    if point is None or math.isnan(point.value):
        return Cell()
    write = model.error_text if metric == PREDICTION[0] else model.return_text
    measured = Measure(
        metric, point.value, low=point.low, high=point.high, num_trials=point.num_runs,
        num_diverged=point.num_diverged,
    )  # fmt: skip
    if point.num_diverged:
        said = model.diverged_text(point.num_diverged, point.num_runs, "runs")
        return Cell(((said, ""),), measures=(measured,))
    pieces = [(write(point.value), "")]
    if math.isfinite(point.low):
        pieces.append((f"[{write(point.low)}, {write(point.high)}]", ""))
    return Cell(tuple(pieces), measures=(measured,))
