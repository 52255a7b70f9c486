"""The step of the natural policy gradient (Kakade, 2001; Rajeswaran et al., 2017).

With the gradient g of the surrogate `mean(A log pi(a | s))` and the policy's Fisher matrix F, the
step is `theta + sqrt(2 delta / (g^T x)) x` with `x = (F + damping I)^-1 g`: to second order, the
one of Kullback-Leibler divergence delta that gains the most. F is never formed: conjugate gradients
need its products only, which are one derivative forwards and one backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from persim_jax.learners.policies import StochasticPolicy
from persim_jax.types import Metrics, Params


def surrogate_gradient(
    policy: StochasticPolicy,
    params: Params,
    obs: jax.Array,
    actions: jax.Array,
    weights: jax.Array,
    advantages: jax.Array,
) -> Params:
    """Gradient of `sum_i w_i A_i log pi(a_i | s_i) / sum_i w_i` by the policy's parameters.

    Args:
      policy: Static.
      params: Of the policy.
      obs: `[B, D]`.
      actions: `[B]` or `[B, A]`.
      weights: `[B]`, w.
      advantages: `[B]`, A.
    """

    def surrogate(params: Params) -> jax.Array:
        log_probs = jax.vmap(
            lambda obs, action: policy.log_prob(policy.distribution(params, obs), action)
        )(obs, actions)
        return (weights * advantages * log_probs).sum() / jnp.maximum(weights.sum(), 1.0)

    return jax.grad(surrogate)(params)


def fisher_product(
    policy: StochasticPolicy, params: Params, obs: jax.Array, weights: jax.Array
) -> Callable[[Params], Params]:
    """Returns `v -> F v` with `F = sum_i w_i J_i^T F_i J_i / sum_i w_i`, no matrix formed.

    J_i is the Jacobian of the distribution at s_i by the policy's parameters and F_i the
    distribution's Fisher matrix.

    Args:
      policy: Static.
      params: Of the policy.
      obs: `[B, D]`.
      weights: `[B]`, w.
    """
    distributions, forwards = jax.linearize(
        lambda params: jax.vmap(policy.distribution, (None, 0))(params, obs), params
    )
    backwards = jax.linear_transpose(forwards, params)
    shares = weights / jnp.maximum(weights.sum(), 1.0)

    def weighted(share: jax.Array, distribution: Any, tangent: Any) -> Any:
        return jax.tree.map(lambda leaf: share * leaf, policy.fisher(distribution, tangent))

    def product(vector: Params) -> Params:
        cotangents = jax.vmap(weighted)(shares, distributions, forwards(vector))
        found: Params = backwards(cotangents)[0]
        return found

    return product


def natural_direction(
    product: Callable[[Params], Params], gradient: Params, damping: float, cg_steps: int
) -> Params:
    """`(F + damping I)^-1 g` by conjugate gradients, of which `cg_steps` are done at most.

    Args:
      product: `v -> F v`.
      gradient: g.
      damping: Static or traced.
      cg_steps: Static.
    """

    def damped(vector: Params) -> Params:
        return jax.tree.map(lambda fv, v: fv + damping * v, product(vector), vector)

    # The right-hand side is scaled to size 1: squares of small gradients leave float32.
    size = jnp.abs(ravel_pytree(gradient)[0]).max()
    scale = jnp.where(size > 0, size, 1.0)
    unit = jax.tree.map(lambda leaf: leaf / scale, gradient)
    found, _ = jax.scipy.sparse.linalg.cg(damped, unit, tol=1e-6, maxiter=cg_steps)
    direction: Params = jax.tree.map(lambda leaf: leaf * scale, found)
    return direction


def improve(
    policy: StochasticPolicy,
    params: Params,
    obs: jax.Array,
    actions: jax.Array,
    weights: jax.Array,
    advantages: jax.Array,
    max_kl: float,
    damping: float = 1e-3,
    cg_steps: int = 20,
    fisher_every: int = 1,
) -> tuple[Params, Metrics]:
    """One natural gradient step of divergence `max_kl`.

    Args:
      policy: Static.
      params: Of the policy that the samples are of.
      obs: `[B, D]`.
      actions: `[B]` or `[B, A]`.
      weights: `[B]`, 0 for samples that do not count.
      advantages: `[B]`.
      max_kl: delta.
      damping: What is added to the Fisher matrix's diagonal.
      cg_steps: Conjugate gradient steps, static.
      fisher_every: One of so many samples is used in the Fisher products, static.

    Returns:
      The new parameters, and `gain`, the surrogate's to first order.
    """
    gradient = surrogate_gradient(policy, params, obs, actions, weights, advantages)
    some = slice(None, None, fisher_every)
    product = fisher_product(policy, params, obs[some], weights[some])
    direction = natural_direction(product, gradient, damping, cg_steps)
    inner = _dot(gradient, direction)
    # Where there is no gradient there is no step; a direction downhill is conjugate gradients' own
    # rounding.
    good = inner > 0
    size = jnp.where(good, jnp.sqrt(2 * max_kl / jnp.where(good, inner, 1.0)), 0.0)
    new = jax.tree.map(lambda p, d: p + size * d, params, direction)
    return policy.project(new), {"gain": size * inner}


def _dot(first: Params, second: Params) -> jax.Array:
    return jnp.vdot(ravel_pytree(first)[0], ravel_pytree(second)[0])
