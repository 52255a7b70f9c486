"""How each method is run once there are data: a registry, so that the launcher knows no method."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from experiments.arrays import read_predictions, write_arrays, write_predictions
from experiments.baselines import fit_baseline, lost_agents
from experiments.control import control_ids, measure_returns
from experiments.explain import measure_factors, measure_growth
from experiments.measure import measure_prediction
from experiments.model_methods import fit_model
from experiments.morel import fit_morel, told_agents
from experiments.progress import Display
from experiments.settings import stage_key
from experiments.stages import Run, World, make_simulators
from experiments.workdir import Workdir
from persim_jax.methods import MODEL_BASED, Monitor, find_method, morel, parse_name
from persim_jax.methods.persim import PERSIM
from persim_jax.methods.true_env import TRUE_ENV

RunMethod: TypeAlias = Callable[[str, Run], None]
"""`(name, run)`, adds rows that are missing."""


def run_persim(name: str, run: Run) -> None:
    """Fits PerSim's simulators, tests them, plans in them and keeps what its figures show."""
    workdir, world = run.workdir, run.world
    fitted = make_simulators(*run)
    measure_prediction(workdir, world, PERSIM, fitted, run.display)
    measure_returns(workdir, world, PERSIM, fitted, run.display)
    write_arrays(workdir, world, fitted)
    measure_factors(workdir, world, name, np.asarray(fitted.agent_factors()))
    measure_growth(workdir, world, name, read_predictions(workdir))


def run_true_env(name: str, run: Run) -> None:
    """Plans in the truth, which has no place in the prediction test: it predicts itself."""
    workdir, world = run.workdir, run.world
    key = stage_key(workdir.config, "fit")
    fitted = TRUE_ENV.fit(key, run.dataset, world.env, world.env_params, None, Monitor())
    measure_returns(workdir, world, TRUE_ENV, fitted, run.display)


def run_model(name: str, run: Run) -> None:
    """Fits the model of a method, tests its predictions and plans in it, as far as not done yet."""
    workdir, world, method = run.workdir, run.world, find_method(name)
    fitted = fit_model(name, run)
    measure_prediction(workdir, world, method, fitted, run.display)
    write_predictions(workdir, world, method, fitted)
    measure_growth(workdir, world, name, read_predictions(workdir, name))
    measure_returns(workdir, world, method, fitted, run.display)


def run_policies(
    fit: Callable[[str, Run], Any],
    lost_of: Callable[[str, Workdir, World, Any, Display], Sequence[int]],
    name: str,
    run: Run,
) -> None:
    """Fits policies and adds the rows of what they earn, unless all of them are there.

    Args:
      fit: `(name, run) -> fitted`.
      lost_of: `(name, workdir, world, fitted, display) -> ids` of agents without a policy, of whom
        it tells.
      name: As in result rows.
      run: What to work with.
    """
    workdir, world, method = run.workdir, run.world, find_method(name)
    ids = control_ids(workdir, world, method)
    if all(workdir.has(name, "return_mean", agent_id) for agent_id in ids):
        return
    fitted = fit(name, run)
    lost = lost_of(name, workdir, world, fitted, run.display)
    measure_returns(workdir, world, method, fitted, run.display, lost)


# Which methods, and how they are run; the first that fits.
_RUNS: tuple[tuple[Callable[[str], bool], RunMethod], ...] = (
    (lambda name: name == PERSIM.name, run_persim),
    (lambda name: name == TRUE_ENV.name, run_true_env),
    (
        lambda name: parse_name(name) is not None,
        functools.partial(run_policies, fit_baseline, lost_agents),
    ),
    (lambda name: name in MODEL_BASED, run_model),
    (lambda name: name in morel.NAMES, functools.partial(run_policies, fit_morel, told_agents)),
)


def run_of(name: str) -> RunMethod:
    """Returns how a method is run.

    Raises:
      ValueError: Nothing here runs it.
    """
    found = next((run for fits, run in _RUNS if fits(name)), None)
    if found is None:
        raise ValueError(f"no stage runs the method {name!r}: experiments/method_stages.py has all")
    return found
