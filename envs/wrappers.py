"""Environments for online training: episodes that end, are counted, and start again.

For training loops only: planning or predicting through a reset would be silently wrong, so plain
environments never reset themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from envs import base


@chex.dataclass(frozen=True)
class EpisodeState:
    """A running episode together with its statistics.

    Attributes:
      env_state: State of the environment.
      episode_return: `[]`, sum of the rewards of this episode so far.
      episode_length: `[]` int32, number of its steps so far.
    """

    env_state: base.EnvState
    episode_return: jax.Array
    episode_length: jax.Array


@chex.dataclass(frozen=True)
class Timestep:
    """What one step of training gives to a learner.

    Attributes:
      obs: `[D]`, before the step.
      next_obs: `[D]`, after the step and before any reset: what a learner bootstraps from.
      reward: `[]`.
      terminated: `[]` bool, whether the physics ended the episode.
      truncated: `[]` bool, whether the time limit did; never both.
      episode_return: `[]`, sum of rewards of the episode, this step included.
      episode_length: `[]` int32, its number of steps, this one included.
    """

    obs: jax.Array
    next_obs: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    episode_return: jax.Array
    episode_length: jax.Array


class AutoResetEnv(NamedTuple):
    """An environment that starts a new episode as soon as one has ended.

    Attributes:
      spec: Static facts.
      reset: `(key, params) -> EpisodeState`; the key is consumed.
      step: `(key, EpisodeState, action, params) -> (EpisodeState, Timestep)`; the key is consumed.
        The state is the first of the next episode where this one has ended.
      observe: `(EpisodeState, params) -> obs [D]`.
    """

    spec: base.EnvSpec
    reset: Callable[[jax.Array, base.EnvParams], EpisodeState]
    step: Callable[
        [jax.Array, EpisodeState, jax.Array, base.EnvParams], tuple[EpisodeState, Timestep]
    ]
    observe: Callable[[EpisodeState, base.EnvParams], jax.Array]


def auto_reset(env: base.Env) -> AutoResetEnv:
    """Returns `env` with its time limit, with episode statistics, and without an end."""

    def reset(key: jax.Array, params: base.EnvParams) -> EpisodeState:
        env_state = env.reset(key, params)
        dtype = env.observe(env_state, params).dtype
        return EpisodeState(
            env_state=env_state,
            episode_return=jnp.zeros((), dtype),
            episode_length=jnp.zeros((), jnp.int32),
        )

    def observe(state: EpisodeState, params: base.EnvParams) -> jax.Array:
        return env.observe(state.env_state, params)

    def step(
        key: jax.Array, state: EpisodeState, action: jax.Array, params: base.EnvParams
    ) -> tuple[EpisodeState, Timestep]:
        step_key, reset_key = jax.random.split(key)
        env_state = env.step(step_key, state.env_state, action, params)
        obs, next_obs = observe(state, params), env.observe(env_state, params)
        reward = env.reward(obs, action, next_obs)
        after = EpisodeState(
            env_state=env_state,
            episode_return=state.episode_return + reward,
            episode_length=state.episode_length + 1,
        )
        terminated = env.terminated(next_obs)
        truncated = ~terminated & (after.episode_length >= env.spec.max_steps)
        timestep = Timestep(
            obs=obs,
            next_obs=next_obs,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            episode_return=after.episode_return,
            episode_length=after.episode_length,
        )
        ended = terminated | truncated
        fresh = reset(reset_key, params)
        return jax.tree.map(lambda new, old: jnp.where(ended, new, old), fresh, after), timestep

    return AutoResetEnv(spec=env.spec, reset=reset, step=step, observe=observe)
