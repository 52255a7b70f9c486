"""The cross-entropy method: a normal distribution over plans, refitted to the best candidates."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from persim_jax.planning import gaussian
from persim_jax.planning.samplers import Sampler, nan_is_worst
from persim_jax.types import Spec


class CemState(NamedTuple):
    """The distribution over plans and what it has led to.

    Attributes:
      mean: `[H, A]`, smoothed over rounds; the warm start of the next decision.
      std: `[H, A]`.
      action: `[A]`, mean first action of the last round's elites.
      round: `[]` int32, rounds of this decision that are over.
    """

    mean: jax.Array
    std: jax.Array
    action: jax.Array
    round: jax.Array


@functools.cache
def cem(
    spec: Spec,
    num_candidates: int,
    horizon: int,
    num_rounds: int,
    num_elites: int,
    smoothing: float,
    init_std: tuple[float, float],
) -> Sampler:
    """CEM as the authors of PerSim plan with it.

    Candidates are normal within the bounds. The first round of a decision takes the mean and the
    unbiased standard deviation of its elites whole; with s the smoothing, the others take

        mean <- s mean + (1 - s) mean of the elites, and the standard deviation likewise.

    The action is the first of the last elites' mean, unsmoothed. The next decision starts from the
    smoothed mean one step on, the middle of the bounds at its end, and from a new standard
    deviation, one number for the whole plan.

    Args:
      spec: A task with continuous actions.
      num_candidates: K.
      horizon: H.
      num_rounds: Rounds of a decision, the first one included.
      num_elites: E, best candidates of a round.
      smoothing: s.
      init_std: Range of the first standard deviation, in halves of the range of an action.

    Raises:
      ValueError: The task's actions are discrete or unbounded.
    """
    gaussian.require_box("cem", spec)

    def init(spec: Spec) -> CemState:
        box = gaussian.box_of(spec)
        plan = gaussian.middle_plan(box, horizon)
        return CemState(plan, jnp.zeros_like(plan), box.middle, jnp.zeros((), jnp.int32))

    def sample(key: jax.Array, state: CemState) -> tuple[jax.Array, CemState]:
        box = gaussian.box_of(spec)
        key_std, key_actions = jax.random.split(key)
        fresh = gaussian.draw_std(key_std, box, horizon, init_std)
        std = jnp.where(state.round == 0, fresh, state.std)
        actions = gaussian.truncated_normal(key_actions, box, state.mean, std, num_candidates)
        return actions, state._replace(std=std)

    def update(state: CemState, actions: jax.Array, scores: jax.Array) -> CemState:
        # By index among equals, which is at random: candidates are drawn alike.
        _, elites = lax.top_k(nan_is_worst(scores), num_elites)
        mean, std = gaussian.fit(actions[elites], ddof=1)
        keep = jnp.where(state.round == 0, 0.0, smoothing)
        return CemState(
            mean=gaussian.blend(state.mean, mean, keep),
            std=gaussian.blend(state.std, std, keep),
            action=mean[0],
            round=state.round + 1,
        )

    def shift(state: CemState) -> CemState:
        mean = gaussian.shift_plan(state.mean, gaussian.box_of(spec).middle)
        return state._replace(mean=mean, round=jnp.zeros_like(state.round))

    return Sampler(num_rounds, init, sample, update, lambda state: state.action, shift)
