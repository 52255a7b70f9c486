"""What the training agents say of the next one: its factors, and how large residuals are."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from persim_jax.models.base import ModelParams
from persim_jax.models.factor import FactorConfig, agent_factors
from persim_jax.models.factor_basis import factor_basis, scaled_target
from persim_jax.personalization.posterior import FactorPrior
from persim_jax.precision import exact
from persim_jax.types import Transitions

MAX_TRANSITIONS = 32768
"""Transitions from which residuals are estimated; evenly spaced ones where there are more."""
JITTER = 1e-6
"""Least variance of a factor, relative to the factors' mean square."""
MIN_NOISE = 1e-4
"""Least residual, relative to the target's standard deviation: below it float32 rounds."""
TRIMMED = 0.01
"""Share of the largest residuals that is left out: jumps (a wall) that no agent's factors explain
would make every transition count for little."""
TRIMMED_STD = 0.9617
"""Standard deviation of what is left of a standard normal, sqrt(1 - 2 q phi(q) / 0.99)."""


@exact
def population_prior(config: FactorConfig, params: ModelParams) -> FactorPrior:
    """Mean and covariance of the training agents' factors, for every member.

    The covariance is that of a new draw, (1 + 1/N) S, shrunk towards its own diagonal by r / N of
    its way, as N agents do not tell r (r + 1) / 2 entries apart when N is small.

    Returns:
      Leaves `[M, r]` and `[M, r, r]`.

    Raises:
      ValueError: There are fewer than two agents.
    """
    if config.num_agents < 2:
        raise ValueError(
            f"a newcomer's prior is how the training agents differ, and there is "
            f"{config.num_agents}: fit to at least two agents"
        )
    return jax.vmap(_prior_of)(agent_factors(config, params))


def _prior_of(factors: jax.Array) -> FactorPrior:
    """The prior of one member from factors `[N, r]`."""
    count, rank = factors.shape
    center = factors.mean(axis=0)
    centered = factors - center[None]
    covariance = (1 + 1 / count) / (count - 1) * centered.T @ centered
    return FactorPrior(center, jnp.linalg.cholesky(shrunk(covariance, rank / count, center)))


def shrunk(covariance: jax.Array, share: float, center: jax.Array) -> jax.Array:
    """A covariance `[r, r]` made safe to decompose; `center [r]` sets the scale of the jitter."""
    share = min(share, 1.0)
    variances = jnp.diagonal(covariance)
    floor = JITTER * jnp.mean(variances + jnp.square(center))
    # Where a penalty or the data leave no factor at all, nothing sets a scale: newcomers have none.
    floor = jnp.maximum(floor, jnp.finfo(floor.dtype).tiny)
    return (1 - share) * covariance + jnp.diag(share * variances + floor)


@functools.partial(jax.jit, static_argnames=("config",))
@exact
def residual_noise(config: FactorConfig, params: ModelParams, data: Transitions) -> jax.Array:
    """How far every member is from its training data, by coordinate, scaled: `[M, D]`.

    The root of the mean square residual without the largest `TRIMMED` of them, brought back to that
    of a normal distribution, with one degree of freedom less for each factor of each agent.

    Args:
      config: Sizes.
      params: Ensemble.
      data: What it was trained on, B transitions.
    """
    total = data.agent.shape[0]
    freedom = max(1 - config.num_agents * config.rank / (total * config.target_size), 0.5)
    data = jax.tree.map(lambda leaf: leaf[:: -(-total // MAX_TRANSITIONS)], data)
    basis = factor_basis(config, params, data.obs, data.actions)  # [M, B, D, r]
    target = scaled_target(config, params.normalizer, data.obs, data.next_obs)
    factors = agent_factors(config, params)[:, data.agent]  # [M, B, r]
    squares = jnp.square(target[None] - jnp.einsum("mbdr,mbr->mbd", basis, factors))
    kept = squares <= jnp.quantile(squares, 1 - TRIMMED, axis=1, keepdims=True)
    noise = jnp.sqrt(jnp.mean(squares, axis=1, where=kept) / freedom) / TRIMMED_STD
    return jnp.maximum(noise, MIN_NOISE)
