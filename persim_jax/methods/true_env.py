"""True env + MPC: the same planner in the true dynamics, the bound on what planning can earn."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax

from persim_jax.data.dataset import OfflineDataset
from persim_jax.methods.base import Method, Monitor
from persim_jax.models.base import DynamicsModel
from persim_jax.models.true_env import true_dynamics
from persim_jax.planning.mpc import PlannerConfig, mpc_policy
from persim_jax.rollout import Policy
from persim_jax.types import Environment, PyTree


# flax's record because the environment is static.
class TrueEnv(flax.struct.PyTreeNode):
    """The truth as something fitted.

    Attributes:
      env_params: Physics of all agents, leaves `[N, ...]`.
      env: The true environment, static.
    """

    env_params: PyTree
    env: Environment = flax.struct.field(pytree_node=False)


def _fit(
    key: jax.Array,
    dataset: OfflineDataset,
    env: Environment,
    env_params: PyTree,
    config: Any,
    monitor: Monitor,
) -> TrueEnv:
    del key, dataset, config, monitor
    return TrueEnv(env_params, env)


def _policy(fitted: TrueEnv, agent: jax.Array, planner: PlannerConfig) -> Policy:
    model = true_dynamics(fitted.env)
    return mpc_policy(model, model.bind(fitted.env_params, agent, None), fitted.env, planner)


def _model(fitted: TrueEnv) -> tuple[DynamicsModel, PyTree]:
    return true_dynamics(fitted.env), fitted.env_params


TRUE_ENV = Method(name="true_env", plans=True, fit=_fit, policy=_policy, model=_model)
