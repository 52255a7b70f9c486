"""CartPole against gymnasium's, over the whole range of both covariates."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from hypothesis import given
from hypothesis import strategies as st

import envs
from envs import covariates

ENV = envs.make("cart_pole")
TABLE = covariates.get("cart_pole")
TWELVE_DEGREES = np.pi / 15


def gymnasium_step(covariate, state, action):
    """Returns gymnasium's next state in float64, its reward and whether it terminates."""
    reference = CartPoleEnv()
    reference.force_mag, reference.length = (float(value) for value in covariate)
    reference.polemass_length = reference.masspole * reference.length
    reference.state = np.asarray(state, np.float64)
    _, reward, terminated, _, _ = reference.step(int(action))
    return reference.state, reward, terminated


def random_cases(num_random=400):
    """Returns covariates, states and actions: random ones, and states about to end."""
    rng = np.random.default_rng(0)
    bound = np.asarray([2.5, 4.0, 0.25, 4.0])
    covariate = rng.uniform(TABLE.low, TABLE.high, (num_random, 2))
    state = rng.uniform(-bound, bound, (num_random, 4))
    action = rng.integers(2, size=num_random)
    corners = list(
        itertools.product(
            itertools.product((2.0, 10.0, 18.0), (0.15, 0.5, 0.85)),
            (-2.399, 0.0, 2.399),
            (-0.209, 0.0, 0.209),
            (0, 1),
        )
    )
    covariate = np.concatenate([covariate, [c[0] for c in corners]])
    state = np.concatenate([state, [(c[1], c[1], c[2], c[2]) for c in corners]])
    action = np.concatenate([action, [c[3] for c in corners]])
    return covariate, state, action.astype(np.int32)


@jax.jit
@jax.vmap
def transition(covariate, obs, action):
    params = ENV.params(covariate)
    state = ENV.state_from_obs(obs, params)
    next_obs = ENV.observe(ENV.step(jax.random.key(0), state, action, params), params)
    return next_obs, ENV.reward(obs, action, next_obs), ENV.terminated(next_obs)


@pytest.mark.usefixtures("x64")
def test_steps_rewards_and_ends_equal_gymnasium_in_float64():
    covariate, obs, action = random_cases()
    next_obs, reward, terminated = transition(covariate, obs, action)
    assert next_obs.dtype == reward.dtype == jnp.float64
    expected = [gymnasium_step(*case) for case in zip(covariate, obs, action, strict=True)]
    np.testing.assert_allclose(next_obs, [e[0] for e in expected], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(reward, [e[1] for e in expected])
    np.testing.assert_array_equal(terminated, [e[2] for e in expected])
    assert 50 < terminated.sum() < len(expected) - 50


def test_steps_equal_gymnasium_within_rounding_in_float32():
    covariate, obs, action = random_cases()
    covariate, obs = covariate.astype(np.float32), obs.astype(np.float32)
    next_obs, reward, _ = transition(covariate, obs, action)
    assert next_obs.dtype == reward.dtype == jnp.float32
    expected = [gymnasium_step(*case)[0] for case in zip(covariate, obs, action, strict=True)]
    np.testing.assert_allclose(next_obs, expected, rtol=1e-6, atol=2e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("covariate", [(2.0, 0.5), (18.0, 0.15), (7.3, 0.85)])
def test_an_episode_stays_with_gymnasium(covariate):
    obs = expected = np.asarray([0.01, -0.02, 0.03, -0.04])
    for action in np.random.default_rng(1).integers(2, size=60).astype(np.int32):
        (obs,), _, _ = transition(np.asarray([covariate]), np.asarray(obs)[None], action[None])
        expected, _, _ = gymnasium_step(covariate, expected, action)
        np.testing.assert_allclose(obs, expected, rtol=1e-10, atol=1e-10)


def test_a_step_by_hand():
    # Upright and at rest, with force 11 and total mass 1.1: temp = 10, theta_acc = -10 / (0.5 *
    # (4/3 - 1/11)) = -16.0976, x_acc = 10 + 0.05 * 16.0976 / 1.1 = 10.7317; times 0.02 s.
    (next_obs,), _, _ = transition(
        np.float32([[11.0, 0.5]]), np.zeros((1, 4), np.float32), np.asarray([1], np.int32)
    )
    np.testing.assert_allclose(next_obs, [0.0, 0.214634, 0.0, -0.321951], rtol=1e-5)


def test_derived_constants_follow_the_fields():
    params = ENV.params(jnp.asarray([10.0, 0.3]))
    assert params.total_mass == np.float32(1.1)
    np.testing.assert_allclose(params.pole_mass_length, 0.03, rtol=1e-6)
    longer = params.replace(length=jnp.asarray(0.6), mass_cart=jnp.asarray(2.0))
    np.testing.assert_allclose(longer.pole_mass_length, 0.06, rtol=1e-6)
    np.testing.assert_allclose(longer.total_mass, 2.1, rtol=1e-6)


@given(
    force=st.floats(2, 18, width=32),
    length=st.floats(0.15, 0.85),
    obs=st.tuples(*[st.floats(-2, 2, width=32)] * 4),
)
def test_left_and_right_are_mirror_images(force, length, obs):
    covariate = np.float32([[force, length]] * 2)
    mirrored = np.stack([np.float32(obs), -np.float32(obs)])
    next_obs, _, _ = transition(covariate, mirrored, np.asarray([0, 1], np.int32))
    np.testing.assert_allclose(next_obs[0], -next_obs[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("coordinate", "inside", "outside"),
    [(0, 2.4, 2.4001), (2, 0.2094, TWELVE_DEGREES + 1e-4), (1, 50.0, None), (3, 50.0, None)],
)
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_end_is_beyond_the_limits_of_x_and_theta(coordinate, inside, outside, sign):
    assert not ENV.terminated(jnp.zeros(4).at[coordinate].set(sign * inside))
    if outside is not None:
        assert ENV.terminated(jnp.zeros(4).at[coordinate].set(sign * outside))


def test_reset_is_uniform_in_every_coordinate():
    params = ENV.params(jnp.asarray([10.0, 0.5]))
    keys = jax.random.split(jax.random.key(7), 2000)
    state = jax.jit(jax.vmap(ENV.reset, in_axes=(0, None)))(keys, params)
    obs = np.sort(np.asarray(jax.vmap(ENV.observe, in_axes=(0, None))(state, params)), axis=0)
    assert np.all(np.abs(obs) <= np.float32(0.05))
    # Kolmogorov and Smirnov's distance from U(-0.05, 0.05); 1.63 / sqrt(n) is its 1 % point.
    expected = (obs + 0.05) / 0.1
    distance = np.abs(expected - np.linspace(0.0, 1.0, 2000)[:, None]).max(axis=0)
    assert np.all(distance < 1.63 / np.sqrt(2000))


def test_planning_needs_no_bonus():
    assert ENV.planning_bonus(jnp.ones((50, 4))) == 0.0
