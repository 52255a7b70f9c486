"""Trajectories that never happened: an agent's learned simulator under the data's behavior."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from persim_jax.collect import ActFn, Behavior, collect, initial_obs
from persim_jax.models.base import DynamicsModel
from persim_jax.types import Environment, PyTree, Trajectory


@functools.partial(jax.jit, static_argnames=("model", "env", "act", "behavior", "num_trajectories"))
def synthetic_trajectories(
    key: jax.Array,
    model: DynamicsModel,
    model_params: PyTree,
    env: Environment,
    env_params: PyTree,
    act: ActFn,
    policy_params: PyTree,
    behavior: Behavior,
    agents: jax.Array,
    num_trajectories: int,
) -> Trajectory:
    """Follows the data's behavior in the personalized simulators of some agents.

    Episodes begin as the environment's do, rewards and terminations are the known functions of
    predicted states, and an episode is cut off after as many steps as a true one.

    Args:
      key: Consumed.
      model: Dynamics, static.
      model_params: Its params.
      env: Its reset, reward, termination and length; its dynamics are not used.
      env_params: Physics of all agents, leaves `[N, ...]`, for the reset only.
      act: The pure policies' act function, static.
      policy_params: Each agent's pure policy, leaves `[N, ...]`; unused where epsilon is 1.
      behavior: One of `persim_jax.collect.BEHAVIORS`, static.
      agents: `[L]` rows of the agents.
      num_trajectories: Of each agent, S, static. More begin with the fewer.

    Returns:
      Trajectories with leaves `[L, S, ...]`.
    """
    own_env_params, own_policies = jax.tree.map(
        lambda leaf: leaf[agents], (env_params, policy_params)
    )

    def one(number: jax.Array) -> Trajectory:
        reset_key, action_key = jax.random.split(jax.random.fold_in(key, number))
        obs = initial_obs(reset_key, env, own_env_params, agents)
        return collect(
            action_key, model, model_params, env, act, own_policies,
            jnp.asarray(behavior.epsilon), agents, obs, env.spec.max_steps,
        )  # fmt: skip

    return jax.vmap(one, out_axes=1)(jnp.arange(num_trajectories))
