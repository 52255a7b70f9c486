"""What numbers cost, and under what conditions they were measured."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.records import Row
from experiments.reporting import model
from experiments.reporting.build import CONTROL, PREDICTION
from experiments.reporting.model import Column, Line, Table
from experiments.reporting.overrides import is_study
from experiments.reporting.selection import (
    BEHAVIOR_ORDER,
    ENVIRONMENT_ORDER,
    METHOD_ORDER,
    ordered,
    select,
)
from experiments.reporting.sheet import is_policy
from experiments.reporting.side_tables import plain
from persim_jax.evaluation import aggregate

MEASURED: Mapping[str, Column] = {
    "train_seconds": Column("Training", "seconds"),
    "compile_seconds": Column("Compilation", "seconds"),
    PREDICTION[0]: Column("Prediction test", "seconds, all agents"),
    CONTROL[0]: Column("Episodes", "seconds, all agents"),
    "plan_decisions_per_second": Column("Planning", "decisions / s"),
    "collect_steps_per_second": Column("Collection", "steps / s"),
}
"""Metrics whose rows say what something cost; of errors and returns it is their `wall_s`."""
NO_METHOD = "any"
"""Method of rows that belong to no method, such as the speed of collecting data."""
_BY_AGENT = (PREDICTION[0], CONTROL[0])
_SECONDS = ("train_seconds", "compile_seconds", *_BY_AGENT)


def cost_table(rows: Sequence[Row]) -> Table:
    """Makes the table of cost by method and device: seconds, and speeds of planning and data."""
    found = select(
        [r for r in rows if r["metric"] in MEASURED and not (is_policy(r) or is_study(r))]
    )
    lines: dict[tuple[str, ...], dict[str, dict[Any, float]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(float))
    )
    for row in found:
        name = (row["environment"], row["behavior"], row["method"], row.get("device") or model.DASH)
        metric = row["metric"]
        seconds = row.get("wall_s") if metric in _BY_AGENT else row["value"]
        if seconds is not None:
            lines[name][metric][row["trial"]] += float(seconds)
    made = []
    for key in sorted(lines, key=_order):
        means = [aggregate.mean_and_std(list(lines[key][m].values()))[0] for m in MEASURED]
        environment, behavior, method, device = key
        labels = (
            model.environment_name(environment),
            model.behavior_name(behavior),
            "collection of data" if method == NO_METHOD else model.method_name(method),
            device,
        )
        cells = tuple(plain(_cost_text(mean)) for mean in means)
        made.append(Line(labels, cells, behavior, method))
    return Table(
        name="cost",
        environment="",
        title="Cost, mean over trials",
        stubs=("Environment", "Data", "Method", "Device"),
        columns=tuple(MEASURED.values()),
        lines=tuple(made),
        notes=tuple(_totals(lines)),
        missing=() if made else ("rows of training time and planning speed",),
    )


def _totals(lines: Mapping[tuple[str, ...], Mapping[str, Mapping[Any, float]]]) -> list[str]:
    """Says how long each device worked on the rows that are shown, in all trials."""
    seconds: dict[str, float] = defaultdict(float)
    for name, metrics in lines.items():
        for metric, trials in metrics.items():
            if metric in _SECONDS:
                seconds[name[-1]] += sum(trials.values())
    return [
        f"On {device}: {_duration(total)} of training, compilation, prediction tests and episodes "
        "in all trials, as far as rows say."
        for device, total in sorted(seconds.items())
    ]


def _duration(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.3g} seconds"


def conditions_table(rows: Sequence[Row]) -> Table:
    """Makes the table of the code, versions and devices that rows were measured with."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        names = ("code_version", "jax_version", "device")
        groups[tuple(str(row.get(name) or "unknown") for name in names)].append(row)
    lines = []
    for name, found in sorted(groups.items(), key=lambda x: _latest(x[1]), reverse=True):
        methods = ordered(
            {row["method"] for row in found if not is_policy(row)} - {NO_METHOD}, METHOD_ORDER
        )
        shown = ", ".join(model.method_name(method) for method in methods[:4])
        more = f" and {len(methods) - 4} more" if len(methods) > 4 else ""
        places = ordered({row["environment"] for row in found}, ENVIRONMENT_ORDER)
        cells = (
            ", ".join(map(model.environment_name, places)),
            shown + more if methods else model.DASH,
            str(len(found)),
            _latest(found)[:10] or model.DASH,
        )
        lines.append(Line(name, tuple(map(plain, cells))))
    columns = (Column("Environments"), Column("Methods"), Column("Rows"), Column("Last measured"))
    return Table(
        name="measured_with",
        environment="",
        title="Code, versions and devices behind the rows",
        stubs=("Code version", "jax", "Device"),
        columns=columns,
        lines=tuple(lines),
    )


def _latest(rows: Sequence[Row]) -> str:
    return max((row.get("measured_at") or "" for row in rows), default="")


def _order(name: tuple[str, ...]) -> tuple[Any, ...]:
    ranks = (ENVIRONMENT_ORDER, BEHAVIOR_ORDER, METHOD_ORDER)
    known = [
        (order.index(part) if part in order else len(order), part)
        for part, order in zip(name, ranks, strict=False)
    ]
    return (*known, name[-1])


def _cost_text(value: float) -> str:
    if math.isnan(value):
        return model.DASH
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
