"""The policies that make the data, and the one that the prediction test follows.

The repository ships them, so that everyone's data come from the same policies; how they were made
stands in the sidecar beside each file, and `python -m experiments.train_policies` makes them again.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

import envs
from experiments.stamps import jsonable
from persim_jax.files import sha256_of, write_atomically, write_json_atomically
from persim_jax.learners.dqn import DQNConfig, q_values
from persim_jax.types import Params

SHIPPED = pathlib.Path(__file__).parent / "shipped_policies"

# Velocities of MountainCar are below 0.07; scaled, both coordinates have a range of about two.
DQN_CONFIGS = {
    "mountain_car": DQNConfig(learning_rate=2e-4, double=True, obs_scale=(1.0, 15.0)),
    "cart_pole": DQNConfig(hidden=(32, 32), learning_rate=2e-4, double=True),
}


class Policies(NamedTuple):
    """Trained policies of one environment.

    Attributes:
      pure: Params of the P policies of the pure data, leaves `[P, ...]`.
      pure_covariates: `[P, C]`, the training agent of each.
      test: Params of the policy of the prediction test, trained on the default agent.
      sidecar: How they were trained and what they earn.
    """

    pure: Params
    pure_covariates: jax.Array
    test: Params
    sidecar: dict[str, Any]


def dqn_config(environment: str) -> DQNConfig:
    """Returns the settings that the policies of an environment are trained and read with.

    Raises:
      ValueError: If the environment has no DQN policies.
    """
    if environment not in DQN_CONFIGS:
        raise ValueError(
            f"There are no DQN settings for {environment!r}; use one of {', '.join(DQN_CONFIGS)}."
        )
    return DQN_CONFIGS[environment]


@functools.cache
def greedy_act(environment: str) -> Callable[[jax.Array, Params, jax.Array], jax.Array]:
    """Returns `(key, params, obs [D]) -> action`, the greedy policy of an environment's Q network.

    The same function comes back at every call, so that it may be a static argument of `jit`. It
    draws nothing: the key is there for the interface only.
    """
    spec, config = envs.make(environment).spec, dqn_config(environment)

    def act(key: jax.Array, params: Params, obs: jax.Array) -> jax.Array:
        del key
        return jnp.argmax(q_values(spec, config, params, obs)).astype(jnp.int32)

    return act


def save_policies(
    directory: str | os.PathLike[str],
    environment: str,
    pure: Params,
    pure_covariates: jax.Array,
    test: Params,
    facts: Mapping[str, Any],
) -> pathlib.Path:
    """Writes `ENVIRONMENT.npz` and its sidecar `ENVIRONMENT.json` with the checksum of the first.

    Args:
      directory: Made if it is not there.
      environment: Name of the environment.
      pure: Params, leaves `[P, ...]`.
      pure_covariates: `[P, C]`.
      test: Params.
      facts: What the sidecar says besides environment, network and checksum.

    Returns:
      The path of the sidecar.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tree = {"pure": pure, "test": test, "pure_covariates": pure_covariates}
    leaves = traverse_util.flatten_dict(jax.device_get(tree), sep="/")
    content = io.BytesIO()
    np.savez(content, **leaves)
    path = directory / f"{environment}.npz"
    write_atomically(path, content.getvalue())
    sidecar = {
        "environment": environment,
        "file": path.name,
        "sha256": sha256_of(path),
        "dqn": dataclasses.asdict(dqn_config(environment)),
        **facts,
    }
    write_json_atomically(path.with_suffix(".json"), jsonable(sidecar))
    return path.with_suffix(".json")


def load_policies(environment: str, directory: str | os.PathLike[str] = SHIPPED) -> Policies:
    """Reads the policies of an environment.

    Args:
      environment: Name of the environment.
      directory: Where `save_policies` wrote them.

    Returns:
      The policies.

    Raises:
      FileNotFoundError: If there are none.
      ValueError: If the file is not the one that its sidecar describes, or was trained with a
        network other than the one that `greedy_act` would use.
    """
    path = pathlib.Path(directory) / f"{environment}.npz"
    sidecar_path = path.with_suffix(".json")
    for needed in (path, sidecar_path):
        if not needed.exists():
            raise FileNotFoundError(
                f"no policies at {needed}: train them with `python -m experiments.train_policies "
                f"--environment={environment} --out={directory}`"
            )
    sidecar = json.loads(sidecar_path.read_text(encoding="utf8"))
    _check(environment, path, sidecar)
    with np.load(path, allow_pickle=False) as stored:
        leaves = {name: jnp.asarray(stored[name]) for name in stored.files}
    tree = traverse_util.unflatten_dict(leaves, sep="/")
    return Policies(tree["pure"], tree["pure_covariates"], tree["test"], sidecar)


def _check(environment: str, path: pathlib.Path, sidecar: Mapping[str, Any]) -> None:
    """Refuses policies that were damaged, exchanged, or made for another network."""
    if (found := sha256_of(path)) != sidecar["sha256"]:
        raise ValueError(
            f"{path} has the checksum {found[:12]}..., but {path.stem}.json says "
            f"{sidecar['sha256'][:12]}...: the two do not belong together or the file is damaged; "
            "restore both or train anew"
        )
    now = jsonable(dataclasses.asdict(dqn_config(environment)))
    for name in ("hidden", "obs_scale"):
        if sidecar["dqn"][name] != now[name]:
            raise ValueError(
                f"{path} was trained with {name}={sidecar['dqn'][name]}, the code now has "
                f"{now[name]}: restore the setting in DQN_CONFIGS or train anew"
            )
