"""MPPI: the mean of all candidates, weighted by the exponential of their scores."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from persim_jax.planning import gaussian
from persim_jax.planning.samplers import Sampler, nan_is_worst
from persim_jax.types import Spec


class MppiState(NamedTuple):
    """The plan and the noise around it.

    Attributes:
      mean: `[H, A]`, the plan; shifted, the warm start of the next decision.
      std: `[H, A]`, of the noise in this decision.
      round: `[]` int32, rounds of this decision that are over.
    """

    mean: jax.Array
    std: jax.Array
    round: jax.Array


@functools.cache
def mppi(
    spec: Spec,
    num_candidates: int,
    horizon: int,
    num_rounds: int,
    init_std: tuple[float, float],
    noise_beta: float,
    temperature: float,
) -> Sampler:
    """Model predictive path integral control (Williams et al., ICRA 2017).

    Candidates are the plan plus noise, clipped to the bounds; the new plan is their mean with the
    weights of `path_weights`, and its first action is executed. The authors take one round; with
    more, each starts from the plan of the one before, with noise of the same size. Their term for
    the cost of control is left out, as rewards already hold it. The next decision starts from the
    plan one step on, the middle of the bounds at its end.

    Args:
      spec: A task with continuous actions.
      num_candidates: K.
      horizon: H.
      num_rounds: Rounds of a decision.
      init_std: Range of the noise's standard deviation, drawn once for a decision, in halves of
        the range of an action.
      noise_beta: Exponent of the noise's spectrum; 0, white, is theirs.
      temperature: The greater, the more equal the weights.

    Raises:
      ValueError: The task's actions are discrete or unbounded.
    """
    gaussian.require_box("mppi", spec)

    def init(spec: Spec) -> MppiState:
        plan = gaussian.middle_plan(gaussian.box_of(spec), horizon)
        return MppiState(plan, jnp.zeros_like(plan), jnp.zeros((), jnp.int32))

    def sample(key: jax.Array, state: MppiState) -> tuple[jax.Array, MppiState]:
        box = gaussian.box_of(spec)
        key_std, key_noise = jax.random.split(key)
        fresh = gaussian.draw_std(key_std, box, horizon, init_std)
        std = jnp.where(state.round == 0, fresh, state.std)
        size = len(spec.action_low)
        noise = gaussian.coloured_noise(key_noise, num_candidates, horizon, size, noise_beta)
        actions = gaussian.clip(box, state.mean[None] + std[None] * noise)
        return actions, state._replace(std=std)

    def update(state: MppiState, actions: jax.Array, scores: jax.Array) -> MppiState:
        weights = path_weights(scores, temperature)
        mean = jnp.tensordot(weights, actions, axes=1)
        # Rounding may leave the box by a hair where all candidates are at a bound.
        mean = gaussian.clip(gaussian.box_of(spec), mean)
        return state._replace(mean=mean, round=state.round + 1)

    def shift(state: MppiState) -> MppiState:
        mean = gaussian.shift_plan(state.mean, gaussian.box_of(spec).middle)
        return state._replace(mean=mean, round=jnp.zeros_like(state.round))

    return Sampler(num_rounds, init, sample, update, lambda state: state.mean[0], shift)


def path_weights(scores: jax.Array, temperature: float) -> jax.Array:
    """Weights of candidates: exp((score - best) / (temperature * spread)), normalised to sum 1.

    The spread is the standard deviation of the better half of the scores. So weights are the same
    for rewards of any unit and offset, and a few candidates on which a model diverges, far down,
    do not make the others equal.

    Args:
      scores: `[K]`; NaN and -inf have no weight, unless there is nothing else.
      temperature: Positive; without a unit.

    Returns:
      `[K]`.
    """
    scores = nan_is_worst(scores)
    better, _ = lax.top_k(scores, max(scores.shape[0] // 2, 1))
    finite = jnp.isfinite(better)
    spread = jnp.std(jnp.where(finite, better, 0.0), where=finite)
    spread = jnp.maximum(jnp.where(finite.any(), spread, 0.0), jnp.finfo(scores.dtype).tiny)
    best = scores.max()
    # Zero for the best even where it is infinite, whose difference from itself is NaN.
    gap = jnp.where(scores == best, 0.0, (best - scores) / (temperature * spread))
    return jax.nn.softmax(-gap)
