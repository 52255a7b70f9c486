"""Planning for an agent with a model that reads the agent's last true steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from persim_jax.models.base import DynamicsModel, History
from persim_jax.planning.config import PlannerConfig, make_sampler
from persim_jax.planning.mpc import mpc_policy, plan
from persim_jax.rollout import Policy
from persim_jax.types import PyTree, Spec, Task


class Remembered(NamedTuple):
    """The state of a planner that remembers.

    Attributes:
      sampler: The sampler's state, the warm start.
      history: `[H, ...]`, the last true steps before the last observation, the newest at the end.
      obs: `[D]`, the last observation.
      action: The last action.
      begun: `[]` bool; false until there has been a decision.
    """

    sampler: PyTree
    history: History
    obs: jax.Array
    action: jax.Array
    begun: jax.Array


def agent_policy(
    model: DynamicsModel, params: PyTree, agent: jax.Array, task: Task, config: PlannerConfig
) -> Policy:
    """MPC for one agent, which binds the model anew at each decision if it reads a history.

    Args:
      model: Dynamics.
      params: Its params.
      agent: `[]` row of the agent.
      task: Reward, termination and bonus.
      config: How a decision is made.
    """
    if not model.history_length:
        return mpc_policy(model, model.bind(params, agent, None), task, config)
    sampler = make_sampler(task.spec, config)

    def init() -> Remembered:
        history = empty_history(task.spec, model.history_length)
        return Remembered(
            sampler.init(task.spec), history, history.obs[0], history.actions[0], jnp.asarray(False)
        )

    def act(key: jax.Array, state: Remembered, obs: jax.Array) -> tuple[jax.Array, Remembered]:
        history = remember(state, obs)
        bound = model.bind(params, agent, history)
        action, own = plan(key, model, bound, task, sampler, state.sampler, obs, config)
        return action, Remembered(own, history, obs, action, jnp.ones_like(state.begun))

    return Policy(init=init, act=act)


def empty_history(spec: Spec, length: int) -> History:
    """The history at the start of an episode, `[H, ...]`, all of it masked."""
    obs = jnp.zeros((length, spec.obs_size))
    actions = (
        jnp.zeros(length, jnp.int32) if spec.discrete else jnp.zeros((length, spec.action_size))
    )
    return History(obs, actions, obs, mask=jnp.zeros(length, bool))


def remember(state: Remembered, obs: jax.Array) -> History:
    """The history with the step that led to `obs [D]`; the oldest one drops out."""
    new = History(state.obs, state.action, obs, state.begun)

    def push(kept: Any, last: Any) -> jax.Array:
        return jnp.concatenate([kept[1:], last[None]])

    return jax.tree.map(push, state.history, new)
