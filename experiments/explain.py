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
                workdir.context, method=name, metric=metric, value=value, member_values=members
            )
        )
    if rows:
        workdir.add(rows)


def measure_growth(workdir: Workdir, world: World, name: str, horizon: dict[str, Any]) -> None:
    """Adds rows of how an open-loop error starts, ends and grows, for each test agent.

    `rmse_first_step` and `rmse_last_step` are means over episodes; `error_growth_per_step` is the
    factor g with error(t) = error(10) g^(t - 10) at the last step that any episode reached.

    Args:
      workdir: The run.
      world: Its agents.
      name: The method.
      horizon: With `agent_ids [A]` and `rmse_per_step [A, S]`, as in `arrays/predictions.npz`.
    """
    rows = []
    for agent_id, errors in zip(horizon["agent_ids"], horizon["rmse_per_step"], strict=True):
        if workdir.has(name, "rmse_first_step", int(agent_id)):
            continue
        values = growth_of(np.asarray(errors, np.float64))
        fields = agent_fields(world, int(agent_id))
        rows += [
            make_row(workdir.context, method=name, metric=metric, value=value, **fields)
            for metric, value in values.items()
        ]
    if rows:
        workdir.add(rows)


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
