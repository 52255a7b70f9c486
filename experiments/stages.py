"""The stages of a run, each made once and found again: agents, data, simulators."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import envs
from envs.covariates import AgentTable, make_agents, nearest
from experiments.policies import Policies, greedy_act, load_policies
from experiments.progress import CHECKPOINT_SECONDS, Display, monitored_training
from experiments.records import make_row
from experiments.settings import persim_config, stage_key
from experiments.stamps import code_version, config_digest
from experiments.store import shared_stage
from experiments.throughput import measure_training
from experiments.workdir import Workdir
from persim_jax import bounds, collect
from persim_jax.data.dataset import DatasetInfo, OfflineDataset
from persim_jax.data.storage import (
    dataset_paths,
    load_dataset,
    load_provenance,
    save_dataset,
)
from persim_jax.methods.persim import PERSIM
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.types import PyTree

DATASET_FIELDS = (
    "environment", "behavior", "seed", "trial", "backend", "matmul_precision", "agents",
)  # fmt: skip
"""What a dataset depends on; what is made of it depends on that, too."""


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


def make_world(config: Mapping[str, Any]) -> World:
    """Makes the environment and its agents, and loads the policies.

    Raises:
      ValueError: There is no room for the test agents, or the policies are not what was shipped.
    """
    name = config["environment"]
    env = envs.make(name, config["backend"])
    agents = make_agents(name, **config["agents"])
    policies = load_policies(name, backend=env.spec.backend)
    own = nearest(name, agents.covariates, np.asarray(policies.pure_covariates))
    return World(
        env=env,
        agents=agents,
        env_params=jax.vmap(env.params)(jnp.asarray(agents.covariates)),
        policies=policies,
        pure_params=jax.tree.map(lambda leaf: jnp.asarray(leaf)[own], policies.pure),
    )


class Run(NamedTuple):
    """What every stage of a method works with; its fields are `make_simulators`'s arguments.

    Attributes:
      workdir: Where the stage keeps what it makes, and the rows.
      world: Environment, agents and policies.
      dataset: One trajectory of each agent.
      display: Shows progress.
      checkpoint_seconds: Least time between two checkpoints of training.
    """

    workdir: Workdir
    world: World
    dataset: OfflineDataset
    display: Display
    checkpoint_seconds: float = CHECKPOINT_SECONDS


@shared_stage("dataset", DATASET_FIELDS, {"any": ("collect_steps_per_second",)})
def make_dataset(workdir: Workdir, world: World, display: Display) -> OfflineDataset:
    """One trajectory of each agent, from `dataset/` or collected now.

    Raises:
      CorruptFileError: The stored dataset was cut short or altered.
      ValueError: It was made when the repository shipped other policies.
    """
    path = workdir.path / "dataset" / "dataset"
    if dataset_paths(path)[1].exists():
        dataset = load_dataset(path)
        _check_policies(path, world)
        return dataset
    config = workdir.config
    behavior = collect.BEHAVIORS[config["behavior"]]
    with display.stage(workdir, "data") as stage:
        act = greedy_act(config["environment"])
        trajectories = collect.collect_dataset(
            stage_key(config, "data"), world.env, world.env_params, act, world.pure_params, behavior
        )
        host = jax.tree.map(np.asarray, trajectories)
        seconds, steps = stage.watch.seconds, int(host.mask.sum())
        dataset = OfflineDataset(
            **{field.name: getattr(host, field.name) for field in dataclasses.fields(host)},
            agent_ids=world.agents.agent_ids,
            covariates=world.agents.covariates,
            info=dataset_info(world, behavior.name),
        )
        row = make_row(
            workdir.context, method="any", metric="collect_steps_per_second",
            value=steps / seconds, wall_s=seconds, num_steps=steps,
            actions_outside_bounds=bounds.num_outside(world.env.spec, host.actions),
        )  # fmt: skip
        provenance = {
            "config_digest": config_digest(config),
            "code_version": code_version(),
            "seed": config["seed"],
            "trial": config["trial"],
            "policies": world.policies.sidecar["sha256"],
        }
        # The sidecar of the dataset is written last: with it the stage counts as done.
        workdir.add([row])
        stage.watch.lap()
        save_dataset(path, dataset, provenance)
        stage.step(1, f"{steps} steps of {dataset.num_agents} agents")
    return dataset


def _check_policies(path: Path, world: World) -> None:
    """Refuses to go on with other policies than those that a dataset was made with."""
    before, now = load_provenance(path).get("policies"), world.policies.sidecar["sha256"]
    if before != now:
        raise ValueError(
            f"{path.parent} was made when the shipped policies had the checksum {str(before)[:12]} "
            f"(now {now[:12]}): data and prediction test would follow different policies. Give "
            "another --workdir"
        )


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


@shared_stage(
    "simulators",
    (*DATASET_FIELDS, "model", "train", "mesh"),
    {PERSIM.name: ("train_seconds", "train_flops_per_second"), "any": ("matmul_flops_per_second",)},
    files=("metrics.jsonl",),
)
def make_simulators(
    workdir: Workdir,
    world: World,
    dataset: OfflineDataset,
    display: Display,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> PersonalizedSimulators:
    """PerSim fitted to the dataset, from `simulators/` or trained now, from the last checkpoint.

    Raises:
      CorruptFileError: Stored simulators were cut short or altered.
      CorruptCheckpointError: So was the last checkpoint.
      ValueError: The dataset is not valid; says which agent and step.
      DivergedError: A member's loss is no longer finite.
    """
    folder = workdir.path / "simulators"
    if (folder / "simulators.json").exists():
        return PersonalizedSimulators.load(folder, world.env)
    settings = persim_config(workdir.config)
    with (
        display.stage(workdir, f"fit {PERSIM.name}", settings.train.num_rounds) as stage,
        monitored_training(workdir.path, settings.train, stage, checkpoint_seconds) as monitor,
    ):
        key = stage_key(workdir.config, "fit")
        fitted: PersonalizedSimulators = PERSIM.fit(
            key, dataset, world.env, world.env_params, settings, monitor
        )
        seconds = stage.watch.seconds
        row = make_row(
            workdir.context, method=PERSIM.name, metric="train_seconds", value=seconds,
            wall_s=seconds, precision=settings.train.precision,
        )  # fmt: skip
        rows, speed = measure_training(workdir, dataset, settings)
        stage.note += f"; {speed}"
        # The sidecar of the simulators is written last: with it the stage counts as done.
        workdir.add([row, *rows])
        stage.watch.lap()
        fitted.save(folder)
    return fitted
