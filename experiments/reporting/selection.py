"""Which rows a table shows, when one number was measured several times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from experiments.records import NO_BEHAVIOR, TRUE_ENV, Row
from experiments.reporting.overrides import SHIPPED, settings_key
from persim_jax.evaluation import paper

AgentKey: TypeAlias = tuple[str, ...]

ENVIRONMENT_ORDER = tuple(paper.ENVIRONMENTS)
BEHAVIOR_ORDER = (NO_BEHAVIOR, "pure", "random", "pure_eps20", "pure_eps40")
ABLATIONS = ("concat_mlp", "pooled_mlp", "per_agent_mlp")
METHOD_ORDER = (TRUE_ENV, *(name for name in paper.METHODS if name != TRUE_ENV), *ABLATIONS)
SMOKE = "smoke"


def select(rows: Iterable[Row], variant: str | None = None) -> list[Row]:
    """Returns one row per environment, behavior, method, agent, metric and trial.

    A method's cells under one kind of data show one set of settings: the shipped ones where there
    are any, else those measured last. A cell shows one configuration, the one measured last; its
    trials may come from several code versions, the newest of each trial. Smoke runs, whose sizes
    are for tests, are shown only where there is nothing else.

    Args:
      rows: Rows, older ones first where they do not say when they were measured.
      variant: If given, rows of other variants are left out.
    """
    lines: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if variant is None or row.get("variant") == variant:
            lines[tuple(row[name] for name in _LINE)].append(row)
    cells: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for name, line in lines.items():
        for row in _one_setting(line):
            cells[*name, agent_of(row), row["agent_id"]].append(row)
    return [row for cell in cells.values() for row in _newest_configuration(cell)]


_LINE = ("environment", "behavior", "method", "metric")


def _one_setting(rows: Sequence[Row]) -> list[Row]:
    """Rows of one set of settings; those of smoke runs are left for cells with nothing else."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[settings_key(row)].append(row)
    real = {key: found for key, found in groups.items() if not all(map(_is_smoke, found))}
    groups = real or groups
    if SHIPPED in groups:
        return groups[SHIPPED]
    # sorted() is stable: without a time, the order in the file decides.
    return sorted(groups.values(), key=lambda found: max(map(_time, found)))[-1]


def _is_smoke(row: Row) -> bool:
    return row.get("variant") == SMOKE


def _newest_configuration(rows: Sequence[Row]) -> list[Row]:
    real = [row for row in rows if not _is_smoke(row)] or list(rows)
    # sorted() is stable: without a time, the order in the file decides.
    by_time = sorted(real, key=lambda row: row.get("measured_at") or "")
    newest = by_time[-1]
    same = [r for r in by_time if _configuration(r) == _configuration(newest)]
    trials = {row["trial"]: row for row in same}
    return [trials[trial] for trial in sorted(trials, key=lambda t: (t is None, t))]


def _configuration(row: Row) -> tuple[Any, ...]:
    return row.get("variant"), row["config_digest"], row.get("seed")


def agent_of(row: Mapping[str, Any]) -> AgentKey:
    """Returns what names a row's agent: its covariates, or its id where it has none."""
    if row.get("covariates"):
        return paper.agent_key(row["environment"], row["covariates"])
    return () if row["agent_id"] is None else (f"agent {row['agent_id']}",)


def ordered(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Returns distinct names in a given order, unknown ones last and sorted, numbers by size."""
    rank = {name: index for index, name in enumerate(order)}
    return sorted(set(names), key=lambda name: (rank.get(name, len(order)), *_natural(name)))


def _natural(name: str) -> tuple[str, int]:
    """Splits a number off the end of a name, so that 20 comes before 100."""
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or 0)


def pair_with_true_env(row: Row, true_rows: Sequence[Row]) -> tuple[list[Any], list[Any]] | None:
    """Returns the returns per episode of the true environment and of `row`, episode by episode.

    All methods of a trial meet the same initial states in the same order, so episode i of one is
    paired with episode i of the other, as far as both were run.

    Args:
      row: A row of `return_mean` with `episode_values`.
      true_rows: Rows of `return_mean` of the true environment.
    """
    names = ("environment", "trial", "seed")
    partners = [
        other
        for other in true_rows
        if all(other.get(name) == row.get(name) for name in names)
        and agent_of(other) == agent_of(row)
        and other.get("episode_values")
    ]
    if not partners or not row.get("episode_values"):
        return None
    partners.sort(key=lambda r: (r["config_digest"] == row["config_digest"], _time(r)))
    return common_episodes(partners[-1], row)


def common_episodes(a: Row, b: Row) -> tuple[list[Any], list[Any]]:
    """Returns the values of the episodes that both rows have, a missing one as NaN."""
    first, second = (
        [np.nan if v is None else float(v) for v in row["episode_values"]] for row in (a, b)
    )
    size = min(len(first), len(second))
    return first[:size], second[:size]


def _time(row: Row) -> str:
    return row.get("measured_at") or ""
