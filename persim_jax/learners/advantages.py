"""How much better an action was than what its state promises: generalised advantage estimates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from persim_jax.types import Trajectory


def gae(
    episode: Trajectory, values: jax.Array, discount: float, gae_lambda: float
) -> tuple[jax.Array, jax.Array]:
    """Generalised advantage estimates of one episode (Schulman et al., 2016, equation 16).

    `delta_t = r_t + discount * (1 - terminated_t) * V(s_{t+1}) - V(s_t)` and
    `A_t = delta_t + discount * lambda * (1 - terminated_t) * A_{t+1}`. A termination is worth
    nothing; where the episode was cut off by its time limit, the value of the last state stands for
    what would have come.

    Args:
      episode: One, padded to T.
      values: `V(s_0), ..., V(s_T)`, `[T + 1]`.
      discount: Of a reward one step later.
      gae_lambda: 0 trusts the values, 1 trusts the rewards.

    Returns:
      Advantages `A_t` and the values' targets `A_t + V(s_t)`, both `[T]` and zero past the end.
    """
    goes_on = discount * jnp.where(episode.terminated, 0.0, 1.0)
    deltas = episode.rewards + goes_on * values[1:] - values[:-1]
    # Past the end nothing comes, so that the last step of an episode sees no later one.
    deltas = jnp.where(episode.mask, deltas, 0.0)

    def back(later: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta, factor = step
        advantage = delta + gae_lambda * factor * later
        return advantage, advantage

    start = jnp.zeros((), deltas.dtype)
    _, advantages = lax.scan(back, start, (deltas, goes_on), reverse=True)
    return advantages, jnp.where(episode.mask, advantages + values[:-1], 0.0)


def whiten(advantages: jax.Array, mask: jax.Array) -> jax.Array:
    """Brings those that count to mean 0 and standard deviation 1, the others to 0.

    Args:
      advantages: `[...]`.
      mask: As `advantages`, bool.

    Returns:
      `[...]`; all zero where they are all equal.
    """
    weights = mask.astype(advantages.dtype)
    weights = weights / jnp.maximum(weights.sum(), 1.0)
    centered = advantages - (weights * advantages).sum()
    std = jnp.sqrt((weights * jnp.square(centered)).sum())
    return jnp.where(mask, centered / jnp.maximum(std, 1e-6), 0.0)
