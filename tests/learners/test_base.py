"""What learners share, by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from persim_jax.learners.base import Schedule, polyak, random_action


def test_polyak_by_hand():
    params = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(4.0)}
    target = {"w": jnp.array([0.0, 2.0]), "b": jnp.array(0.0)}
    moved = polyak(params, target, 0.25)
    np.testing.assert_allclose(moved["w"], [0.25, 1.0])
    np.testing.assert_allclose(moved["b"], 1.0)


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 3.0), (1.0, 5.0)])
def test_polyak_at_its_ends(rate, expected):
    np.testing.assert_allclose(polyak(jnp.array(5.0), jnp.array(3.0), rate), expected)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1.0), (50, 0.55), (100, 0.1), (101, 0.1), (10**9, 0.1)]
)
def test_schedule_is_a_ramp(step, expected):
    np.testing.assert_allclose(Schedule(1.0, 0.1, 100)(jnp.asarray(step)), expected, rtol=1e-6)


def test_schedule_without_a_ramp_is_constant():
    np.testing.assert_allclose(Schedule(1.0, 0.3, 0)(jnp.asarray(0)), 0.3)


def test_random_discrete_actions_are_uniform(key):
    spec = envs.make("mountain_car").spec
    actions = jax.vmap(random_action, (0, None))(jax.random.split(key, 9000), spec)
    assert actions.dtype == jnp.int32
    bound = 4.0 * np.sqrt(2.0 / 9.0 / 9000.0)
    np.testing.assert_allclose(np.bincount(actions, minlength=3) / 9000.0, 1 / 3, atol=bound)


def test_random_continuous_actions_fill_their_bounds(key):
    spec = envs.make("mountain_car").spec
    spec = dataclasses.replace(spec, num_actions=0, action_low=(-1.0, 2.0), action_high=(1.0, 6.0))
    actions = np.asarray(jax.vmap(random_action, (0, None))(jax.random.split(key, 4000), spec))
    assert actions.shape == (4000, 2)
    np.testing.assert_allclose(actions.min(axis=0), [-1.0, 2.0], atol=0.02)
    np.testing.assert_allclose(actions.max(axis=0), [1.0, 6.0], atol=0.02)
    np.testing.assert_allclose(actions.mean(axis=0), [0.0, 4.0], atol=0.1)
