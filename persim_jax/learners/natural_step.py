"""The step of the natural policy gradient (Kakade, 2001; Rajeswaran et al., 2017).

With the gradient g of the surrogate `mean(A log pi(a | s))` and the policy's Fisher matrix F, the
step is `theta + sqrt(2 delta / (g^T x)) x` with `x = (F + damping I)^-1 g`: to second order, the
one of Kullback-Leibler divergence delta that gains the most. F is never formed: conjugate gradients
need its products only, which are one derivative forwards and one backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
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
        # Data of 64 bits have weights of 64 bits: a cotangent is of its own output's kind.
        return jax.tree.map(
            lambda leaf, output: (share * leaf).astype(output.dtype),
            policy.fisher(distribution, tangent),
            distribution,
        )

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
    backtracks: int = 0,
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
      backtracks: Halvings, at most, of a step that goes too far, see `backtracked`; static.

    Returns:
      The new parameters, and `gain`, the surrogate's to first order, of the step that was taken.
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

    def moved(size: jax.Array) -> Params:
        return policy.project(jax.tree.map(lambda p, d: p + size * d, params, direction))

    if backtracks:
        samples = _Samples(obs, actions, weights, advantages)
        size = backtracked(policy, params, moved, size, samples, max_kl, backtracks)
    return moved(size), {"gain": size * inner}


class _Samples(NamedTuple):
    obs: jax.Array
    actions: jax.Array
    weights: jax.Array
    advantages: jax.Array


def backtracked(
    policy: StochasticPolicy,
    params: Params,
    moved: Callable[[jax.Array], Params],
    size: jax.Array,
    samples: _Samples,
    max_kl: float,
    backtracks: int,
) -> jax.Array:
    """Halves a step until it is what the second-order model promised (as TRPO does).

    A nearly deterministic policy has next to no curvature where it stands and much of it a step
    further on, so that a step of the model's size may be a leap. With `r = pi_new / pi_old` of the
    samples, a step is taken if the divergence `mean(r - 1 - log r)` is at most 1.5 times `max_kl`
    and the surrogate `mean(A (r - 1))` does not fall; if none of them is, no step is.

    Args:
      policy: Static.
      params: Before the step.
      moved: `(size) -> params` after a step.
      size: The step to begin with.
      samples: Of the policy before the step.
      max_kl: delta.
      backtracks: Halvings at most, static.

    Returns:
      The size to take, 0 if none is good.
    """
    total = jnp.maximum(samples.weights.sum(), 1.0)

    def log_probs(params: Params) -> jax.Array:
        return jax.vmap(
            lambda obs, action: policy.log_prob(policy.distribution(params, obs), action)
        )(samples.obs, samples.actions)

    before = log_probs(params)

    def good(size: jax.Array) -> jax.Array:
        log_ratio = log_probs(moved(size)) - before
        gap = jnp.expm1(log_ratio)
        divergence = (samples.weights * (gap - log_ratio)).sum() / total
        gain = (samples.weights * samples.advantages * gap).sum() / total
        return (divergence <= 1.5 * max_kl) & (gain >= 0)

    def undecided(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        _, halvings, accepted = carry
        return ~accepted & (halvings < backtracks)

    def halve(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array, jax.Array]:
        size, halvings, _ = carry
        return size / 2, halvings + 1, good(size / 2)

    start = (size, jnp.zeros((), jnp.int32), good(size))
    size, _, accepted = lax.while_loop(undecided, halve, start)
    return jnp.where(accepted, size, 0.0)


def _dot(first: Params, second: Params) -> jax.Array:
    return jnp.vdot(ravel_pytree(first)[0], ravel_pytree(second)[0])
