"""Where a planner's candidate action sequences come from, and what it learns from their scores."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from persim_jax.types import PyTree, Spec


class Sampler(NamedTuple):
    """Candidate sequences as `init`, `sample`, `update`, `best`; unbatched.

    Attributes:
      num_rounds: How often a decision samples and updates, static.
      init: `(spec) -> s`, for the start of an episode.
      sample: `(key, s) -> (actions [K, H] int32 or [K, H, A], s)`; the key is consumed.
      update: `(s, actions, scores [K]) -> s`; larger scores are better.
      best: `(s) -> action`, the decision after the last round.
      shift: `(s) -> s`, one step on in time, before the first round of a decision.
    """

    num_rounds: int
    init: Callable[[Spec], PyTree]
    sample: Callable[[jax.Array, PyTree], tuple[jax.Array, PyTree]]
    update: Callable[[PyTree, jax.Array, jax.Array], PyTree]
    best: Callable[[PyTree], jax.Array]
    shift: Callable[[PyTree], PyTree]


def nan_is_worst(scores: jax.Array) -> jax.Array:
    """Scores with -inf for NaN, which would count as a maximum: there a model left the numbers."""
    return jnp.where(jnp.isnan(scores), -jnp.inf, scores)


class ShootingState(NamedTuple):
    """State of random shooting over discrete actions.

    Attributes:
      plan: `[H]` int32, the best sequence so far.
      has_plan: `[]` bool; false until the first decision of an episode.
      tie_break: `[K]`, random numbers that decide between candidates of equal score.
    """

    plan: jax.Array
    has_plan: jax.Array
    tie_break: jax.Array


@functools.cache
def random_shooting(spec: Spec, num_candidates: int, horizon: int) -> Sampler:
    """Uniformly random sequences of discrete actions, and the previous plan shifted by one.

    Candidate 0 is the previous plan without its first action, its last action drawn afresh. Ties
    are broken at random: by index they would always fall to the old plan.

    Args:
      spec: A task with discrete actions.
      num_candidates: K.
      horizon: H.

    Raises:
      ValueError: The task's actions are continuous.
    """
    if not spec.discrete:
        raise ValueError(
            f"random shooting draws discrete actions and {spec.name} has continuous ones: "
            "use the sampler 'cem', 'icem' or 'mppi'"
        )

    def init(spec: Spec) -> ShootingState:
        del spec
        return ShootingState(
            jnp.zeros(horizon, jnp.int32), jnp.asarray(False), jnp.zeros(num_candidates)
        )

    def sample(key: jax.Array, state: ShootingState) -> tuple[jax.Array, ShootingState]:
        key_actions, key_ties = jax.random.split(key)
        # One random byte is enough for an action: drawing 32 bits costs as much as the dynamics.
        actions = _random_actions(key_actions, (num_candidates, horizon), spec.num_actions)
        warm = jnp.concatenate([state.plan[:-1], actions[0, -1:]])
        actions = actions.at[0].set(jnp.where(state.has_plan, warm, actions[0]))
        return actions, state._replace(tie_break=jax.random.uniform(key_ties, (num_candidates,)))

    def update(state: ShootingState, actions: jax.Array, scores: jax.Array) -> ShootingState:
        scores = nan_is_worst(scores)
        tied = scores >= scores.max()
        winner = jnp.argmax(jnp.where(tied, state.tie_break, -1.0))
        return state._replace(plan=actions[winner], has_plan=jnp.asarray(True))

    def shift(state: ShootingState) -> ShootingState:
        return state._replace(plan=jnp.roll(state.plan, -1))

    return Sampler(1, init, sample, update, lambda state: state.plan[0], shift)


def _random_actions(key: jax.Array, shape: tuple[int, ...], num_actions: int) -> jax.Array:
    """Uniform integers; from 16 random bits each, exact to num_actions / 65536."""
    bits = jax.random.bits(key, shape, jnp.uint16).astype(jnp.uint32)
    return ((bits * jnp.uint32(num_actions)) >> 16).astype(jnp.int32)
