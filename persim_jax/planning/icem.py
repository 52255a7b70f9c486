"""iCEM: the cross-entropy method with slow noise and a memory (Pinneri et al., CoRL 2020)."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from persim_jax.planning import gaussian
from persim_jax.planning.samplers import Sampler, nan_is_worst
from persim_jax.types import Spec


class IcemState(NamedTuple):
    """The distribution over plans, the plans that are kept, and what both have led to.

    Attributes:
      mean: `[H, A]`.
      std: `[H, A]`.
      kept: `[E', H, A]`, the best of the last round's elites, best first.
      has_kept: `[]` bool; false until the first round of an episode.
      action: `[A]`, first action of the best candidate of the last round.
      round: `[]` int32, rounds of this decision that are over.
      tie_break: `[K]`, random numbers that decide between candidates of equal score.
    """

    mean: jax.Array
    std: jax.Array
    kept: jax.Array
    has_kept: jax.Array
    action: jax.Array
    round: jax.Array
    tie_break: jax.Array


@functools.cache
def icem(
    spec: Spec,
    num_candidates: int,
    horizon: int,
    num_rounds: int,
    num_elites: int,
    smoothing: float,
    init_std: tuple[float, float],
    noise_beta: float,
    keep_fraction: float,
) -> Sampler:
    """CEM with coloured noise and kept elites, as in the authors' code.

    What differs from `cem`: the noise has a spectrum f^-beta and is clipped to the bounds, so that
    extreme actions are frequent; a share of the elites competes again in the next round and,
    shifted, in the next decision, its last action drawn afresh; the last round's last candidate is
    the mean itself; the action is that of the best candidate, not a mean; every round is smoothed;
    the shifted mean repeats its last action. The standard deviation of elites is that of a
    population, as theirs. Kept plans and the mean take the places of drawn ones, and the number of
    candidates does not fall from round to round: shapes are those of every round.

    Args:
      spec: A task with continuous actions.
      num_candidates: K.
      horizon: H.
      num_rounds: Rounds of a decision, the first one included.
      num_elites: E, best candidates of a round.
      smoothing: Share of the old mean and standard deviation that a round keeps.
      init_std: Range of the first standard deviation, in halves of the range of an action.
      noise_beta: Exponent of the spectrum.
      keep_fraction: Share of the elites that is kept, E' = keep_fraction E rounded.

    Raises:
      ValueError: The task's actions are discrete or unbounded.
    """
    gaussian.require_box("icem", spec)
    num_kept = round(keep_fraction * num_elites)

    def init(spec: Spec) -> IcemState:
        return _first_state(spec, num_candidates, horizon, num_kept)

    def sample(key: jax.Array, state: IcemState) -> tuple[jax.Array, IcemState]:
        box = gaussian.box_of(spec)
        key_std, key_noise, key_ties = jax.random.split(key, 3)
        fresh = gaussian.draw_std(key_std, box, horizon, init_std)
        std = jnp.where(state.round == 0, fresh, state.std)
        size = len(spec.action_low)
        noise = gaussian.coloured_noise(key_noise, num_candidates, horizon, size, noise_beta)
        drawn = gaussian.clip(box, state.mean[None] + std[None] * noise)
        actions = _join(drawn, state, state.round == num_rounds - 1)
        ties = jax.random.uniform(key_ties, (num_candidates,))
        return actions, state._replace(std=std, tie_break=ties)

    def update(state: IcemState, actions: jax.Array, scores: jax.Array) -> IcemState:
        # By index the old elites, which come first, would win every tie.
        best_first = jnp.lexsort((state.tie_break, -nan_is_worst(scores)))
        elites = actions[best_first[:num_elites]]
        mean, std = gaussian.fit(elites, ddof=0)
        return state._replace(
            mean=gaussian.blend(state.mean, mean, smoothing),
            std=gaussian.blend(state.std, std, smoothing),
            kept=elites[:num_kept],
            has_kept=jnp.asarray(True),
            action=elites[0, 0],
            round=state.round + 1,
        )

    def shift(state: IcemState) -> IcemState:
        return state._replace(
            mean=gaussian.shift_plan(state.mean, state.mean[-1]),
            kept=jnp.roll(state.kept, -1, axis=1),
            round=jnp.zeros_like(state.round),
        )

    return Sampler(num_rounds, init, sample, update, lambda state: state.action, shift)


def _first_state(spec: Spec, num_candidates: int, horizon: int, num_kept: int) -> IcemState:
    box = gaussian.box_of(spec)
    plan = gaussian.middle_plan(box, horizon)
    return IcemState(
        mean=plan,
        std=jnp.zeros_like(plan),
        kept=jnp.broadcast_to(plan, (num_kept, *plan.shape)),
        has_kept=jnp.asarray(False),
        action=box.middle,
        round=jnp.zeros((), jnp.int32),
        tie_break=jnp.zeros(num_candidates),
    )


def _join(drawn: jax.Array, state: IcemState, is_last: jax.Array) -> jax.Array:
    """Kept plans in place of the first drawn ones; in the last round the mean in the last place."""
    num_kept = state.kept.shape[0]
    # A kept plan that was shifted ends with the action of the one whose place it takes.
    last = jnp.where(state.round == 0, drawn[:num_kept, -1], state.kept[:, -1])
    kept = jnp.where(state.has_kept, state.kept.at[:, -1].set(last), drawn[:num_kept])
    actions = drawn.at[:num_kept].set(kept)
    return actions.at[-1].set(jnp.where(is_last, state.mean, actions[-1]))
