"""Advantages by hand, and in the two limits that theory knows."""

import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.learners.advantages import gae, whiten
from persim_jax.types import Trajectory

DISCOUNT = 0.5


def episode(rewards, length, terminated):
    """An episode of `length` steps, padded as `unroll` pads."""
    steps = np.arange(len(rewards))
    mask = steps < length
    return Trajectory(
        obs=jnp.zeros((len(rewards) + 1, 1)),
        actions=jnp.zeros(len(rewards), jnp.int32),
        rewards=jnp.asarray(np.where(mask, rewards, 0.0), jnp.float32),
        terminated=jnp.asarray((steps == length - 1) & terminated),
        mask=jnp.asarray(mask),
    )


VALUES = jnp.asarray([1.0, 2.0, 3.0, 4.0])


def test_three_steps_by_hand():
    # delta_2 = 3 + 4 / 2 - 3 = 2, cut off by the time limit, so that V(s_3) counts;
    # delta_1 = 2 + 3 / 2 - 2 = 1.5; delta_0 = 1 + 2 / 2 - 1 = 1; a factor of 0.5 * 0.8 between.
    found, targets = gae(episode([1.0, 2.0, 3.0], 3, False), VALUES, DISCOUNT, 0.8)
    expected = np.float32([1 + 0.4 * (1.5 + 0.4 * 2), 1.5 + 0.4 * 2, 2.0])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(targets, expected + VALUES[:3], rtol=1e-6)


def test_a_termination_is_worth_nothing_and_past_it_there_is_nothing():
    # Ends after two steps: delta_1 = 2 - 2 = 0, without V(s_2); the third row is padding.
    found, targets = gae(episode([1.0, 2.0, 9.0], 2, True), VALUES, DISCOUNT, 0.8)
    np.testing.assert_allclose(found, [1.0 + 0.4 * 0.0, 0.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(targets, [2.0, 2.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize("terminated", [False, True])
def test_lambda_one_is_the_return_and_lambda_zero_one_step(terminated):
    rewards, rng = [0.3, -1.0, 2.0, 0.7, 1.1], np.random.default_rng(0)
    values = jnp.asarray(rng.normal(size=6), jnp.float32)
    one = episode(rewards, 5, terminated)
    last = 0.0 if terminated else float(values[5])
    returns = [
        sum(DISCOUNT**k * r for k, r in enumerate(rewards[t:])) + DISCOUNT ** (5 - t) * last
        for t in range(5)
    ]
    np.testing.assert_allclose(gae(one, values, DISCOUNT, 1.0)[1], returns, rtol=1e-5)
    following = np.append(np.asarray(values[1:5]), last)
    step = np.float32(rewards) + DISCOUNT * following
    np.testing.assert_allclose(gae(one, values, DISCOUNT, 0.0)[1], step, rtol=1e-5)


def test_whitened_advantages_have_mean_zero_and_deviation_one_where_they_count():
    rng = np.random.default_rng(1)
    advantages = jnp.asarray(rng.normal(3.0, 5.0, (4, 7)), jnp.float32)
    mask = jnp.asarray(rng.random((4, 7)) < 0.6)
    found = np.asarray(whiten(advantages, mask))
    kept = found[np.asarray(mask)]
    np.testing.assert_allclose([kept.mean(), kept.std()], [0.0, 1.0], atol=1e-5)
    assert np.all(found[~np.asarray(mask)] == 0.0)
    # What does not count is not looked at.
    spoiled = jnp.where(mask, advantages, 1e6)
    np.testing.assert_allclose(whiten(spoiled, mask), found, atol=1e-5)


def test_equal_advantages_point_nowhere():
    mask = jnp.ones((2, 3), bool)
    np.testing.assert_array_equal(whiten(jnp.full((2, 3), 2.0), mask), np.zeros((2, 3)))
    np.testing.assert_array_equal(whiten(jnp.ones((2, 3)), ~mask), np.zeros((2, 3)))
