"""The small arrays that figures are drawn from."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.measure import open_loop_paths
from experiments.stages import World
from experiments.workdir import Workdir
from persim_jax.evaluation.prediction import error_per_step
from persim_jax.files import CorruptFileError, write_atomically
from persim_jax.methods import PERSIM, Method
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.types import PyTree


def write_arrays(workdir: Workdir, world: World, simulators: PersonalizedSimulators) -> None:
    """Writes `arrays/factors.npz` and `arrays/predictions.npz`, if they are not there."""
    factors = workdir.path / "arrays" / "factors.npz"
    if not factors.exists():
        _write(
            factors,
            factors=np.asarray(simulators.agent_factors()),
            covariates=world.agents.covariates,
            agent_ids=world.agents.agent_ids,
            test_rows=np.asarray(world.test_rows()),
        )
    write_predictions(workdir, world, PERSIM, simulators)


def write_predictions(workdir: Workdir, world: World, method: Method, fitted: PyTree) -> None:
    """Writes what figures show of a method's prediction test, if it is not there."""
    path = predictions_path(workdir.path, method.name)
    if not path.exists():
        _write(path, **_predictions(workdir, world, method, fitted))


def predictions_path(workdir: Path, method: str = PERSIM.name) -> Path:
    """`arrays/predictions.npz` of PerSim, `arrays/predictions_METHOD.npz` of others."""
    own = "" if method == PERSIM.name else f"_{method}"
    return workdir / "arrays" / f"predictions{own}.npz"


def read_predictions(workdir: Workdir, method: str = PERSIM.name) -> dict[str, np.ndarray]:
    """What `write_predictions` wrote of a method.

    Raises:
      CorruptFileError: It was cut short or altered.
    """
    path = predictions_path(workdir.path, method)
    try:
        with np.load(io.BytesIO(path.read_bytes())) as stored:
            return dict(stored)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptFileError(
            f"{path} was cut short or altered ({error}): delete it and run again"
        ) from error


def _predictions(
    workdir: Workdir, world: World, method: Method, fitted: PyTree
) -> dict[str, np.ndarray]:
    """One example episode of each test agent, and errors over the horizon over all episodes."""
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            "true",
            "predicted",
            "rmse_per_step",
            "rmse_per_step_low",
            "rmse_per_step_high",
        )
    }
    for agent_id in world.agents.test_ids:
        paths = open_loop_paths(workdir, world, method, fitted, agent_id)
        errors = np.asarray(error_per_step(paths))
        # The first of the longest episodes: one that ends early would show little.
        example = int(np.argmax(np.asarray(paths.mask).sum(axis=1)))
        shown = jax.tree.map(lambda leaf, example=example: np.asarray(leaf)[example], paths)
        taken = np.concatenate([[True], shown.mask])[:, None]
        columns["true"].append(np.where(taken, shown.true, np.nan))
        columns["predicted"].append(np.where(taken, shown.predicted, np.nan))
        with warnings.catch_warnings():
            # Steps that no episode reached are NaN, which figures leave out.
            warnings.simplefilter("ignore", RuntimeWarning)
            columns["rmse_per_step"].append(np.nanmean(errors, axis=0))
            low, high = np.nanquantile(errors, [0.1, 0.9], axis=0)
        columns["rmse_per_step_low"].append(low)
        columns["rmse_per_step_high"].append(high)
    rows = world.test_rows()
    return {name: np.stack(values) for name, values in columns.items()} | {
        "agent_ids": world.agents.agent_ids[rows],
        "covariates": world.agents.covariates[rows],
    }


def _write(path: Path, **arrays: Any) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())
