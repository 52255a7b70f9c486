"""A planner's whole episode inside an agent's simulator: what it would do, and what would come."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from persim_jax.models.base import ModelParams
from persim_jax.models.factor import FactorConfig, factor_model
from persim_jax.models.inputs import Scheduled, join_inputs, with_schedule
from persim_jax.planning.config import PlannerConfig, make_sampler
from persim_jax.planning.mpc import decide, plan
from persim_jax.types import PyTree, Task


class PlannedEpisode(NamedTuple):
    """T decisions and what they lead to by the simulator's own account.

    Attributes:
      obs: `[T + 1, D]`, the mean over members, which the planner sees; row 0 is the start.
      members: `[M, T + 1, D]`, each going on from its own states.
      actions: `[T]` int32 or `[T, A]`; zero past the end.
      rewards: `[T]`, of the mean; zero past the end.
      member_rewards: `[M, T]`, of each member's own path; zero past the end.
      terminated: `[T]` bool; true at the step, if any, that ends the episode.
      mask: `[T]` bool; true for the steps before the end and the one that leads to it.
    """

    obs: jax.Array
    members: jax.Array
    actions: jax.Array
    rewards: jax.Array
    member_rewards: jax.Array
    terminated: jax.Array
    mask: jax.Array


@functools.partial(jax.jit, static_argnames=("config", "task", "planner"))
def plan_action(
    key: jax.Array,
    config: FactorConfig,
    params: ModelParams,
    agent: jax.Array,
    obs: jax.Array,
    inputs: jax.Array | None,
    task: Task,
    planner: PlannerConfig,
) -> tuple[jax.Array, jax.Array]:
    """The next action, planned from scratch, and what the best plan was worth.

    Args:
      key: Consumed.
      config: Sizes of the model, static.
      params: Its ensemble.
      agent: `[]` row of the agent.
      obs: `[D]`, where it is.
      inputs: `[horizon, I]`; None for a model without.
      task: Reward and termination, static.
      planner: Static.

    Returns:
      The action, and the score `[]` of the last round's best candidate.
    """
    model = factor_model(config)
    bound = model.bind(params, agent, None)
    if inputs is not None:
        model, bound = with_schedule(model, config), Scheduled(bound, inputs)
    sampler = make_sampler(task.spec, planner)
    start = sampler.init(task.spec)
    action, _, score = decide(key, model, bound, task, sampler, start, obs, planner)
    return action, score


class _Carry(NamedTuple):
    model_state: PyTree
    sampler_state: PyTree
    obs: jax.Array
    alive: jax.Array


@functools.partial(jax.jit, static_argnames=("config", "task", "planner", "num_steps"))
def plan_episode(
    key: jax.Array,
    config: FactorConfig,
    params: ModelParams,
    agent: jax.Array,
    obs: jax.Array,
    inputs: jax.Array | None,
    task: Task,
    planner: PlannerConfig,
    num_steps: int,
) -> PlannedEpisode:
    """Plans, takes the first action in the simulator, and plans again from where it leads.

    The plan of each decision is the warm start of the next one. As in `persim_jax.rollout.unroll`
    members go on from their own states while planner, reward and termination see their mean.

    Args:
      key: Consumed; step t uses `fold_in(key, t)`.
      config: Sizes of the model, static.
      params: Its ensemble.
      agent: `[]` row of the agent.
      obs: `[D]`, the start.
      inputs: `[num_steps + horizon - 1, I]`, as far as the last decision looks ahead; None for a
        model without.
      task: Reward and termination, static.
      planner: Static.
      num_steps: T, static.

    Returns:
      The episode.
    """
    model = factor_model(config)
    bound = model.bind(params, agent, None)
    planned = model if inputs is None else with_schedule(model, config)
    sampler = make_sampler(task.spec, planner)
    reward_of = jax.vmap(task.reward, in_axes=(0, None, 0))

    def step(carry: _Carry, t: jax.Array) -> tuple[_Carry, Any]:
        key_act, key_step = jax.random.split(jax.random.fold_in(key, t))
        ahead, now = bound, None
        if inputs is not None:
            window = lax.dynamic_slice_in_dim(inputs, t, planner.horizon)
            ahead, now = Scheduled(bound, window), inputs[t]
        action, sampler_state = plan(
            key_act, planned, ahead, task, sampler, carry.sampler_state, carry.obs, planner
        )
        before = model.observe(carry.model_state)
        encoded = model.encode_actions(bound, join_inputs(config, action, now))
        moved = model.step(key_step, bound, carry.model_state, encoded)
        state = jax.tree.map(lambda a, b: jnp.where(carry.alive, a, b), moved, carry.model_state)
        members = model.observe(state)
        obs = jnp.where(carry.alive, members.mean(axis=0), carry.obs)
        reward = jnp.where(carry.alive, task.reward(carry.obs, action, obs), 0.0)
        member_rewards = jnp.where(carry.alive, reward_of(before, action, members), 0.0)
        action = jnp.where(carry.alive, action, jnp.zeros_like(action))
        terminated = carry.alive & task.terminated(obs)
        new = _Carry(state, sampler_state, obs, carry.alive & ~terminated)
        return new, (obs, members, action, reward, member_rewards, terminated, carry.alive)

    start = model.start(bound, obs)
    carry = _Carry(start, sampler.init(task.spec), obs, jnp.asarray(True))
    _, steps = lax.scan(step, carry, jnp.arange(num_steps))
    path, members, actions, rewards, member_rewards, terminated, mask = steps
    everyone = jnp.concatenate([model.observe(start)[None], members])
    return PlannedEpisode(
        obs=jnp.concatenate([obs[None], path]),
        members=everyone.swapaxes(0, 1),
        actions=actions,
        rewards=rewards,
        member_rewards=member_rewards.T,
        terminated=terminated,
        mask=mask,
    )
