"""The prediction test: open-loop rollouts of a model against fresh true episodes (Table 1)."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
from jax import lax

from persim_jax.collect import ActFn, memoryless
from persim_jax.models.base import DynamicsModel, History
from persim_jax.models.true_env import true_dynamics
from persim_jax.rollout import unroll
from persim_jax.types import Environment, PyTree, Trajectory


@chex.dataclass(frozen=True)
class OpenLoop:
    """Open-loop predictions beside the truth, for E episodes of one agent.

    Attributes:
      true: `[E, S + 1, D]`; row 0 is the true state that the prediction starts from.
      predicted: `[E, S + 1, D]`, the mean over members per step.
      mask: `[E, S]` bool; true for steps that the true episode took.
    """

    true: jax.Array
    predicted: jax.Array
    mask: jax.Array


@chex.dataclass(frozen=True)
class PredictionScores:
    """Scores of each episode, NaN where an episode has fewer than two scored steps.

    Attributes:
      rmse: `[E]`, root of the mean squared error over steps and raw coordinates.
      r2: `[E]`, variance-weighted over coordinates.
    """

    rmse: jax.Array
    r2: jax.Array


def combine_mean(members: jax.Array) -> jax.Array:
    """The mean over members of `[M, S, D]`, per step and after the rollout: the protocol's way."""
    return members.mean(axis=0)


def combine_median(members: jax.Array) -> jax.Array:
    """The median over members of `[M, S, D]`, per step and coordinate."""
    return jnp.median(members, axis=0)


COMBINE = {"mean": combine_mean, "median": combine_median}


@functools.partial(jax.jit, static_argnames=("env", "act", "num_steps"))
def true_episodes(
    key: jax.Array,
    env: Environment,
    params: PyTree,
    act: ActFn,
    policy_params: PyTree,
    obs: jax.Array,
    num_steps: int,
) -> Trajectory:
    """The first steps of fresh true episodes of one agent under the test policy.

    Args:
      key: Consumed; episode e uses `fold_in(key, e)`.
      env: The true environment, static.
      params: The agent's physics.
      act: The test policy, static.
      policy_params: Its params.
      obs: `[E, D]` initial observations.
      num_steps: Static.

    Returns:
      Trajectories with leaves `[E, ...]`.
    """
    model, policy = true_dynamics(env), memoryless(act, policy_params)

    def one(episode: jax.Array, obs: jax.Array) -> Trajectory:
        key_episode = jax.random.fold_in(key, episode)
        return unroll(key_episode, model, params, env, policy, obs, num_steps)

    return jax.vmap(one)(jnp.arange(obs.shape[0]), obs)


@functools.partial(jax.jit, static_argnames=("model", "warm_up", "combine"))
def open_loop(
    key: jax.Array,
    model: DynamicsModel,
    model_params: PyTree,
    agent: jax.Array,
    episodes: Trajectory,
    warm_up: int,
    combine: str = "mean",
) -> OpenLoop:
    """Predicts each episode from its true state after the warm-up, given its actions only.

    Each member continues from its own predictions; members are combined per step afterwards.

    Args:
      key: Consumed; episode e uses `fold_in(key, e)`.
      model: Dynamics, static.
      model_params: Its params.
      agent: `[]` row of the agent.
      episodes: Leaves `[E, warm_up + S, ...]`.
      warm_up: Steps followed on true states first; the model may read them as history.
      combine: A name in `COMBINE`.

    Returns:
      Truth and predictions over the S steps that follow.
    """

    def one(index: jax.Array, episode: Trajectory) -> OpenLoop:
        history = History(
            obs=episode.obs[:warm_up],
            actions=episode.actions[:warm_up],
            next_obs=episode.obs[1 : warm_up + 1],
            mask=episode.mask[:warm_up],
        )
        bound = model.bind(model_params, agent, history)
        encoded = model.encode_actions(bound, episode.actions[warm_up:])
        key_episode = jax.random.fold_in(key, index)

        def step(state: PyTree, xs: tuple[jax.Array, PyTree]) -> tuple[PyTree, jax.Array]:
            t, action = xs
            state = model.step(jax.random.fold_in(key_episode, t), bound, state, action)
            return state, model.observe(state)

        start = episode.obs[warm_up]
        times = jnp.arange(episode.actions.shape[0] - warm_up)
        _, members = lax.scan(step, model.start(bound, start), (times, encoded))
        predicted = COMBINE[combine](members.swapaxes(0, 1))
        return OpenLoop(
            true=episode.obs[warm_up:],
            predicted=jnp.concatenate([start[None], predicted]),
            mask=episode.mask[warm_up:],
        )

    return jax.vmap(one)(jnp.arange(episodes.mask.shape[0]), episodes)


@jax.jit
def score(paths: OpenLoop) -> PredictionScores:
    """RMSE and R^2 of each episode over its scored steps.

    RMSE = sqrt(mean over steps t and coordinates d of (true - predicted)^2) and
    R^2 = 1 - sum_d SS_res(d) / sum_d SS_tot(d), both in raw units.

    Args:
      paths: From `open_loop`.

    Returns:
      Scores `[E]`; NaN for an episode of fewer than two scored steps, and a NaN R^2 where the true
      state did not move at all.
    """

    def one(true: jax.Array, predicted: jax.Array, mask: jax.Array) -> PredictionScores:
        weight = mask[:, None].astype(true.dtype)
        steps = mask.sum()
        count = jnp.maximum(steps, 1).astype(true.dtype)
        squared = jnp.where(mask[:, None], jnp.square(true - predicted), 0.0)
        mean = (true * weight).sum(axis=0) / count
        total = (jnp.square(true - mean[None]) * weight).sum()
        rmse = jnp.sqrt(squared.sum() / (count * true.shape[1]))
        r2 = 1.0 - squared.sum() / jnp.where(total > 0, total, jnp.nan)
        enough = steps >= 2
        return PredictionScores(
            rmse=jnp.where(enough, rmse, jnp.nan), r2=jnp.where(enough, r2, jnp.nan)
        )

    return jax.vmap(one)(paths.true[:, 1:], paths.predicted[:, 1:], paths.mask)


def error_per_step(paths: OpenLoop) -> jax.Array:
    """RMSE over coordinates of each episode and step `[E, S]`, NaN where there was no step."""
    error = jnp.sqrt(jnp.mean(jnp.square(paths.true - paths.predicted)[:, 1:], axis=-1))
    return jnp.where(paths.mask, error, jnp.nan)
