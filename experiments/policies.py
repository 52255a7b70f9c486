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
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

import envs
from experiments.stamps import jsonable
from persim_jax.files import sha256_of, write_atomically, write_json_atomically
from persim_jax.learners.base import Learner
from persim_jax.learners.dqn import DQNConfig, make_dqn, q_values
from persim_jax.learners.td3 import TD3Config, actor_action, make_td3
from persim_jax.types import Params, Spec

SHIPPED = pathlib.Path(__file__).parent / "shipped_policies"

PolicyConfig: TypeAlias = DQNConfig | TD3Config
POLICY_CONFIGS: dict[str, PolicyConfig] = {
    # Velocities of MountainCar are below 0.07; scaled, both coordinates have a range of about two.
    "mountain_car": DQNConfig(learning_rate=2e-4, double=True, obs_scale=(1.0, 15.0)),
    "cart_pole": DQNConfig(hidden=(32, 32), learning_rate=2e-4, double=True),
    "half_cheetah": TD3Config(),
}
SAME_PHYSICS = {"mjx": "mujoco"}
"""Backends that step what another one steps, so that policies of both are interchangeable."""


class Algorithm(NamedTuple):
    """What belongs to a kind of policy config.

    Attributes:
      name: In rows and sidecars.
      make: `(spec, config) -> Learner`.
      greedy: `(spec, config, params, obs [D]) -> action`.
    """

    name: str
    make: Callable[[Spec, Any], Learner]
    greedy: Callable[[Spec, Any, Params, jax.Array], jax.Array]


def _best_action(spec: Spec, config: DQNConfig, params: Params, obs: jax.Array) -> jax.Array:
    return jnp.argmax(q_values(spec, config, params, obs)).astype(jnp.int32)


_ALGORITHMS: dict[type, Algorithm] = {
    DQNConfig: Algorithm("dqn", make_dqn, _best_action),
    TD3Config: Algorithm("td3", make_td3, actor_action),
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


def policy_config(environment: str) -> PolicyConfig:
    """Returns the settings that the policies of an environment are trained and read with.

    Raises:
      ValueError: If no policies are made for the environment.
    """
    if environment not in POLICY_CONFIGS:
        raise ValueError(
            f"There are no policy settings for {environment!r}; use one of "
            f"{', '.join(POLICY_CONFIGS)}."
        )
    return POLICY_CONFIGS[environment]


def algorithm(environment: str) -> Algorithm:
    """Returns what trains the policies of an environment and acts with them.

    Raises:
      ValueError: As `policy_config`.
    """
    return _ALGORITHMS[type(policy_config(environment))]


@functools.cache
def greedy_act(environment: str) -> Callable[[jax.Array, Params, jax.Array], jax.Array]:
    """Returns `(key, params, obs [D]) -> action`, the greedy policy of an environment's networks.

    The same function comes back at every call, so that it may be a static argument of `jit`. It
    draws nothing: the key is there for the interface only.
    """
    spec, config = envs.make(environment).spec, policy_config(environment)
    greedy = algorithm(environment).greedy

    def act(key: jax.Array, params: Params, obs: jax.Array) -> jax.Array:
        del key
        return greedy(spec, config, params, obs)

    return act


def save_policies(
    directory: str | os.PathLike[str],
    environment: str,
    pure: Params,
    pure_covariates: jax.Array,
    test: Params,
    facts: Mapping[str, Any],
    backend: str = "",
) -> pathlib.Path:
    """Writes `ENVIRONMENT.npz` and its sidecar `ENVIRONMENT.json` with the checksum of the first.

    Args:
      directory: Made if it is not there.
      environment: Name of the environment.
      pure: Params, leaves `[P, ...]`.
      pure_covariates: `[P, C]`.
      test: Params.
      facts: What the sidecar says besides environment, network and checksum.
      backend: What stepped the environment, where there is a choice: `spec.backend`.

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
    method = algorithm(environment).name
    sidecar = {
        "environment": environment,
        "backend": backend,
        "file": path.name,
        "sha256": sha256_of(path),
        "method": method,
        method: dataclasses.asdict(policy_config(environment)),
        **facts,
    }
    write_json_atomically(path.with_suffix(".json"), jsonable(sidecar))
    return path.with_suffix(".json")


def load_policies(
    environment: str, directory: str | os.PathLike[str] = SHIPPED, backend: str | None = None
) -> Policies:
    """Reads the policies of an environment.

    Args:
      environment: Name of the environment.
      directory: Where `save_policies` wrote them.
      backend: What steps the environment now, as `spec.backend` says it; by default that of
        `envs.make(environment)`.

    Returns:
      The policies.

    Raises:
      FileNotFoundError: If there are none.
      ValueError: If the file is not the one that its sidecar describes, is for another environment
        or other physics, or was trained with networks other than those that `greedy_act` would use.
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
    if backend is None:
        backend = envs.make(environment).spec.backend
    _check_purpose(environment, backend, path, sidecar)
    _check_content(environment, path, sidecar)
    with np.load(path, allow_pickle=False) as stored:
        leaves = {name: jnp.asarray(stored[name]) for name in stored.files}
    tree = traverse_util.unflatten_dict(leaves, sep="/")
    return Policies(tree["pure"], tree["pure_covariates"], tree["test"], sidecar)


def _check_purpose(
    environment: str, backend: str, path: pathlib.Path, sidecar: Mapping[str, Any]
) -> None:
    """Refuses policies for another environment or for other physics."""
    if sidecar["environment"] != environment:
        raise ValueError(
            f"{path} holds policies for {sidecar['environment']}, not for {environment}: give the "
            f"folder with those of {environment} or train them"
        )
    # The first policies that were shipped are for environments without a choice of backends.
    trained = sidecar.get("backend", "")
    if SAME_PHYSICS.get(trained, trained) != SAME_PHYSICS.get(backend, backend):
        raise ValueError(
            f"{path} was trained with the backend {trained!r} of {environment}, whose physics are "
            f"not those of {backend!r}: use that backend, or train anew with `python -m "
            f"experiments.train_policies --environment={environment} --backend={backend} --out=...`"
        )


def _check_content(environment: str, path: pathlib.Path, sidecar: Mapping[str, Any]) -> None:
    """Refuses policies that were damaged, exchanged, or made for other networks."""
    if (found := sha256_of(path)) != sidecar["sha256"]:
        raise ValueError(
            f"{path} has the checksum {found[:12]}..., but {path.stem}.json says "
            f"{sidecar['sha256'][:12]}...: the two do not belong together or the file is damaged; "
            "restore both or train anew"
        )
    method = algorithm(environment).name
    if sidecar["method"] != method:
        raise ValueError(
            f"{path} was trained by {sidecar['method']}, the code now has {method}: restore the "
            "config in POLICY_CONFIGS or train anew"
        )
    now = jsonable(dataclasses.asdict(policy_config(environment)))
    for name in ("hidden", "obs_scale"):
        if sidecar[method][name] != now[name]:
            raise ValueError(
                f"{path} was trained with {name}={sidecar[method][name]}, the code now has "
                f"{now[name]}: restore the setting in POLICY_CONFIGS or train anew"
            )
