"""Rows that explain the tables: do factors follow covariates, and how fast do errors grow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from experiments.measure import agent_fields
from experiments.records import make_row
from experiments.stages import World
from experiments.workdir import Workdir
from persim_jax.evaluation.latent import first_component_correlation

FIRST_STEP_OF_GROWTH = 10
"""Errors of the first steps come from the state they start in, not from each other."""


def measure_factors(workdir: Workdir, world: World, name: str, factors: np.ndarray) -> None:
    """Adds a row per covariate: |r| of the agent factors' first principal component with it.

    Args:
      workdir: The run.
      world: Its agents.
      name: The method whose factors they are.
      factors: `[M, N, r]`; the value is the mean over members, each with its own component.
    """
    rows = []
    for column, covariate in enumerate(world.agents.covariate_names):
        metric = f"factor_correlation_{covariate}"
        if workdir.has(name, metric):
            continue
        known = world.agents.covariates[:, column]
        members = [first_component_correlation(member, known) for member in factors]
        value = float(np.mean(members))
        rows.append(
            make_row(
                workdir.context_of(name),
                method=name,
                metric=metric,
                value=value,
                member_values=members,
            )
        )
    if rows:
        workdir.add(rows)


def measure_growth(workdir: Workdir, world: World, name: str, horizon: dict[str, Any]) -> None:
    """Adds rows of how an open-loop error starts, ends and grows, for each test agent.

    `rmse_first_step` and `rmse_last_step` are means over episodes; `error_growth_per_step` is the
    factor g with error(t) = error(10) g^(t - 10) at the last step that any episode reached.
    `rmse_over_horizon` is the mean over the steps that any reached, and its row has the error of
    each, `step_values`, with the 10 and 90 % quantiles over episodes: what figures draw.

    Args:
      workdir: The run.
      world: Its agents.
      name: The method.
      horizon: With `agent_ids [A]` and `rmse_per_step [A, S]`, as in `arrays/predictions.npz`.
    """
    rows = []
    for index, agent_id in enumerate(map(int, horizon["agent_ids"])):
        errors = np.asarray(horizon["rmse_per_step"][index], np.float64)
        rows += [
            make_row(
                workdir.context_of(name), method=name, metric=metric, value=value,
                **agent_fields(world, agent_id), **extras,
            )
            for metric, value, extras in _horizon_values(errors, horizon, index)
            if not workdir.has(name, metric, agent_id)
        ]  # fmt: skip
    if rows:
        workdir.add(rows)


def _horizon_values(
    errors: np.ndarray, horizon: dict[str, Any], index: int
) -> list[tuple[str, float, dict[str, Any]]]:
    """Metric, value and extras of each row of one agent."""
    reached = errors[~np.isnan(errors)]
    bands = {"step_low": "rmse_per_step_low", "step_high": "rmse_per_step_high"}
    steps = {"step_values": errors} | {
        field: horizon[array][index] for field, array in bands.items() if array in horizon
    }
    mean = float(reached.mean()) if reached.size else math.nan
    growth: dict[str, float] = growth_of(errors)
    return [("rmse_over_horizon", mean, steps), *((name, v, {}) for name, v in growth.items())]


def growth_of(errors: np.ndarray) -> dict[str, float]:
    """First and last error of `[S]`, NaN past the last step reached, and the growth per step."""
    reached = np.flatnonzero(np.isfinite(errors))
    nothing = {"rmse_first_step": math.nan, "rmse_last_step": math.nan}
    if reached.size == 0:
        return nothing | {"error_growth_per_step": math.nan}
    last, base = int(reached[-1]), FIRST_STEP_OF_GROWTH - 1
    growth = math.nan
    if last > base and errors[base] > 0:
        growth = float((errors[last] / errors[base]) ** (1 / (last - base)))
    return {
        "rmse_first_step": float(errors[0]),
        "rmse_last_step": float(errors[last]),
        "error_growth_per_step": growth,
    }
