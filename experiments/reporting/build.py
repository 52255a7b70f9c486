"""Rows to the paper's tables: prediction error, return, offline learners with synthetic data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from experiments.records import NO_BEHAVIOR, TRUE_ENV, Row
from experiments.reporting import model
from experiments.reporting.measures import Measure
from experiments.reporting.model import Cell, Column, Line, Table
from experiments.reporting.overrides import settings_key
from experiments.reporting.selection import (
    ABLATIONS,
    BEHAVIOR_ORDER,
    METHOD_ORDER,
    SMOKE,
    AgentKey,
    ordered,
    select,
)
from experiments.reporting.sheet import Sheet, is_augmented, make_sheet, shortfall_pairs
from persim_jax.evaluation import aggregate, paper

PREDICTION, CONTROL = ("rmse_mean", "r2_median"), ("return_mean",)
STUBS = ("Data", "Method")


def table_1(
    rows: Sequence[Row],
    environment: str,
    methods: Sequence[str] | None = None,
    behaviors: Sequence[str] | None = None,
) -> Table:
    """Makes Table 1 of one environment: mean RMSE and, in parentheses, median R^2.

    Args:
      rows: Rows of any kind; those that the table does not show are passed over.
      environment: Its name in rows.
      methods: Methods to show, missing ones as dashes; those with rows if not given.
      behaviors: Likewise.
    """
    sheet = make_sheet(rows, environment, 1, PREDICTION, lambda r: not is_ablation(r["method"]))
    title = f"Table 1, {model.environment_name(environment)}: RMSE (median R²) over 50 steps"
    return _agent_table(sheet, title, methods, behaviors, {}, _left_out(rows, sheet))


def table_2(
    rows: Sequence[Row],
    environment: str,
    methods: Sequence[str] | None = None,
    behaviors: Sequence[str] | None = None,
) -> Table:
    """Makes Table 2 of one environment: return, and shortfall against the true environment.

    Args:
      rows: Rows of any kind.
      environment: Its name in rows.
      methods: Methods to show; those with rows if not given.
      behaviors: Likewise; `true_env` has a line of its own above them.
    """
    sheet = make_sheet(rows, environment, 2, CONTROL, lambda r: in_table_2(r["method"]))
    title = f"Table 2, {model.environment_name(environment)}: return, mean ± std over trials"
    shortfalls = {
        cell: aggregate.relative_shortfall([pairs]).cells[0]
        for cell, pairs in shortfall_pairs(sheet).items()
    }
    extras = {cell: _percent(estimate) for cell, estimate in shortfalls.items()}
    return _agent_table(sheet, title, methods, behaviors, extras, [])


def table_3(rows: Sequence[Row], environment: str) -> Table:
    """Makes Table 3 of one environment: offline learners with and without synthetic trajectories.

    It is empty where no method with synthetic trajectories was run.
    """
    augmented = {row["method"] for row in rows if is_augmented(row["method"])}
    learners = {method.split("_")[1] for method in augmented}
    plain = {f"{learner}_{view}" for learner in learners for view in "pa"}
    sheet = make_sheet(
        rows,
        environment,
        3,
        CONTROL,
        lambda r: r["method"] in augmented | plain and r["behavior"] == "random",
    )
    name = model.environment_name(environment)
    title = f"Table 3, {name}: return of offline learners, mean ± std over trials"
    return _agent_table(sheet, title, None, None, {}, [])


def is_ablation(method: str) -> bool:
    """Returns whether a method is PerSim without one of its ideas."""
    return method in ABLATIONS


def in_table_2(method: str) -> bool:
    """Returns whether the table of returns shows a method."""
    return not (is_augmented(method) or is_ablation(method))


def _agent_table(
    sheet: Sheet,
    title: str,
    methods: Sequence[str] | None,
    behaviors: Sequence[str] | None,
    extras: Mapping[tuple[str, str, AgentKey], str],
    notes: Sequence[str],
) -> Table:
    """Makes a table whose columns are test agents."""
    lines: list[Line] = []
    missing: list[str] = []
    names = _line_names(sheet, methods, behaviors)
    shown = [row for row in sheet.rows if (row["behavior"], row["method"]) in names]
    for behavior, method in names:
        labels = (model.behavior_name(behavior), model.method_name(method))
        keys = [paper.agent_key(sheet.environment, agent) for agent in sheet.agents]
        cells = tuple(
            _agent_cell(sheet, behavior, method, agent, extras.get((behavior, method, key), ""))
            for agent, key in zip(sheet.agents, keys, strict=True)
        )
        missing += _missing(labels, cells, len(sheet.metrics))
        lines.append(Line(labels, cells, behavior, method))
    columns = tuple(_agent_column(sheet.environment, agent) for agent in sheet.agents)
    if not lines:
        missing.append(f"all cells of {title.partition(':')[0]}")
    return Table(
        name=f"table_{sheet.table}",
        environment=sheet.environment,
        title=title,
        stubs=STUBS,
        columns=columns,
        lines=tuple(lines),
        notes=(*notes, *_provenance(shown), *_settings(shown, sheet.others)),
        missing=tuple(missing),
    )


def _missing(labels: tuple[str, str], cells: Sequence[Cell], num_metrics: int) -> list[str]:
    """Names the cells of a line that lack a metric; the whole line at once if all lack all."""
    name = f"{labels[1]}, {labels[0]}" if labels[0] != model.DASH else labels[1]
    if not any(cell.measures for cell in cells):
        return [f"{name}, all agents"]
    return [
        f"{name}, {cell.agent}{' (in part)' if cell.measures else ''}"
        for cell in cells
        if len(cell.measures) < num_metrics
    ]


def _line_names(
    sheet: Sheet, methods: Sequence[str] | None, behaviors: Sequence[str] | None
) -> list[tuple[str, str]]:
    """Returns (behavior, method) of every line; the true environment first, and once."""
    names = {(key[0], key[1]) for key in sheet.cells}
    shown_methods = ordered(methods or {method for _, method in names}, METHOD_ORDER)
    shown = ordered(behaviors or {behavior for behavior, _ in names}, BEHAVIOR_ORDER)
    lines = [(b, m) for b in shown if b != NO_BEHAVIOR for m in shown_methods if m != TRUE_ENV]
    if TRUE_ENV in shown_methods and sheet.table == 2:
        lines.insert(0, (NO_BEHAVIOR, TRUE_ENV))
    return lines


def _agent_cell(
    sheet: Sheet, behavior: str, method: str, agent: dict[str, float], extra: str
) -> Cell:
    measures = sheet.measures(behavior, method, agent)
    by_metric = {measured.metric: measured for measured in measures}
    write = _prediction_pieces if sheet.table == 1 else _control_pieces
    papers = [sheet.paper(behavior, method, agent, metric) for metric in sheet.metrics]
    texts = [model.minus(cell.text) for cell in papers if cell is not None]
    paper_text = f"{texts[0]} ({texts[1]})" if len(texts) == 2 else "".join(texts)
    return Cell(
        pieces=write(by_metric) if measures else ((model.DASH, ""),),
        paper=paper_text,
        extra=extra,
        measures=tuple(measures),
        agent=model.agent_name(agent),
    )


def _prediction_pieces(measures: Mapping[str, Measure]) -> tuple[tuple[str, str], ...]:
    error, r2 = measures.get("rmse_mean"), measures.get("r2_median")
    return (
        (model.measure_text(error), error.verdict) if error else (model.DASH, ""),
        (f"({model.measure_text(r2)})", r2.verdict) if r2 else (f"({model.DASH})", ""),
    )


def _control_pieces(measures: Mapping[str, Measure]) -> tuple[tuple[str, str], ...]:
    measured = measures["return_mean"]
    digits = 0 if abs(measured.value) >= 1000 else 1
    interval = model.interval_text(measured.low, measured.high, digits)
    text = (model.measure_text(measured), measured.verdict)
    return (text, *(((interval, ""),) if interval else ()))


def _percent(estimate: aggregate.Estimate) -> str:
    if not math.isfinite(estimate.value):
        return ""
    interval = model.interval_text(estimate.low, estimate.high, 1, 100.0)
    return f"shortfall {model.minus(f'{100 * estimate.value:.1f}')} % {interval}".rstrip()


def _agent_column(environment: str, agent: dict[str, float]) -> Column:
    label = paper.paper_label(environment, agent)
    return Column(model.agent_name(agent), f"paper: {label}" if label else "")


def _left_out(rows: Sequence[Row], sheet: Sheet) -> list[str]:
    """Says how many episodes had no score, and whose, where there are any."""
    found = select(
        row
        for row in rows
        if row["environment"] == sheet.environment
        and row["metric"] == "episodes_left_out"
        and row["covariates"]
        and row["value"]
    )
    if not found:
        return []
    counts: Counter[str] = Counter()
    for row in found:
        name = f"{model.method_name(row['method'])}, {model.behavior_name(row['behavior'])}"
        counts[f"{name}, {model.agent_name(row['covariates'])}"] += int(row["value"])
    most = "; ".join(f"{name}: {count}" for name, count in counts.most_common(5))
    more = f"; and {len(counts) - 5} cells with fewer" if len(counts) > 5 else ""
    total = sum(counts.values())
    return [f"Episodes too short to score, left out: {total} in all trials ({most}{more})."]


def _settings(rows: Sequence[Row], others: Sequence[str]) -> list[str]:
    """Says which settings a table's rows have and which it leaves out; nothing of shipped ones."""
    shown = sorted({settings_key(row) for row in rows})
    if not (others or any(shown)):
        return []
    named = "; ".join(key or "those of the shipped config" for key in shown) or "none"
    rest = f"; other settings not shown: {'; '.join(others)}" if others else ""
    return [f"Settings: {named}{rest}."]


def _provenance(rows: Sequence[Row]) -> list[str]:
    """Says under what conditions a table's rows were measured."""
    if not rows:
        return []
    names = {"variant": "variant", "code_version": "code", "device": "device"}
    parts = [
        f"{label} {', '.join(sorted({str(row.get(name)) for row in rows}))}"
        for name, label in names.items()
    ]
    episodes = sorted({row["num_episodes"] for row in rows if row.get("num_episodes")})
    trials = len({row["trial"] for row in rows})
    parts.append(f"{trials} trial{'' if trials == 1 else 's'}")
    if episodes:
        noun = "episode" if episodes == [1] else "episodes"
        parts.append(f"{' or '.join(map(str, episodes))} {noun} per agent and trial")
    notes = [f"Rows: {'; '.join(parts)}."]
    if any(row.get("variant") == SMOKE for row in rows):
        notes.append("Rows of the smoke variant have sizes for tests: not to be compared.")
    return notes
