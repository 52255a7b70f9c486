"""The stages of a run, each made once and found again: agents, data, simulators."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

import envs
from envs.covariates import AgentTable, make_agents, nearest
from experiments.policies import Policies, greedy_act, load_policies
from experiments.progress import monitored_training
from experiments.records import make_row
from experiments.settings import persim_config, stage_key
from experiments.stamps import code_version, config_digest
from experiments.workdir import LOG, Workdir
from persim_jax import collect
from persim_jax.data.dataset import DatasetInfo, OfflineDataset
from persim_jax.data.storage import dataset_paths, load_dataset, save_dataset
from persim_jax.methods import METHODS, Monitor
from persim_jax.methods.persim import PERSIM
from persim_jax.simulators import PersonalizedSimulators, load
from persim_jax.types import PyTree


class World(NamedTuple):
    """What is given before any data: the environment, its agents, the policies.

    Attributes:
      env: The true environment.
      agents: Ids and covariates; rows of everything else are in its order.
      env_params: Physics of the agents, leaves `[N, ...]`.
      policies: Trained policies.
      pure_params: Each agent's pure policy, leaves `[N, ...]`.
    """

    env: envs.Env
    agents: AgentTable
    env_params: PyTree
    policies: Policies
    pure_params: PyTree

    def test_rows(self) -> list[int]:
        """Rows of the test agents, in the order of the paper's tables."""
        return [self.agents.row_of(agent_id) for agent_id in self.agents.test_ids]


def make_world(config: dict[str, Any]) -> World:
    """Makes the environment and its agents, and loads the policies."""
    name = config["environment"]
    env = envs.make(name)
    agents = make_agents(name, **config["agents"])
    policies = load_policies(name)
    own = nearest(name, agents.covariates, np.asarray(policies.pure_covariates))
    return World(
        env=env,
        agents=agents,
        env_params=jax.vmap(env.params)(jnp.asarray(agents.covariates)),
        policies=policies,
        pure_params=jax.tree.map(lambda leaf: jnp.asarray(leaf)[own], policies.pure),
    )


def make_dataset(workdir: Workdir, world: World) -> OfflineDataset:
    """One trajectory of each agent, from `dataset/` or collected now.

    Raises:
      CorruptFileError: The stored dataset was cut short or altered.
    """
    path = workdir.path / "dataset" / "dataset"
    if dataset_paths(path)[1].exists():
        return load_dataset(path)
    config = workdir.config
    behavior = collect.BEHAVIORS[config["behavior"]]
    with workdir.timed("data"):
        start = time.perf_counter()
        act = greedy_act(config["environment"])
        trajectories = collect.collect_dataset(
            stage_key(config, "data"), world.env, world.env_params, act, world.pure_params, behavior
        )
        host = jax.tree.map(np.asarray, trajectories)
        seconds = time.perf_counter() - start
        dataset = OfflineDataset(
            **{field.name: getattr(host, field.name) for field in dataclasses.fields(host)},
            agent_ids=world.agents.agent_ids,
            covariates=world.agents.covariates,
            info=dataset_info(world, behavior.name),
        )
        provenance = {
            "config_digest": config_digest(config),
            "code_version": code_version(),
            "seed": config["seed"],
            "trial": config["trial"],
            "policies": world.policies.sidecar["sha256"],
        }
        save_dataset(path, dataset, provenance)
    steps = int(host.mask.sum())
    row = make_row(
        workdir.context, method="any", metric="collect_steps_per_second", value=steps / seconds,
        wall_s=seconds, num_steps=steps,
    )  # fmt: skip
    workdir.add([row])
    LOG.info("data: %d steps of %d agents", steps, dataset.num_agents)
    return dataset


def dataset_info(world: World, behavior: str) -> DatasetInfo:
    """Static facts of a dataset of this environment."""
    spec = world.env.spec
    return DatasetInfo(
        environment=spec.name,
        behavior=behavior,
        obs_names=spec.obs_names,
        covariate_names=spec.covariate_names,
        num_actions=spec.num_actions,
        action_size=spec.action_size,
    )


def make_simulators(
    workdir: Workdir, world: World, dataset: OfflineDataset, console: Console
) -> PersonalizedSimulators:
    """PerSim fitted to the dataset, from `simulators/` or trained now, from the last checkpoint."""
    folder = workdir.path / "simulators"
    if (folder / "simulators.json").exists():
        return load(folder, world.env)
    settings = persim_config(workdir.config)
    start = time.perf_counter()
    with (
        workdir.timed("fit"),
        monitored_training(workdir.path, settings.train, console) as monitor,
    ):
        fitted: PersonalizedSimulators = PERSIM.fit(
            stage_key(workdir.config, "fit"),
            dataset,
            world.env,
            world.env_params,
            settings,
            monitor,
        )
        fitted.save(folder)
    seconds = time.perf_counter() - start
    row = make_row(
        workdir.context, method="persim", metric="train_seconds", value=seconds, wall_s=seconds
    )
    workdir.add([row])
    return fitted


def fit_method(
    name: str, workdir: Workdir, world: World, dataset: OfflineDataset, console: Console
) -> PyTree:
    """A method, fitted."""
    if name == PERSIM.name:
        return make_simulators(workdir, world, dataset, console)
    method = METHODS[name]
    key = stage_key(workdir.config, "fit")
    return method.fit(key, dataset, world.env, world.env_params, None, Monitor())
