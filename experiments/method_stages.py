"""How each method is run once there are data: a registry, so that the launcher knows no method."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from experiments.arrays import read_predictions, write_arrays
from experiments.baselines import run_baseline
from experiments.control import measure_returns
from experiments.explain import measure_factors, measure_growth
from experiments.measure import measure_prediction
from experiments.model_methods import run_model
from experiments.morel import run_morel
from experiments.progress import CHECKPOINT_SECONDS, Display
from experiments.stages import World, fit_method, make_simulators
from experiments.workdir import Workdir
from persim_jax.data.dataset import OfflineDataset
from persim_jax.methods import MODEL_BASED, morel, parse_name
from persim_jax.methods.persim import PERSIM
from persim_jax.methods.true_env import TRUE_ENV

RunMethod: TypeAlias = Callable[[str, Workdir, World, OfflineDataset, Display, float], None]
"""`(name, workdir, world, dataset, display, checkpoint_seconds)`, adds rows that are missing."""


def run_persim(
    name: str,
    workdir: Workdir,
    world: World,
    dataset: OfflineDataset,
    display: Display,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> None:
    """Fits PerSim's simulators, tests them, plans in them and keeps what its figures show."""
    fitted = make_simulators(workdir, world, dataset, display, checkpoint_seconds)
    measure_prediction(workdir, world, PERSIM, fitted, display)
    measure_returns(workdir, world, PERSIM, fitted, display)
    write_arrays(workdir, world, fitted)
    measure_factors(workdir, world, name, np.asarray(fitted.agent_factors()))
    measure_growth(workdir, world, name, read_predictions(workdir))


def run_true_env(
    name: str,
    workdir: Workdir,
    world: World,
    dataset: OfflineDataset,
    display: Display,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> None:
    """Plans in the truth, which has no place in the prediction test: it predicts itself."""
    fitted = fit_method(name, workdir, world, dataset, display, checkpoint_seconds)
    measure_returns(workdir, world, TRUE_ENV, fitted, display)


# Which methods, and how they are run; the first that fits.
_RUNS: tuple[tuple[Callable[[str], bool], RunMethod], ...] = (
    (lambda name: name == PERSIM.name, run_persim),
    (lambda name: name == TRUE_ENV.name, run_true_env),
    (lambda name: parse_name(name) is not None, run_baseline),
    (lambda name: name in MODEL_BASED, run_model),
    (lambda name: name in morel.NAMES, run_morel),
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
