"""Gaussian networks against densities, clamps and sums worked out in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from persim_jax.models import gaussian
from persim_jax.models.gaussian import Gaussian, GaussianMLP


def numpy_clamp(x, low, high):
    softplus = lambda y: np.log1p(np.exp(y))  # noqa: E731
    y = high - softplus(high - x)
    return low + softplus(y - low)


def by_hand():
    """One ReLU, two coordinates: mean (3 h + 1, -h), raw log-variance (h, 2 - h)."""
    layer = lambda kernel, bias: {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}  # noqa: E731
    weights = {
        "trunk": {"dense_0": layer([[2.0]], [-1.0])},
        "mean_head": {"dense_0": layer([[3.0, -1.0]], [1.0, 0.0])},
        "log_var_head": {"dense_0": layer([[1.0, -1.0]], [0.0, 2.0])},
        "max_log_var": jnp.float32([0.5, 3.0]),
        "min_log_var": jnp.float32([-10.0, -1.0]),
    }
    return GaussianMLP((1,), 2, "relu"), weights


def test_mean_and_log_variance_by_hand():
    network, weights = by_hand()
    # x = 2: h = relu(4 - 1) = 3. x = 0: h = 0.
    found = network.apply({"params": weights}, jnp.float32([[2.0], [0.0]]))
    np.testing.assert_allclose(found.mean, [[10.0, -3.0], [1.0, 0.0]])
    raw = np.array([[3.0, -1.0], [0.0, 2.0]])
    expected = numpy_clamp(raw, np.array([-10.0, -1.0]), np.array([0.5, 3.0]))
    np.testing.assert_allclose(found.log_var, expected, rtol=1e-5)


def test_a_fresh_network_starts_at_the_bounds_of_pe_ts_and_small_kernels(key):
    network = GaussianMLP((300,), 200)
    weights = network.init(key, jnp.zeros(100))["params"]
    np.testing.assert_array_equal(weights["max_log_var"], np.full(200, 0.5))
    np.testing.assert_array_equal(weights["min_log_var"], np.full(200, -10.0))
    for layer, fan_in in ((weights["trunk"], 100), (weights["mean_head"], 300)):
        kernel, std = np.asarray(layer["dense_0"]["kernel"]), 0.5 / np.sqrt(fan_in)
        assert np.abs(kernel).max() <= 2 * std
        np.testing.assert_allclose(kernel.std(), stats.truncnorm.std(-2, 2, scale=std), rtol=0.02)
        assert not np.any(layer["dense_0"]["bias"])


def test_the_clamp_keeps_within_its_bounds_and_has_a_slope_everywhere():
    x = np.linspace(-30.0, 20.0, 11).astype(np.float32)
    low, high = jnp.float32([-10.0]), jnp.float32([0.5])
    found = gaussian.soft_clamp(x[:, None], low, high)[:, 0]
    np.testing.assert_allclose(found, numpy_clamp(np.float64(x), -10.0, 0.5), rtol=1e-5)
    # The second softplus lifts the upper bound by softplus(low - high), 3e-5.
    assert found.min() >= -10.0
    assert found.max() <= 0.5 + 4e-5
    assert np.all(np.diff(found) >= 0)
    assert np.all(np.diff(found)[1:] > 0)
    np.testing.assert_allclose(gaussian.soft_clamp(jnp.float32([-5.0]), low, high), -5.0, atol=0.02)
    slope = jax.grad(lambda v: gaussian.soft_clamp(v[None], low, high)[0])
    assert slope(jnp.float32(4.0)) > 0.01


@pytest.mark.parametrize("raw", [-1e4, -90.0, 90.0, 1e4])
def test_the_clamp_and_its_slopes_stay_finite_far_outside(raw):
    low, high = jnp.float32([-10.0]), jnp.float32([0.5])
    clamp = lambda raw, low, high: gaussian.soft_clamp(raw[None], low, high)[0]  # noqa: E731
    value, slopes = jax.value_and_grad(clamp, (0, 1, 2))(jnp.float32(raw), low, high)
    assert value == pytest.approx(-10.0 if raw < 0 else 0.5, abs=1e-3)
    assert slopes[0] == pytest.approx(0.0, abs=1e-6)
    assert slopes[1 if raw < 0 else 2] == pytest.approx(1.0, abs=1e-3)


def test_the_surprise_is_the_density_up_to_constants():
    rng = np.random.default_rng(0)
    mean, log_var, target = rng.normal(size=(3, 4, 2))
    found = gaussian.surprise(Gaussian(jnp.asarray(mean), jnp.asarray(log_var)), target)
    density = stats.norm.logpdf(target, mean, np.exp(0.5 * log_var))
    np.testing.assert_allclose(found, -2 * density - np.log(2 * np.pi), rtol=1e-4)
    plain = gaussian.surprise(Gaussian(jnp.asarray(mean), None), target)
    np.testing.assert_allclose(plain, (mean - target) ** 2, rtol=1e-5)


def test_a_power_of_the_variance_gives_weight_back_and_has_no_slope():
    mean, log_var, target = jnp.float32([1.0]), jnp.float32([np.log(4.0)]), jnp.float32([4.0])

    def value(mean, log_var, power):
        return gaussian.surprise(Gaussian(mean, log_var), target, power)[0]

    # 9 / 4 + log 4, times 4^0.5.
    np.testing.assert_allclose(value(mean, log_var, 0.5), 2 * (2.25 + np.log(4.0)), rtol=1e-6)
    # Slopes -2 * 3 / 4 and 1 - 9 / 4 of the likelihood, times 4^power; at 1 as of the square.
    for power in (0.0, 0.5, 1.0):
        slopes = jax.grad(value, argnums=(0, 1))(mean, log_var, power)
        np.testing.assert_allclose(slopes[0], [-1.5 * 4**power], rtol=1e-5)
        np.testing.assert_allclose(slopes[1], [-1.25 * 4**power], rtol=1e-5)


def test_what_weights_alone_cost_by_hand():
    _, weights = by_hand()
    # Kernels 2; (3, -1); (1, -1): 0.1 / 2 * 4 + 0.2 / 2 * (10 + 2), whatever the biases are.
    np.testing.assert_allclose(gaussian.decay(weights, (0.1, 0.2)), 0.2 + 1.2, rtol=1e-6)
    np.testing.assert_allclose(gaussian.bound_penalty(weights), 0.01 * (3.5 + 11.0), rtol=1e-6)
    np.testing.assert_allclose(gaussian.bound_penalty(weights, 2.0), 2 * (3.5 + 11.0), rtol=1e-6)
    sure = {name: weights[name] for name in ("trunk", "mean_head")}
    np.testing.assert_allclose(gaussian.decay(sure, (0.1, 0.2)), 0.2 + 1.0, rtol=1e-6)
    assert gaussian.bound_penalty(sure) == 0


@pytest.mark.parametrize("noisy", [True, False])
def test_draws_have_the_mean_and_the_spread_that_was_predicted(key, noisy):
    mean, log_var = jnp.float32([1.0, -2.0]), jnp.float32([0.0, -4.0])
    prediction = Gaussian(
        jnp.broadcast_to(mean, (20_000, 2)),
        jnp.broadcast_to(log_var, (20_000, 2)) if noisy else None,
    )
    drawn = np.asarray(gaussian.draw(key, prediction))
    if noisy:
        std = np.exp(0.5 * np.asarray(log_var))
        np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=5 * std.max() / np.sqrt(20_000))
        np.testing.assert_allclose(drawn.std(axis=0), std, rtol=0.03)
    else:
        np.testing.assert_array_equal(drawn, prediction.mean)
