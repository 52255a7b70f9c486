"""The environments that a learner trains and is evaluated on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from persim_jax.learners.base import Learner, LearnerState, random_action
from persim_jax.types import Environment, Params, Spec, Transitions


class World(NamedTuple):
    """An environment in the middle of an episode; E of them have leaves `[E, ...]`.

    Attributes:
      state: Of the environment.
      age: `[]` int32, steps since the reset.
      held: The random action that is held, if any.
      left: `[]` int32, for how many more steps it is held; 0 if none is.
    """

    state: Any
    age: jax.Array
    held: jax.Array
    left: jax.Array


def fresh(environment: Environment, key: jax.Array, params: Params) -> World:
    """Puts one environment at the beginning of an episode; consumes `key`."""
    reset_key, action_key = jax.random.split(key)
    zero = jnp.zeros((), jnp.int32)
    # Nothing is held yet: the action only gives the field its shape.
    held = random_action(action_key, environment.spec)
    return World(environment.reset(reset_key, params), age=zero, held=held, left=zero)


def interact(
    environment: Environment,
    learner: Learner,
    max_hold: int,
    max_steps: int,
    key: jax.Array,
    state: LearnerState,
    params: Params,
    world: World,
    explore: jax.Array,
    hold: jax.Array,
) -> tuple[World, Transitions]:
    """Takes one step and, where the episode ended or ran out of time, starts a new one.

    Args:
      environment: Dynamics and reward.
      learner: Acts.
      max_hold: As in `hold_random`.
      max_steps: Steps after which a new episode begins.
      key: Consumed.
      state: The learner's.
      params: Physics.
      world: Where the environment is.
      explore: `[]`, for `Learner.act`.
      hold: `[]`, as in `hold_random`.

    Returns:
      Where the environment is now, and the transition; its `next_obs` is the one before any reset.
    """
    act_key, hold_key, env_key, reset_key = jax.random.split(key, 4)
    obs = environment.observe(world.state, params)
    action = learner.act(act_key, state, obs, explore)
    action, held, left = hold_random(hold_key, environment.spec, action, world, hold, max_hold)
    env_state = environment.step(env_key, world.state, action, params)
    next_obs = environment.observe(env_state, params)
    terminated = environment.terminated(next_obs)
    row = Transitions(
        agent=jnp.zeros((), jnp.int32),  # each agent has a buffer of its own
        obs=obs,
        actions=action,
        rewards=environment.reward(obs, action, next_obs),
        next_obs=next_obs,
        terminated=terminated,
    )
    going = World(state=env_state, age=world.age + 1, held=held, left=left)
    # Only the episode ends at the time limit: `row.terminated` does not know of it.
    ended = terminated | (going.age >= max_steps)
    anew = fresh(environment, reset_key, params)
    return jax.tree.map(lambda new, old: jnp.where(ended, new, old), anew, going), row


def hold_random(
    key: jax.Array,
    spec: Spec,
    action: jax.Array,
    world: World,
    hold: jax.Array,
    max_hold: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Replaces an action by a random one that is held for several steps.

    Args:
      key: Consumed.
      spec: Of the task.
      action: The learner's.
      world: One environment: the action it holds and for how many more steps.
      hold: `[]`, probability of beginning to hold one if none is held.
      max_hold: Longest hold; its length is uniform in 1 to this.

    Returns:
      The action to take, the action held, and for how many steps after this one.
    """
    begin_key, action_key, length_key = jax.random.split(key, 3)
    begins = (world.left == 0) & (jax.random.uniform(begin_key) < hold)
    held = jnp.where(begins, random_action(action_key, spec), world.held)
    length = jax.random.randint(length_key, (), 1, max_hold + 1, jnp.int32)
    left = jnp.where(begins, length, world.left)
    return jnp.where(left > 0, held, action), held, jnp.maximum(left - 1, 0)


def episode_returns(
    environment: Environment,
    act: Callable[[jax.Array, Params, jax.Array], jax.Array],
    key: jax.Array,
    params: Params,
    env_params: Params,
    episodes: int,
) -> jax.Array:
    """Plays fresh episodes with a policy without memory and adds up their rewards.

    Args:
      environment: Dynamics and reward.
      act: `(key, params, obs [D]) -> action`.
      key: Consumed.
      params: Of the policy.
      env_params: Physics of one agent.
      episodes: Number of episodes, played side by side until the last one ends.

    Returns:
      Undiscounted returns, `[episodes]`.
    """
    reset_key, step_key = jax.random.split(key)
    states = jax.vmap(environment.reset, (0, None))(
        jax.random.split(reset_key, episodes), env_params
    )

    def one(key: jax.Array, state: Any, alive: jax.Array, total: jax.Array) -> tuple[Any, ...]:
        act_key, env_key = jax.random.split(key)
        obs = environment.observe(state, env_params)
        action = act(act_key, params, obs)
        state = environment.step(env_key, state, action, env_params)
        next_obs = environment.observe(state, env_params)
        total = total + jnp.where(alive, environment.reward(obs, action, next_obs), 0.0)
        return state, alive & ~environment.terminated(next_obs), total

    def body(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        step, states, alive, total = carry
        keys = jax.random.split(jax.random.fold_in(step_key, step), episodes)
        return (step + 1, *jax.vmap(one)(keys, states, alive, total))

    def unfinished(carry: tuple[Any, ...]) -> jax.Array:
        step, _, alive, _ = carry
        return (step < environment.spec.max_steps) & alive.any()

    begin = (0, states, jnp.ones(episodes, bool), jnp.zeros(episodes))
    totals: jax.Array = jax.lax.while_loop(unfinished, body, begin)[-1]
    return totals
