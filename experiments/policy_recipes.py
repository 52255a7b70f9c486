"""Which policies are trained for each environment, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

import envs
from envs import covariates
from experiments.policies import algorithm, policy_config
from experiments.policy_returns import EPISODES, Lanes
from persim_jax.learners.base import Schedule
from persim_jax.learners.online import OnlineConfig


class Recipe(NamedTuple):
    """How the policies of one environment are trained and measured.

    Attributes:
      targets: Mean returns at which training stops: pure policies, test policy.
      online: Settings of the training loop.
      episodes: That each of the 500 agents plays when everyone is measured.
      chunk: As in `returns_by_agent`.
    """

    targets: tuple[float, float]
    online: OnlineConfig
    episodes: int = EPISODES
    chunk: int | None = None


RECIPES = {
    # Single random steps never leave the valley at these gravities; held ones swing the car up.
    "mountain_car": Recipe(
        (-200.0, -150.0),
        OnlineConfig(
            evaluate_every=400, capacity=100_000, hold=Schedule(1.0, 0.02, 100_000), max_hold=30
        ),
    ),
    # Policies go from 20 to 200 within a thousand steps, so they are looked at every 16.
    "cart_pole": Recipe(
        (120.0, 150.0), OnlineConfig(evaluate_every=16, hold=Schedule(1.0, 0.1, 10_000))
    ),
    # Episodes differ by a reset noise of 0.001 only, and none ends before its thousand steps.
    "half_cheetah": Recipe(
        (3000.0, 4000.0),
        OnlineConfig(
            num_envs=16,
            evaluate_every=64_000,
            budget=4_000_000,
            capacity=400_000,
            warm_up=16_000,
            batch_size=512,
            explore=Schedule(0.1, 0.1, 0),
            hold=Schedule(1.0, 0.0, 16_000),
            # Agents with little damping roll over early and learn to slide on their backs, at half
            # of the speed, unless they begin anew often.
            episode_steps=200,
            sequential=True,
        ),
        episodes=4,
        chunk=100,
    ),
}
TEST_SEED_OFFSET = 1000
"""The test policy shares no random number with the pure ones."""


def make_lanes(
    environment: str, targets: Sequence[float], seed: int, backend: str = "auto"
) -> Lanes:
    """Returns the agents to train.

    Args:
      environment: Name of the environment.
      targets: Two, of pure policies and of the test policy.
      seed: Of the pure policies; the test policy's is another.
      backend: As `envs.make` takes it.

    Raises:
      ValueError: If there are not two targets, or the environment has no such backend.
    """
    if len(targets) != 2:
        raise ValueError(f"behavior_targets are {targets}: give two, such as -200,-150")
    table = covariates.get(environment)
    num_pure = len(table.training_agents)
    return Lanes(
        environment=environment,
        behaviors=["pure"] * num_pure + ["test"],
        covariates=np.asarray([*table.training_agents, table.default], np.float32),
        targets=np.asarray([targets[0]] * num_pure + [targets[1]], np.float32),
        seeds=[seed] * num_pure + [seed + TEST_SEED_OFFSET],
        backend=envs.make(environment, backend).spec.backend,
    )


def settings_of(lanes: Lanes, online: OnlineConfig) -> dict[str, Any]:
    """Returns everything that a training's numbers depend on; a larger budget only adds to them."""
    loop = dataclasses.asdict(online)
    del loop["budget"]
    method = {"method": algorithm(lanes.environment).name}
    learner = dataclasses.asdict(policy_config(lanes.environment))
    return {**lanes._asdict(), **method, "learner": learner, "online": loop}
