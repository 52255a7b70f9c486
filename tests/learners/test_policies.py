"""Stochastic policies against the formulas of their distributions."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from persim_jax.learners.policies import Normal, PolicyConfig, make_policy
from persim_jax.tasks import DataSpec

CONFIG = PolicyConfig(hidden=(3,), init_log_std=-0.5)
DISCRETE = DataSpec("toy", ("x", "y"), 3, (), (), 10)
# Two actions of different ranges, so that a mistaken half shows.
CONTINUOUS = DataSpec("toy", ("x", "y"), 0, (-1.0, 0.0), (3.0, 1.0), 10)
LOGITS = jnp.asarray([0.3, -1.2, 0.8])
NORMAL = Normal(jnp.asarray([0.5, 0.2]), jnp.asarray([-0.3, 0.1]))


def scores(policy, distribution, actions):
    """Gradients of the log-probabilities by the distribution's own parameters, `[K, P]`."""
    one = lambda action: jax.flatten_util.ravel_pytree(  # noqa: E731
        jax.grad(policy.log_prob)(distribution, action)
    )[0]
    return np.asarray(jax.vmap(one)(actions))


def fisher_matrix(policy, distribution):
    """The matrix behind `policy.fisher`, column by column."""
    flat, unravel = jax.flatten_util.ravel_pytree(distribution)
    column = lambda one: jax.flatten_util.ravel_pytree(  # noqa: E731
        policy.fisher(distribution, unravel(one))
    )[0]
    return np.asarray(jax.vmap(column, out_axes=1)(jnp.eye(flat.size)))


def quadrature(normal, half, order=5):
    """Nodes and weights that give expectations of polynomials of degree 9 exactly."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    size = len(half)
    points = np.array(list(itertools.product(nodes, repeat=size)), np.float32)
    shares = np.array([np.prod(w) for w in itertools.product(weights, repeat=size)], np.float32)
    std = half * jnp.exp(normal.log_std)
    return normal.mean[None] + std[None] * points, jnp.asarray(shares / shares.sum())


def test_a_categorical_policys_numbers_are_those_of_the_softmax():
    policy = make_policy(DISCRETE, CONFIG)
    shares = np.exp(LOGITS) / np.exp(LOGITS).sum()
    found = [policy.log_prob(LOGITS, jnp.asarray(a)) for a in range(3)]
    np.testing.assert_allclose(np.exp(found), shares, rtol=1e-5)
    assert policy.mode(LOGITS) == 2
    draws = jax.vmap(policy.sample, (0, None))(jax.random.split(jax.random.key(0), 4000), LOGITS)
    np.testing.assert_allclose(np.bincount(draws, minlength=3) / 4000, shares, atol=0.03)
    # E[score score^T], all three actions written out.
    each = scores(policy, LOGITS, jnp.arange(3))
    expected = (each * shares[:, None]).T @ each
    np.testing.assert_allclose(fisher_matrix(policy, LOGITS), expected, atol=1e-6)


def test_a_gaussian_policys_numbers_are_those_of_the_normal_distribution():
    policy, half = make_policy(CONTINUOUS, CONFIG), np.float32([2.0, 0.5])
    std = half * np.exp(NORMAL.log_std)
    action = jnp.asarray([1.7, -0.4])
    expected = stats.norm.logpdf(action, NORMAL.mean, std).sum()
    np.testing.assert_allclose(policy.log_prob(NORMAL, action), expected, rtol=1e-5)
    draws = jax.vmap(policy.sample, (0, None))(jax.random.split(jax.random.key(0), 4000), NORMAL)
    np.testing.assert_allclose(draws.mean(axis=0), NORMAL.mean, atol=0.1)
    np.testing.assert_allclose(draws.std(axis=0), std, rtol=0.05)
    actions, shares = quadrature(NORMAL, half)
    each = scores(policy, NORMAL, actions)
    expected = (each * shares[:, None]).T @ each
    np.testing.assert_allclose(fisher_matrix(policy, NORMAL), expected, atol=1e-4)


def test_the_likeliest_action_is_one_that_the_task_allows():
    policy = make_policy(CONTINUOUS, CONFIG)
    outside = Normal(jnp.asarray([5.0, -2.0]), jnp.zeros(2))
    np.testing.assert_array_equal(policy.mode(outside), [3.0, 0.0])


def test_an_action_without_a_range_is_finite_and_stays_where_it_is():
    policy = make_policy(DataSpec("toy", ("x", "y"), 0, (-1.0, 0.3), (3.0, 0.3), 10), CONFIG)
    found = policy.distribution(policy.init(jax.random.key(1)), jnp.zeros(2))
    slope = jax.grad(policy.log_prob)(found, jnp.asarray([1.0, 0.3]))
    assert all(np.isfinite(leaf).all() for leaf in (*found, *slope))
    assert policy.mode(found)[1] == np.float32(0.3)


@pytest.mark.parametrize("spec", [DISCRETE, CONTINUOUS], ids=["categorical", "gaussian"])
def test_a_new_policy_has_hardly_a_preference_and_all_of_it_learns(spec):
    policy = make_policy(spec, CONFIG)
    params = policy.init(jax.random.key(1))
    found = policy.distribution(params, jnp.asarray([2.0, -1.0]))
    if spec.discrete:
        np.testing.assert_allclose(jax.nn.softmax(found), np.full(3, 1 / 3), atol=0.01)
        assert policy.project(params) is params
    else:
        np.testing.assert_allclose(found.mean, [1.0, 0.5], atol=0.05)  # centers of the ranges
        np.testing.assert_array_equal(found.log_std, np.full(2, -0.5, np.float32))
    other = policy.distribution(policy.init(jax.random.key(2)), jnp.asarray([2.0, -1.0]))
    assert not np.allclose(*(jax.tree.leaves(one)[0] for one in (found, other)))


def test_the_standard_deviation_stays_within_its_limits():
    policy = make_policy(CONTINUOUS, CONFIG)
    params = policy.init(jax.random.key(1))
    far = {**params, "log_std": jnp.asarray([-7.0, 7.0])}
    np.testing.assert_array_equal(policy.project(far)["log_std"], [-1.0, 1.0])
    assert policy.project(far)["net"] is params["net"]
    with pytest.raises(ValueError, match=r"init_log_std is -2\.0: it must lie between"):
        PolicyConfig(init_log_std=-2.0)


def test_one_config_is_one_policy():
    again = functools.partial(make_policy, DISCRETE)
    assert again(CONFIG) is again(PolicyConfig(hidden=(3,), init_log_std=-0.5))
