"""Simulators on disk: `simulators.npz` with arrays, `simulators.json` with all about them."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax.data import support as support_lib
from persim_jax.data.info import DatasetInfo
from persim_jax.data.support import DataSupport
from persim_jax.files import CorruptFileError, sha256_of, write_atomically, write_json_atomically
from persim_jax.models.base import ModelParams
from persim_jax.models.factor import FactorConfig, FactorNormalizer, factor_model
from persim_jax.normalizer import identity

FORMAT = "persim_jax.PersonalizedSimulators/3"
READABLE = (FORMAT, "persim_jax.PersonalizedSimulators/2")
"""The second version had no names, inputs, lags or scaled actions; it is read as it is."""


class Stored(NamedTuple):
    """What a folder of simulators holds.

    Attributes:
      params: The ensemble.
      agent_ids: `[N]`.
      covariates: `[N, C]`.
      config: Sizes of the model.
      info: Facts of the data, or None.
      support: Where the data lie, or None.
      noise: `[M, D]`, residuals of the training data; None in files of older versions.
    """

    params: ModelParams
    agent_ids: np.ndarray
    covariates: np.ndarray
    config: FactorConfig
    info: DatasetInfo | None = None
    support: DataSupport | None = None
    noise: np.ndarray | None = None


def write(directory: Path, stored: Stored, task_name: str | None) -> None:
    """Writes the arrays and, last, the sidecar with config, checksum and the task's name."""
    leaves = jax.tree.leaves(stored.params)
    arrays = {f"leaf_{i:04d}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
    arrays |= {"agent_ids": stored.agent_ids, "covariates": stored.covariates}
    arrays |= support_lib.to_arrays(stored.support)
    if stored.noise is not None:
        arrays["noise"] = stored.noise
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    path = directory / "simulators.npz"
    write_atomically(path, buffer.getvalue())
    sidecar = {
        "format": FORMAT,
        "config": dataclasses.asdict(stored.config),
        "info": dataclasses.asdict(stored.info) if stored.info else None,
        "task": task_name,
        "num_agents": stored.config.num_agents,
        "sha256": sha256_of(path),
    }
    write_json_atomically(directory / "simulators.json", sidecar)


def read(directory: Path) -> Stored:
    """Reads what `write` wrote.

    Raises:
      FileNotFoundError: There are no simulators.
      CorruptFileError: A file was cut short or altered; says which.
      ValueError: The files are of another version.
    """
    path, sidecar_path = directory / "simulators.npz", directory / "simulators.json"
    if not sidecar_path.exists():
        raise FileNotFoundError(f"no simulators in {directory}: {sidecar_path} is missing")
    sidecar = _read_sidecar(sidecar_path)
    if not path.exists() or sha256_of(path) != sidecar["sha256"]:
        raise CorruptFileError(
            f"{path} is not what was written: its SHA-256 should be {sidecar['sha256']}. Delete "
            f"{directory} and fit again"
        )
    fields: dict[str, Any] = sidecar["config"]
    tuples = {k: tuple(v) for k, v in fields.items() if isinstance(v, list)}
    config = FactorConfig(**(fields | tuples))
    with np.load(path) as arrays:
        shapes, like = jax.tree.flatten(_params_shape(config))
        leaves = [jnp.asarray(arrays[f"leaf_{i:04d}"]) for i in range(len(shapes))]
        params = jax.tree.unflatten(like, leaves)
        noise = arrays.get("noise")
        info = DatasetInfo.from_json(sidecar["info"]) if sidecar.get("info") else None
        support, tables = (
            support_lib.from_arrays(arrays),
            (arrays["agent_ids"], arrays["covariates"]),
        )
        return Stored(params, *tables, config, info, support, noise)


def _read_sidecar(path: Path) -> dict[str, Any]:
    try:
        sidecar: dict[str, Any] = json.loads(path.read_bytes())
        found = sidecar["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(
            f"{path} was cut short or altered ({error}). Delete {path.parent} and fit again"
        ) from error
    if found not in READABLE:
        raise ValueError(
            f"{path} has the format {found!r}: this version reads {' and '.join(READABLE)}. Fit "
            "again with this version, or load it with the one that wrote it"
        )
    return sidecar


def _params_shape(config: FactorConfig) -> ModelParams:
    """Structure of the ensemble, without computing anything."""
    weights = jax.eval_shape(factor_model(config).init, jax.random.key(0))
    inputs, unit = identity(config.input_size), identity(config.target_size)
    scaled = config.normalize_actions and not config.tabular_actions
    actions = identity(config.action_input_size) if scaled else None
    return ModelParams(weights, FactorNormalizer(inputs, unit, jnp.ones_like(unit.mean), actions))
