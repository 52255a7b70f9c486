"""Episodes of any policy under any dynamics."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from persim_jax.models.base import DynamicsModel
from persim_jax.types import PyTree, Task, Trajectory


class Policy(NamedTuple):
    """A way to act; planners are policies whose warm start lives in the policy state.

    Attributes:
      init: `() -> policy_state`, for the start of an episode.
      act: `(key, policy_state, obs [D]) -> (action, policy_state)`; the key is consumed.
    """

    init: Callable[[], PyTree]
    act: Callable[[jax.Array, PyTree, jax.Array], tuple[jax.Array, PyTree]]


class _Carry(NamedTuple):
    model_state: PyTree
    policy_state: PyTree
    obs: jax.Array
    alive: jax.Array


class _Step(NamedTuple):
    next_obs: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    mask: jax.Array


def unroll(
    key: jax.Array,
    model: DynamicsModel,
    bound: PyTree,
    task: Task,
    policy: Policy,
    obs: jax.Array,
    max_steps: int,
    early_exit: bool = False,
) -> Trajectory:
    """Follows a policy from one observation for one episode.

    The observation that the policy sees, and the reward is computed from, is the mean over the
    model's members; a true environment has one. After a termination the state stays where it is,
    actions and rewards are zero and the mask is false. Truncation after `max_steps` is not a
    termination.

    Args:
      key: Consumed; step t uses `fold_in(key, t)`, so a longer episode repeats a shorter one.
      model: Dynamics.
      bound: The model bound to one agent.
      task: Reward and termination.
      policy: The policy; its `init` is called once.
      obs: Initial observation `[D]`.
      max_steps: T, static.
      early_exit: Stop computing when the episode ends. Right for one lane at a time
        (`lax.map`), where a finished lane then costs nothing; wrong under `vmap`, where the
        buffers would be copied at every step.

    Returns:
      A trajectory padded to T.
    """
    carry = _Carry(model.start(bound, obs), policy.init(), obs, jnp.asarray(True))

    def step(carry: _Carry, t: jax.Array) -> tuple[_Carry, _Step]:
        key_act, key_step = jax.random.split(jax.random.fold_in(key, t))
        action, policy_state = policy.act(key_act, carry.policy_state, carry.obs)
        encoded = model.encode_actions(bound, action)
        model_state = model.step(key_step, bound, carry.model_state, encoded)
        next_obs = jnp.where(carry.alive, model.observe(model_state).mean(axis=0), carry.obs)
        reward = jnp.where(carry.alive, task.reward(carry.obs, action, next_obs), 0.0)
        action = jnp.where(carry.alive, action, jnp.zeros_like(action))
        terminated = carry.alive & task.terminated(next_obs)
        new = _Carry(model_state, policy_state, next_obs, carry.alive & ~terminated)
        return new, _Step(next_obs, action, reward, terminated, carry.alive)

    steps = _while_alive(step, carry, max_steps) if early_exit else _scan(step, carry, max_steps)
    return Trajectory(
        obs=jnp.concatenate([obs[None], steps.next_obs]),
        actions=steps.action,
        rewards=steps.reward,
        terminated=steps.terminated,
        mask=steps.mask,
    )


def _scan(step: Callable, carry: _Carry, max_steps: int) -> _Step:
    return lax.scan(step, carry, jnp.arange(max_steps))[1]


def _while_alive(step: Callable, carry: _Carry, max_steps: int) -> _Step:
    shapes = jax.eval_shape(step, carry, jnp.asarray(0))[1]
    buffers = jax.tree.map(lambda s: jnp.zeros((max_steps, *s.shape), s.dtype), shapes)

    def body(loop: tuple[jax.Array, _Carry, _Step]) -> tuple[jax.Array, _Carry, _Step]:
        t, carry, buffers = loop
        carry, row = step(carry, t)
        return t + 1, carry, jax.tree.map(lambda b, x: b.at[t].set(x), buffers, row)

    t, carry, steps = lax.while_loop(
        lambda loop: (loop[0] < max_steps) & loop[1].alive, body, (jnp.asarray(0), carry, buffers)
    )
    # Rows past the end repeat the last observation, as the scan leaves them.
    past_end = jnp.arange(max_steps)[:, None] >= t
    return steps._replace(next_obs=jnp.where(past_end, carry.obs[None], steps.next_obs))
