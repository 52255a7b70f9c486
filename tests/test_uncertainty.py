"""Predictive standard deviations: by hand, and of a process whose truth is known."""

import jax.numpy as jnp
import numpy as np

from persim_jax.models.base import ModelParams
from persim_jax.models.factor import FactorNormalizer
from persim_jax.normalizer import Normalizer
from persim_jax.uncertainty import predictive_std


def params_of(std, carry):
    delta = Normalizer(mean=jnp.zeros(2), std=jnp.asarray(std))
    return ModelParams({}, FactorNormalizer(delta, delta, jnp.asarray(carry), None))


def test_spread_and_residuals_by_hand():
    # Members at 0, 1 and 5 have a variance of 7; at 2, 2 and 2 of none.
    members = np.float32([[[0, 2]] * 3, [[1, 2]] * 3, [[5, 2]] * 3])
    noise = np.float32([[0.1, 0.5], [0.1, 0.5], [0.3, 0.5]])
    found = predictive_std(params_of([10.0, 2.0], [1.0, 0.0]), noise, members)
    # Residuals: mean of 1, 1 and 9 is 11 / 3, once more in each step; 1, the same in each step.
    np.testing.assert_allclose(found[:, 0], np.sqrt(7 + 11 / 3 * np.arange(1, 4)))
    np.testing.assert_allclose(found[:, 1], [1.0, 1.0, 1.0])
    plain = predictive_std(params_of([10.0, 2.0], [1.0, 0.0]), None, members)
    np.testing.assert_allclose(plain, [[7**0.5, 0.0]] * 3)
    np.testing.assert_array_equal(
        predictive_std(params_of([1.0, 1.0], [1.0, 1.0]), None, members[:1]), 0
    )


def test_a_random_walk_is_covered_and_so_is_a_coordinate_that_forgets():
    rng = np.random.default_rng(0)
    noise = np.float64([0.2, 0.5])
    shocks = rng.normal(size=(20_000, 6, 2)) * noise * [3.0, 1.0]
    truth = np.stack([shocks[..., 0].cumsum(axis=1), shocks[..., 1]], axis=-1)
    std = predictive_std(params_of([3.0, 1.0], [1.0, 0.0]), noise[None], np.zeros((1, 6, 2)))
    covered = (np.abs(truth) < 1.96 * std).mean(axis=0)
    np.testing.assert_allclose(covered, 0.95, atol=0.01)
