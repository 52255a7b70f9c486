"""The natural gradient against the explicit Fisher matrix and dense solves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from persim_jax.learners.natural_step import (
    fisher_product,
    improve,
    natural_direction,
    surrogate_gradient,
)
from persim_jax.learners.policies import make_policy
from tests.learners.test_policies import CONFIG, CONTINUOUS, DISCRETE, quadrature

ROWS = 12
STEP = jax.jit(improve, static_argnums=(0, 6, 7, 8), static_argnames="fisher_every")
HALF = np.float32([2.0, 0.5])
DAMPING = 0.01


def problem(spec, seed=0):
    """A policy with some preferences, and samples with weights and advantages."""
    rng = np.random.default_rng(seed)
    policy = make_policy(spec, CONFIG)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.7, leaf.shape), jnp.float32),
        policy.init(jax.random.key(0)),
    )
    obs = jnp.asarray(rng.normal(size=(ROWS, 2)), jnp.float32)
    if spec.discrete:
        actions = jnp.asarray(rng.integers(0, 3, ROWS), jnp.int32)
    else:
        actions = jnp.asarray(rng.normal(size=(ROWS, 2)), jnp.float32)
    weights = jnp.asarray(rng.integers(0, 2, ROWS), jnp.float32)
    advantages = jnp.asarray(rng.normal(size=ROWS), jnp.float32)
    return policy, params, obs, actions, weights, advantages


def explicit(spec, policy, params, obs, weights):
    """The Fisher matrix: expectations of score times score, written out over actions."""
    flat, unravel = ravel_pytree(params)

    def score(obs, action):
        log_prob = lambda flat: policy.log_prob(  # noqa: E731
            policy.distribution(unravel(flat), obs), action
        )
        return jax.grad(log_prob)(flat)

    def matrix(obs):
        found = policy.distribution(params, obs)
        if spec.discrete:
            actions, shares = jnp.arange(3), jax.nn.softmax(found)
        else:
            actions, shares = quadrature(found, HALF)
        each = jax.vmap(score, (None, 0))(obs, actions)
        return (each * shares[:, None]).T @ each

    each = np.asarray(jax.jit(jax.vmap(matrix))(obs), np.float64)
    return np.average(each, axis=0, weights=np.asarray(weights))


SPECS = pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["categorical", "gaussian"])


@SPECS
def test_products_and_steps_are_those_of_the_explicit_matrix(spec):
    policy, params, obs, actions, weights, advantages = problem(spec)
    matrix = explicit(spec, policy, params, obs, weights)
    product = fisher_product(policy, params, obs, weights)
    flat, unravel = ravel_pytree(params)
    columns = jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0])(jnp.eye(flat.size))
    np.testing.assert_allclose(columns, matrix, atol=2e-4 * np.abs(matrix).max())

    gradient = surrogate_gradient(policy, params, obs, actions, weights, advantages)
    g = np.asarray(ravel_pytree(gradient)[0], np.float64)
    expected = np.linalg.solve(matrix + DAMPING * np.eye(flat.size), g)
    # Conjugate gradients end after as many steps as there are different eigenvalues.
    direction = natural_direction(product, gradient, DAMPING, 3 * flat.size)
    found = np.asarray(ravel_pytree(direction)[0])
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())

    new, metrics = STEP(
        policy, params, obs, actions, weights, advantages, 0.02, DAMPING, 3 * flat.size
    )
    step = expected * np.sqrt(2 * 0.02 / (g @ expected))
    moved = np.asarray(ravel_pytree(new)[0] - flat)
    if spec.discrete:
        np.testing.assert_allclose(moved, step, atol=3e-3 * np.abs(step).max())
    np.testing.assert_allclose(metrics["gain"], g @ step, rtol=3e-3)


@SPECS
def test_a_step_has_the_divergence_that_was_asked_for(spec):
    policy, params, obs, actions, weights, advantages = problem(spec, seed=3)
    if not spec.discrete:  # away from the limits of the deviation
        params = {**params, "log_std": jnp.zeros(2)}
    delta, damping = 1e-5, 1e-2
    new, _ = STEP(policy, params, obs, actions, weights, advantages, delta, damping, 60)

    @jax.jit
    @jax.vmap
    def divergence(obs):
        """KL(old || new), from its definition."""
        old, now = (policy.distribution(p, obs) for p in (params, new))
        if spec.discrete:
            drawn, shares = jnp.arange(3), jax.nn.softmax(old)
        else:
            drawn, shares = quadrature(old, HALF)
        gap = jax.vmap(lambda a: policy.log_prob(old, a) - policy.log_prob(now, a))(drawn)
        return jnp.dot(gap, shares)

    mean = np.average(divergence(obs), weights=np.asarray(weights))
    # The damping takes its part of delta: half of what it weighs the squared step with.
    moved = ravel_pytree(new)[0] - ravel_pytree(params)[0]
    np.testing.assert_allclose(mean + damping / 2 * (moved @ moved), delta, rtol=0.05)


def test_few_conjugate_gradient_steps_are_the_best_in_their_krylov_space():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(6, 6))
    matrix = jnp.asarray(root @ root.T, jnp.float32)
    g = jnp.asarray(rng.normal(size=6), jnp.float32)
    damped = np.asarray(matrix, np.float64) + 0.5 * np.eye(6)
    for steps in (1, 2, 3):
        found = natural_direction(lambda v: matrix @ v, g, 0.5, steps)
        space = np.stack([np.linalg.matrix_power(damped, k) @ g for k in range(steps)], axis=1)
        within = space @ np.linalg.solve(space.T @ damped @ space, space.T @ np.asarray(g))
        np.testing.assert_allclose(found, within, rtol=2e-3, atol=1e-4)


def test_the_direction_scales_with_the_gradient_and_is_zero_without():
    matrix = jnp.diag(jnp.asarray([1.0, 4.0]))
    tiny = natural_direction(lambda v: matrix @ v, jnp.asarray([1e-22, 1e-22]), 0.0, 5)
    np.testing.assert_allclose(tiny, [1e-22, 2.5e-23], rtol=1e-4)
    policy, params, obs, actions, weights, _ = problem(DISCRETE)
    new, metrics = STEP(policy, params, obs, actions, weights, jnp.zeros(ROWS), 0.01)
    jax.tree.map(np.testing.assert_array_equal, new, params)
    assert float(metrics["gain"]) == 0.0


def test_samples_that_do_not_count_change_nothing():
    policy, params, obs, actions, weights, advantages = problem(DISCRETE)
    new, _ = STEP(policy, params, obs, actions, weights, advantages, 0.01)
    spoiled = jnp.where(weights > 0, advantages, 100.0)
    elsewhere = jnp.where(weights[:, None] > 0, obs, 3.0)
    again, _ = STEP(policy, params, elsewhere, actions, weights, spoiled, 0.01)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), again, new)
    # Every second sample is enough for the Fisher products where the others repeat it.
    twice = [jnp.repeat(leaf, 2, axis=0) for leaf in (obs, actions, weights, advantages)]
    half, _ = STEP(policy, params, *twice, 0.01, fisher_every=2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), half, new)
