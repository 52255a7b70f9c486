"""MountainCar against gymnasium's, over the whole range of the covariate."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.classic_control.mountain_car import MountainCarEnv
from hypothesis import given
from hypothesis import strategies as st

import envs
from envs import covariates

ENV = envs.make("mountain_car")
TABLE = covariates.get("mountain_car")


def gymnasium_step(gravity, state, action):
    """Returns gymnasium's next state in float64, its reward and whether it terminates."""
    reference = MountainCarEnv()
    reference.gravity = float(gravity)
    reference.state = tuple(float(value) for value in state)
    _, reward, terminated, _, _ = reference.step(int(action))
    return np.asarray(reference.state, np.float64), reward, terminated


def random_cases(num_random=400):
    """Returns gravities, states and actions: random ones, and every corner of the state space."""
    rng = np.random.default_rng(0)
    gravity = rng.uniform(TABLE.low[0], TABLE.high[0], num_random)
    state = rng.uniform((-1.2, -0.07), (0.6, 0.07), (num_random, 2))
    action = rng.integers(3, size=num_random)
    corners = list(
        itertools.product(
            (TABLE.low[0], 0.0025, TABLE.high[0]),
            (-1.2, -1.19, 0.45, 0.499999, 0.5, 0.6),
            (-0.07, -1e-4, 0.0, 1e-4, 0.07),
            (0, 1, 2),
        )
    )
    gravity = np.concatenate([gravity, [c[0] for c in corners]])
    state = np.concatenate([state, [c[1:3] for c in corners]])
    action = np.concatenate([action, [c[3] for c in corners]])
    return gravity[:, None], state, action.astype(np.int32)


@jax.jit
@jax.vmap
def transition(covariate, obs, action):
    params = ENV.params(covariate)
    state = ENV.state_from_obs(obs, params)
    next_obs = ENV.observe(ENV.step(jax.random.key(0), state, action, params), params)
    return next_obs, ENV.reward(obs, action, next_obs), ENV.terminated(next_obs)


@pytest.mark.usefixtures("x64")
def test_steps_rewards_and_ends_equal_gymnasium_in_float64():
    gravity, obs, action = random_cases()
    next_obs, reward, terminated = transition(gravity, obs, action)
    assert next_obs.dtype == reward.dtype == jnp.float64
    expected = [gymnasium_step(g[0], s, a) for g, s, a in zip(gravity, obs, action, strict=True)]
    np.testing.assert_allclose(next_obs, [e[0] for e in expected], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(terminated, [e[2] for e in expected])
    assert 10 < terminated.sum() < len(expected) // 2
    # gymnasium pays -1 for the step that reaches the goal as well; the paper's environment pays 0.
    np.testing.assert_array_equal(reward, [e[1] + e[2] for e in expected])


def test_steps_equal_gymnasium_within_rounding_in_float32():
    gravity, obs, action = random_cases()
    gravity, obs = gravity.astype(np.float32), obs.astype(np.float32)
    next_obs, reward, _ = transition(gravity, obs, action)
    assert next_obs.dtype == reward.dtype == jnp.float32
    expected = [gymnasium_step(g[0], s, a)[0] for g, s, a in zip(gravity, obs, action, strict=True)]
    np.testing.assert_allclose(next_obs, expected, rtol=0, atol=3e-7)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("gravity", [0.0001, 0.0012, 0.0035])
def test_an_episode_stays_with_gymnasium(gravity):
    actions = np.random.default_rng(1).integers(3, size=150).astype(np.int32)
    obs = np.asarray([-0.5, 0.0])
    expected = obs
    for action in actions:
        (obs,), _, _ = transition(np.asarray([[gravity]]), np.asarray(obs)[None], action[None])
        expected, _, _ = gymnasium_step(gravity, expected, action)
        np.testing.assert_allclose(obs, expected, rtol=0, atol=1e-10)


def test_a_step_by_hand():
    # velocity 0.01 + 0.001 - 0.002 * cos(0) = 0.009, position 0 + 0.009.
    (next_obs,), _, _ = transition(
        np.float32([[0.002]]), np.float32([[0.0, 0.01]]), np.asarray([2], np.int32)
    )
    np.testing.assert_allclose(next_obs, [0.009, 0.009], rtol=1e-6)


def test_the_left_wall_stops_the_car_and_the_right_one_does_not():
    obs = np.float32([[-1.19, -0.07], [0.59, 0.07]])
    next_obs, _, _ = transition(np.float32([[0.001]] * 2), obs, np.asarray([0, 2], np.int32))
    np.testing.assert_array_equal(next_obs[0], np.float32([-1.2, 0.0]))
    assert next_obs[1, 0] == np.float32(0.6)
    assert next_obs[1, 1] > 0.06


@pytest.mark.parametrize(
    ("obs", "ended"),
    [((0.5, 0.0), True), ((0.49, 0.07), False), ((0.55, -1e-6), False), ((0.6, 0.07), True)],
)
def test_the_goal_needs_a_position_and_a_direction(obs, ended):
    obs = jnp.asarray(obs)
    assert bool(ENV.terminated(obs)) is ended
    assert float(ENV.reward(jnp.zeros(2), jnp.asarray(1), obs)) == (0.0 if ended else -1.0)


@pytest.mark.usefixtures("x64")
def test_reset_is_at_rest_and_uniform():
    params = ENV.params(jnp.asarray([0.001]))
    keys = jax.random.split(jax.random.key(7), 2000)
    state = jax.jit(jax.vmap(ENV.reset, in_axes=(0, None)))(keys, params)
    position = np.sort(np.asarray(state.position))
    assert position[0] >= -0.6
    assert position[-1] < -0.4
    np.testing.assert_array_equal(state.velocity, 0.0)
    # Kolmogorov and Smirnov's distance from U(-0.6, -0.4); 1.63 / sqrt(n) is its 1 % point.
    expected = (position + 0.6) / 0.2
    distance = np.abs(expected - np.linspace(0.0, 1.0, 2000)).max()
    assert distance < 1.63 / np.sqrt(2000)


def test_planning_bonus_is_the_highest_position():
    obs = jnp.asarray([[-0.5, 0.07], [0.3, 0.0], [-0.2, 0.01]])
    assert ENV.planning_bonus(obs) == np.float32(0.3)


@given(
    gravity=st.floats(0.0001, 0.0035),
    position=st.floats(-1.2, 0.6),
    velocity=st.floats(-0.07, 0.07),
    action=st.integers(0, 2),
)
def test_the_car_never_leaves_the_road(gravity, position, velocity, action):
    obs = np.float32([[position, velocity]])
    (next_obs,), _, _ = transition(np.float32([[gravity]]), obs, np.asarray([action], np.int32))
    assert np.float32(-1.2) <= next_obs[0] <= np.float32(0.6)
    assert abs(next_obs[1]) <= np.float32(0.07)


def test_more_gravity_pulls_harder_toward_the_valley():
    gravity = np.linspace(TABLE.low[0], TABLE.high[0], 20, dtype=np.float32)[:, None]
    obs = np.tile(np.float32([[0.2, 0.0]]), (20, 1))
    next_obs, _, _ = transition(gravity, obs, np.ones(20, np.int32))
    assert np.all(np.diff(next_obs[:, 0]) < 0)
