"""Truncated normals against scipy, coloured noise against the spectrum that it is asked for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from envs import base
from persim_jax.planning import gaussian
from tests.planning.continuous import spec_of

LOW, HIGH = (-1.0, -2.0), (1.0, 0.5)
BOX_SPEC = spec_of(LOW, HIGH)


@functools.partial(jax.jit, static_argnums=3)
def draw(key, mean, std, num_candidates):
    return gaussian.truncated_normal(key, gaussian.box_of(BOX_SPEC), mean, std, num_candidates)


def test_a_truncated_normal_has_scipys_distribution(key):
    # Means in the middle, near a bound and at one, each with narrow and wide spreads.
    mean = np.float32([[0.0, -0.75], [0.9, 0.5], [-1.0, -1.9], [0.3, 0.0]])
    std = np.float32([[0.5, 0.4], [0.3, 0.05], [0.6, 3.0], [20.0, 0.01]])
    n = 20_000
    plans = np.asarray(draw(key, mean, std, n), np.float64)
    assert plans.shape == (n, 4, 2)
    for t in range(4):
        for a in range(2):
            m, s = np.float64(mean[t, a]), np.float64(std[t, a])
            truth = stats.truncnorm((LOW[a] - m) / s, (HIGH[a] - m) / s, loc=m, scale=s)
            values = plans[:, t, a]
            assert LOW[a] <= values.min()
            assert values.max() <= HIGH[a]
            assert abs(values.mean() - truth.mean()) < 4 * truth.std() / np.sqrt(n)
            assert abs(values.std() / truth.std() - 1) < 0.03
            # The 1 in 1000 point of the Kolmogorov-Smirnov statistic.
            assert stats.kstest(values, truth.cdf).statistic < 1.95 / np.sqrt(n)


def test_actions_steps_and_candidates_are_drawn_independently(key):
    plans = np.asarray(draw(key, jnp.zeros((3, 2)), jnp.full((3, 2), 0.4), 5000))
    flat = plans.reshape(5000, 6)
    correlation = np.corrcoef(flat, rowvar=False) - np.eye(6)
    assert np.abs(correlation).max() < 4 / np.sqrt(5000)
    assert np.abs(np.corrcoef(flat[1:, 0], flat[:-1, 0])[0, 1]) < 4 / np.sqrt(5000)


def test_no_spread_is_no_noise_even_at_a_bound(key):
    mean = jnp.asarray([[0.25, -2.0], [1.0, 0.5]])
    plans = draw(key, mean, jnp.zeros((2, 2)), 50)
    np.testing.assert_array_equal(plans, np.broadcast_to(mean, (50, 2, 2)))


@pytest.mark.parametrize("uniform", [0.0, 1 - 2.0**-24])
def test_the_most_extreme_random_number_is_no_infinite_action(key, monkeypatch, uniform):
    # A mean at one bound with the other forty spreads away: erf is -1 or 1 there.
    constant = lambda key, shape, dtype: jnp.full(shape, uniform, dtype)  # noqa: E731
    monkeypatch.setattr(jax.random, "uniform", constant)
    mean, std = jnp.asarray([[1.0, -2.0]]), jnp.asarray([[0.05, 0.0625]])
    box = gaussian.box_of(BOX_SPEC)
    plan = np.asarray(gaussian.truncated_normal(key, box, mean, std, 1))[0, 0]
    assert abs(plan[0] - 1) < 6 * 0.05
    assert abs(plan[1] + 2) < 6 * 0.0625


def noise_of(key, horizon, beta, num=4000, action_size=2):
    shape = (num, horizon, action_size)
    noise = jax.jit(lambda key: gaussian.coloured_noise(key, *shape, beta))(key)
    assert noise.shape == shape
    assert noise.dtype == jnp.float32
    return np.asarray(noise, np.float64)


@pytest.mark.parametrize("horizon", [16, 15])
@pytest.mark.parametrize("beta", [0.0, 0.25, 2.0])
def test_coloured_noise_has_its_spectrum_and_variance_one(key, horizon, beta):
    noise = noise_of(key, horizon, beta)
    spread = 5 * np.sqrt(2 / 4000)
    np.testing.assert_allclose(noise.var(axis=0), 1.0, atol=spread)
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=5 / np.sqrt(4000))
    power = np.square(np.abs(np.fft.fft(noise, axis=1))).mean(axis=(0, 2))
    frequency = np.abs(np.fft.fftfreq(horizon))
    frequency[0] = 1 / horizon
    # Parseval: the mean of the power over frequencies is H times the variance.
    expected = frequency**-beta
    expected *= horizon**2 / expected.sum()
    np.testing.assert_allclose(power, expected, rtol=spread)
    values = noise[:, 0, 0]
    assert stats.kstest(values, stats.norm.cdf).statistic < 1.95 / np.sqrt(4000)


def test_coordinates_have_noise_of_their_own_and_beta_makes_it_slow(key):
    slow, white = noise_of(key, 30, 2.0), noise_of(key, 30, 0.0)
    assert abs((slow[..., 0] * slow[..., 1]).mean()) < 5 / np.sqrt(4000)
    neighbours = [(n[:, 1:] * n[:, :-1]).mean() for n in (slow, white)]
    assert neighbours[0] > 0.8
    assert abs(neighbours[1]) < 0.02


def test_a_plan_of_one_step_has_noise_too(key):
    np.testing.assert_allclose(noise_of(key, 1, 2.0).std(), 1.0, atol=0.05)


def test_double_precision_stays_double(key, x64):
    assert gaussian.coloured_noise(key, 3, 4, 2, 0.5).dtype == jnp.float64
    mean = jnp.zeros((2, 2), jnp.float64)
    plans = gaussian.truncated_normal(key, gaussian.box_of(BOX_SPEC), mean, mean + 0.5, 3)
    assert plans.dtype == jnp.float64


def test_the_box_and_what_is_outside_of_it():
    box = gaussian.box_of(BOX_SPEC)
    np.testing.assert_allclose(box.middle, [0.0, -0.75])
    np.testing.assert_allclose(box.half, [1.0, 1.25])
    actions = jnp.asarray([[[2.0, 2.0], [-3.0, -3.0]], [[0.5, -1.0], [1.0, 0.5]]])
    expected = [[[1.0, 0.5], [-1.0, -2.0]], [[0.5, -1.0], [1.0, 0.5]]]
    np.testing.assert_array_equal(gaussian.clip(box, actions), expected)


def test_discrete_and_unbounded_actions_are_refused_by_name():
    discrete = base.EnvSpec("cart", ("x",), (), 2, (), (), 10, 1.0)
    with pytest.raises(ValueError, match=r"'icem' draws continuous.*cart has discrete.*shooting"):
        gaussian.require_box("icem", discrete)
    for low, high in [((-np.inf,), (1.0,)), ((0.0,), (0.0,)), ((np.nan,), (1.0,))]:
        with pytest.raises(ValueError, match=r"plane has from .* give finite bounds"):
            gaussian.require_box("cem", spec_of(low, high))
