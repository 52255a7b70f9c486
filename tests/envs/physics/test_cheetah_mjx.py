"""MJX: MuJoCo to rounding in float64, near it at first in float32."""

import numpy as np
import pytest

from tests.envs.cheetahs import (
    assert_heeds_each_covariate,
    distances,
    gymnasium_unroll,
    random_cases,
    unroll,
)

# A precision takes a quarter of a minute to compile: one test for each, and one program in it.
pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("x64")
def test_twenty_steps_are_those_of_gymnasium_in_float64():
    cases = random_cases().cast(np.float64)
    obs, rewards = unroll("mjx", cases)
    expected_obs, expected_rewards = gymnasium_unroll(cases)
    assert distances(obs, expected_obs).max() < 1e-6
    np.testing.assert_allclose(rewards, expected_rewards, atol=1e-6)
    assert_heeds_each_covariate(obs)


def test_five_steps_are_near_those_of_gymnasium_in_float32():
    cases = random_cases()
    obs, _ = unroll("mjx", cases)
    expected, _ = gymnasium_unroll(cases)
    near = distances(obs, expected)[:, :5].max(axis=1) < 1e-3
    assert near.mean() >= 0.9
    assert np.isfinite(obs).all()
    assert_heeds_each_covariate(obs)
    # Another batch of the same size, so nothing is compiled: what cannot be stepped is NaN.
    bad = cases._replace(covariates=cases.covariates.copy(), actions=cases.actions.copy())
    bad.covariates[4, 0], bad.actions[5, 3, 0] = -1.0, np.nan
    found, _ = unroll("mjx", bad)
    assert np.isnan(found[4]).all()
    assert np.isnan(found[5, 3:]).all()
    np.testing.assert_array_equal(np.delete(found, [4, 5], 0), np.delete(obs, [4, 5], 0))
