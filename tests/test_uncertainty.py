"""Predictive standard deviations: by hand, and against validation."""

import jax.numpy as jnp
import numpy as np

from persim_jax.models.base import ModelParams
from persim_jax.models.factor import FactorNormalizer
from persim_jax.models.inputs import join_inputs
from persim_jax.normalizer import Normalizer
from persim_jax.uncertainty import predictive_std
from persim_jax.validation.open_loop import forecast_simulators
from persim_jax.validation.queries import Queries
from tests.users import actions_of, inputs_of, untrained, window


def params_of(std):
    delta = Normalizer(mean=jnp.zeros(2), std=jnp.asarray(std))
    return ModelParams({}, FactorNormalizer(delta, delta, jnp.ones(2), None))


def test_spread_and_residuals_by_hand():
    # Members at 0, 1 and 5 have a variance of 14 / 3; at 2, 2 and 2 of none.
    members = np.float32([[[0, 2]] * 4, [[1, 2]] * 4, [[5, 2]] * 4])
    noise = np.float32([[0.1, 0.5], [0.1, 0.5], [0.3, 0.5]])
    found = predictive_std(params_of([10.0, 2.0]), noise, members)
    # Residuals: mean of 1, 1 and 9; and of 1, 1 and 1.
    np.testing.assert_allclose(found, [[np.sqrt(14 / 3 + 11 / 3), 1.0]] * 4, rtol=1e-6)
    plain = predictive_std(params_of([10.0, 2.0]), None, members)
    np.testing.assert_allclose(plain, [[np.sqrt(14 / 3), 0.0]] * 4)
    np.testing.assert_array_equal(predictive_std(params_of([1.0, 1.0]), None, members[:1]), 0)


def test_it_is_what_validation_calibrates(key):
    simulators = untrained().replace(noise=np.full((3, 2), 0.5, np.float32))
    start, actions, inputs = (
        window(simulators, [[100, -3]] * 2), actions_of(True, 4), inputs_of(4)
    )  # fmt: skip
    joined = join_inputs(simulators.config, jnp.asarray(actions), jnp.asarray(inputs))
    nothing = np.zeros((1, 4, 2))
    queries = Queries(
        np.int32([1]),
        start[None],
        np.asarray(joined)[None],
        nothing,
        nothing,
        np.ones((1, 4), bool),
    )
    expected = forecast_simulators(simulators, queries, np.ones(2))
    answer = simulators.query("bob", actions, start, inputs)
    np.testing.assert_allclose(answer.std, expected.std[0], rtol=1e-3)
    np.testing.assert_allclose(answer.mean, expected.mean[0], rtol=1e-5)
