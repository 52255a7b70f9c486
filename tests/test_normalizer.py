"""Scaling against numbers worked out by hand, numpy, and its own inverse."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from persim_jax import normalizer

# Columns: mean 3 and deviation sqrt(2/3) * 2; constant; mean 0 and deviation 0.01 * sqrt(2/3).
BY_HAND = np.float32([[1.0, 7.0, -0.01], [3.0, 7.0, 0.0], [5.0, 7.0, 0.01]])
SCALE = np.sqrt(2.0 / 3.0)


def test_mean_and_deviation_by_hand():
    fitted = normalizer.fit(jnp.asarray(BY_HAND))
    np.testing.assert_allclose(fitted.mean, [3.0, 7.0, 0.0], atol=1e-7)
    np.testing.assert_allclose(fitted.std, [2 * SCALE, 1.0, 0.01 * SCALE], rtol=1e-6)


def test_without_centring_the_scale_is_the_root_mean_square_and_zero_stays_zero():
    fitted = normalizer.fit(jnp.asarray(BY_HAND), center=False)
    np.testing.assert_array_equal(fitted.mean, 0.0)
    np.testing.assert_allclose(fitted.std, [np.sqrt(35 / 3), 7.0, 0.01 * SCALE], rtol=1e-6)
    np.testing.assert_array_equal(normalizer.apply(fitted, jnp.zeros(3)), 0.0)


def test_what_is_fitted_to_has_mean_zero_and_deviation_one():
    values = np.random.default_rng(0).normal([5.0, -200.0], [0.1, 30.0], (500, 2))
    scaled = np.asarray(normalizer.apply(normalizer.fit(jnp.asarray(values)), jnp.asarray(values)))
    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0), 1.0, rtol=1e-4)


# In float32 the mean of equal numbers is not that number: 1000.1 is off by up to 3e-4.
@pytest.mark.parametrize("value", [0.0, 0.1, 1000.1, -123456.7, 3.3e-5])
@pytest.mark.parametrize("rows", [1, 10, 1000])
def test_a_constant_coordinate_is_centred_and_not_scaled(value, rows):
    fitted = normalizer.fit(jnp.full((rows, 1), value, jnp.float32))
    assert float(fitted.std[0]) == 1.0
    np.testing.assert_allclose(fitted.mean, [value], rtol=1e-6)
    # One unit off in the test is one unit, not thousands.
    away = normalizer.apply(fitted, jnp.asarray([value + 1.0], jnp.float32))
    np.testing.assert_allclose(away, [1.0], atol=0.1)


@pytest.mark.parametrize("unit", [1e-28, 1e-20, 1e-12, 1e-9, 1e12, 1e20, 1e28])
@pytest.mark.parametrize("center", [True, False])
def test_the_unit_of_a_coordinate_does_not_matter(unit, center):
    # Squares of the smallest and of the largest are no float32.
    values = np.random.default_rng(0).normal(0.5, 2.0, (40, 2))
    fitted = normalizer.fit(jnp.asarray(values * [unit, 1.0], jnp.float32), center)
    away = values - values.mean(axis=0) * center
    expected = np.sqrt(np.square(away).mean(axis=0))
    np.testing.assert_allclose(np.float64(fitted.std) / [unit, 1.0], expected, rtol=1e-5)


def test_rounding_of_a_small_number_is_no_variation():
    values = np.full((20, 1), 0.01, np.float32)
    values[::2] = np.nextafter(values[::2], np.float32(1))
    assert 0 < np.ptp(values) < 1e-8
    assert float(normalizer.fit(jnp.asarray(values)).std[0]) == 1.0


def test_a_zero_coordinate_without_centring_is_not_scaled():
    assert float(normalizer.fit(jnp.zeros((4, 1)), center=False).std[0]) == 1.0


finite = st.floats(-1e3, 1e3, width=32)


@given(
    data=arrays.arrays(np.float32, (6, 3), elements=finite),
    values=arrays.arrays(np.float32, (2, 4, 3), elements=finite),
)
def test_invert_undoes_apply_whatever_the_leading_axes(data, values):
    fitted = normalizer.fit(jnp.asarray(data))
    there = normalizer.apply(fitted, jnp.asarray(values))
    assert there.shape == values.shape
    back = normalizer.invert(fitted, there)
    # A coordinate whose mean dwarfs its deviation loses what float32 has to lose.
    np.testing.assert_allclose(back, values, rtol=1e-4, atol=2e-3)
    one = normalizer.apply(fitted, jnp.asarray(values[1, 2]))
    np.testing.assert_allclose(there[1, 2], one, rtol=1e-6)


def test_identity_changes_nothing():
    values = jnp.asarray(BY_HAND)
    unit = normalizer.identity(3)
    np.testing.assert_array_equal(normalizer.apply(unit, values), values)
    np.testing.assert_array_equal(normalizer.invert(unit, values), values)


def test_only_a_table_of_rows_is_fitted_to():
    with pytest.raises(AssertionError):
        normalizer.fit(jnp.zeros(3))
