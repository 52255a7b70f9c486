"""One trajectory for every agent, under the behaviors of the protocol."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from persim_jax.learners.base import random_action
from persim_jax.models.base import DynamicsModel
from persim_jax.models.true_env import true_dynamics
from persim_jax.rollout import Policy, unroll
from persim_jax.types import Environment, PyTree, Spec, Task, Trajectory

ActFn = Callable[[jax.Array, PyTree, jax.Array], jax.Array]
"""`(key, policy_params, obs [D]) -> action`, a policy without memory."""


class Behavior(NamedTuple):
    """How an agent's actions come about.

    Attributes:
      epsilon: Probability of a uniformly random action; 1 is the random behavior.
      name: As in rows.
    """

    epsilon: float
    name: str


BEHAVIORS = {
    "random": Behavior(1.0, "random"),
    "pure": Behavior(0.0, "pure"),
    "pure_eps20": Behavior(0.2, "pure_eps20"),
    "pure_eps40": Behavior(0.4, "pure_eps40"),
}


def memoryless(act: ActFn, policy_params: PyTree) -> Policy:
    """A policy that needs nothing but the observation."""

    def act_once(key: jax.Array, state: tuple, obs: jax.Array) -> tuple[jax.Array, tuple]:
        return act(key, policy_params, obs), state

    return Policy(init=tuple, act=act_once)


def epsilon_policy(act: ActFn, policy_params: PyTree, spec: Spec, epsilon: jax.Array) -> Policy:
    """With probability epsilon a uniformly random action, else the policy's."""

    def act_noisily(key: jax.Array, state: tuple, obs: jax.Array) -> tuple[jax.Array, tuple]:
        key_coin, key_random, key_policy = jax.random.split(key, 3)
        own = act(key_policy, policy_params, obs)
        explore = jax.random.bernoulli(key_coin, epsilon)
        return jnp.where(explore, random_action(key_random, spec), own), state

    return Policy(init=tuple, act=act_noisily)


@functools.partial(jax.jit, static_argnames=("model", "task", "act", "max_steps"))
def collect(
    key: jax.Array,
    model: DynamicsModel,
    model_params: PyTree,
    task: Task,
    act: ActFn,
    policy_params: PyTree,
    epsilon: jax.Array,
    agents: jax.Array,
    obs: jax.Array,
    max_steps: int,
) -> Trajectory:
    """Follows an epsilon-greedy policy once for every agent, in true or learned dynamics.

    Args:
      key: Consumed; lane i uses `fold_in(key, agents[i])`, so a lane does not depend on the others.
      model: Dynamics, static.
      model_params: The model's params.
      task: Reward, termination and spec, static.
      act: The policy, static.
      policy_params: Its params, leaves `[N, ...]`, one set per lane.
      epsilon: `[]` probability of a random action.
      agents: `[N]` rows of the agent table.
      obs: Initial observations `[N, D]`.
      max_steps: T, static.

    Returns:
      Trajectories with leaves `[N, ...]`.
    """

    def one(agent: jax.Array, params: PyTree, obs: jax.Array) -> Trajectory:
        policy = epsilon_policy(act, params, task.spec, epsilon)
        bound = model.bind(model_params, agent, None)
        return unroll(jax.random.fold_in(key, agent), model, bound, task, policy, obs, max_steps)

    return jax.vmap(one)(agents, policy_params, obs)


def initial_obs(
    key: jax.Array, env: Environment, env_params: PyTree, agents: jax.Array
) -> jax.Array:
    """Observations of fresh episodes `[N, D]`, lane i from `fold_in(key, agents[i])`.

    Args:
      key: Consumed.
      env: The true environment.
      env_params: Physics of the lanes, leaves `[N, ...]`.
      agents: `[N]` numbers that name the lanes.
    """

    def one(agent: jax.Array, params: PyTree) -> jax.Array:
        return env.observe(env.reset(jax.random.fold_in(key, agent), params), params)

    return jax.vmap(one)(agents, env_params)


def collect_dataset(
    key: jax.Array,
    env: Environment,
    env_params: PyTree,
    act: ActFn,
    policy_params: PyTree,
    behavior: Behavior,
) -> Trajectory:
    """The protocol's offline data: one trajectory of every agent in its own true environment.

    Args:
      key: Consumed.
      env: The true environment.
      env_params: Physics of the N agents, leaves `[N, ...]`.
      act: The pure policies' act function.
      policy_params: Each agent's pure policy, leaves `[N, ...]`; unused where epsilon is 1.
      behavior: One of `BEHAVIORS`.

    Returns:
      Trajectories with leaves `[N, ...]`.
    """
    num_agents = jax.tree.leaves(env_params)[0].shape[0]
    agents = jnp.arange(num_agents)
    key_reset, key_actions = jax.random.split(key)
    obs = initial_obs(key_reset, env, env_params, agents)
    return collect(
        key_actions, true_dynamics(env), env_params, env, act, policy_params,
        jnp.asarray(behavior.epsilon), agents, obs, env.spec.max_steps,
    )  # fmt: skip
