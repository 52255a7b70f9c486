"""Brax's generalized pipeline: MuJoCo in the air, another contact model on the ground."""

import numpy as np
import pytest

from tests.envs.cheetahs import (
    assert_heeds_each_covariate,
    distances,
    gymnasium_unroll,
    random_cases,
    unroll,
)

pytestmark = pytest.mark.slow


def test_it_is_gymnasium_until_something_touches_and_heeds_both_covariates():
    cases = random_cases()
    on_the_ground, _ = unroll("generalized", cases)
    assert np.isfinite(on_the_ground).all()
    assert_heeds_each_covariate(on_the_ground)
    assert on_the_ground[:, :, 1].min() > -0.75  # nobody sinks in

    # A metre up and with a fifth of the action, neither the ground nor a joint's limit is met.
    falling = cases._replace(obs=cases.obs.copy(), actions=0.2 * cases.actions)
    falling.obs[:, 1] += 1.0
    in_the_air, rewards = unroll("generalized", falling)
    expected_obs, expected_rewards = gymnasium_unroll(falling)
    assert distances(in_the_air, expected_obs)[:, :5].max() < 1e-4
    np.testing.assert_allclose(rewards[:, :5], expected_rewards[:, :5], atol=1e-4)
