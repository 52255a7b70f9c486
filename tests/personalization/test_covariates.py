"""Covariates to factors: found again where there is a rule, honest where there is none."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.models.factor import FactorConfig, agent_factors
from persim_jax.personalization.covariates import _powers, covariate_prior, fit_covariates
from persim_jax.simulators import PersonalizedSimulators
from tests.toys import factor_params


def polynomial(covariates, rng, noise):
    """Factors `[M = 2, N, r = 2]` that are quadratic in two covariates."""
    a, b = np.float64(covariates).T
    first = np.stack([1 + a - 0.5 * b**2, a * b], axis=-1)
    factors = np.stack([first, first[:, ::-1] * [-3.0, 0.2]])
    return np.float32(factors + noise * rng.normal(size=factors.shape))


def test_a_polynomial_is_found_and_its_uncertainty_is_the_scatter():
    rng = np.random.default_rng(0)
    covariates = np.float32(rng.uniform([2, 10], [3, 30], (200, 2)))
    scaled = (covariates - [2.5, 20]) / [0.5, 10]
    regression = fit_covariates(covariates, jnp.asarray(polynomial(scaled, rng, 0.05)))
    fresh = np.float32(rng.uniform([2, 10], [3, 30], (400, 2)))
    truth = polynomial((fresh - [2.5, 20]) / [0.5, 10], rng, 0.05)
    prior = jax.vmap(lambda c: covariate_prior(regression, c))(jnp.asarray(fresh))
    errors = np.asarray(prior.mean) - truth.swapaxes(0, 1)  # [N, M, r]
    assert np.sqrt(np.mean(errors**2)) < 0.06
    whitened = np.linalg.solve(np.float64(prior.root), errors[..., None])[..., 0]
    np.testing.assert_allclose(np.mean(whitened**2), 1.0, atol=0.15)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_monomials_are_all_of_a_degree_however_many_covariates(degree):
    every = [p for p in itertools.product(range(degree + 1), repeat=3) if sum(p) <= degree]
    assert _powers(3, degree).tolist() == [list(p) for p in sorted(every, key=sum)]
    # As many as there are ways to choose; of 4^24 exponents nobody could be picked one by one.
    many = _powers(24, degree)
    assert len(np.unique(many, axis=0)) == len(many) == math.comb(24 + degree, degree)
    assert many.sum(axis=1).max() == degree


def test_far_from_the_training_agents_it_is_less_sure():
    rng = np.random.default_rng(1)
    covariates = np.float32(rng.uniform(0, 1, (60, 1)))
    factors = jnp.asarray(np.float32(rng.normal(size=(1, 60, 2)) + 3 * covariates[None]))
    regression = fit_covariates(covariates, factors)
    near, far = (
        covariate_prior(regression, jnp.asarray([c], jnp.float32)).root[0] for c in (0.5, 3.0)
    )
    assert np.linalg.det(far) > 2 * np.linalg.det(near)


def test_covariates_that_say_nothing_leave_the_population():
    rng = np.random.default_rng(2)
    covariates = np.float32(rng.normal(size=(100, 1)))
    factors = jnp.asarray(np.float32(5 + rng.normal(size=(1, 100, 2))))
    prior = covariate_prior(fit_covariates(covariates, factors), jnp.asarray([0.3], jnp.float32))
    np.testing.assert_allclose(prior.mean[0], np.asarray(factors)[0].mean(axis=0), atol=0.3)
    spread = np.asarray(prior.root[0] @ prior.root[0].T)
    np.testing.assert_allclose(np.diag(spread), np.ones(2), rtol=0.4)


def test_a_newcomer_without_data_is_where_its_covariates_say_and_data_then_refine_it():
    config = FactorConfig(12, 2, 3, True, rank=2, state_features=(6,), ensemble_size=2)
    params = factor_params(config)
    covariates = np.linspace(0, 1, 12, dtype=np.float32)[:, None]
    line = jnp.asarray(np.float32([1.0, -2.0])[None, None] * covariates[None])
    weights = dict(params.weights) | {
        "agent_encoder": {"embedding": jnp.broadcast_to(line, (2, 12, 2))}
    }
    params = params._replace(weights=weights)
    simulators = PersonalizedSimulators(
        params, np.arange(12), covariates, config, noise=jnp.full((2, 2), 0.1)
    )
    found = simulators.personalize(covariates=[0.25])
    bias = np.asarray(agent_factors(config, params))[:, 0]
    np.testing.assert_allclose(found.mean, bias + np.float32([0.25, -0.5]), atol=0.02)
    population = simulators.personalize()
    assert np.trace(found.covariance[0]) < 1e-2 * np.trace(population.covariance[0])
    np.testing.assert_allclose(found.newcomers.covariates, [[0.25]])
    assert np.abs(found.step(np.zeros(2), 1).mean - population.step(np.zeros(2), 1).mean).max() > 0


def test_regressions_without_sense_are_refused():
    factors = jnp.ones((1, 4, 2))
    with pytest.raises(ValueError, match="training agents have no covariates"):
        fit_covariates(np.zeros((4, 0), np.float32), factors)
    with pytest.raises(ValueError, match="covariate 0 of the training agent in row 2 is nan"):
        fit_covariates(np.float32([[1], [2], [np.nan], [3]]), factors)
    with pytest.raises(ValueError, match="2 training agents do not tell what 1 covariates do"):
        fit_covariates(np.float32([[1], [2]]), factors[:, :2])
    config = FactorConfig(4, 2, 3, True, rank=2, state_features=(6,), ensemble_size=2)
    nameless = PersonalizedSimulators(
        factor_params(config), np.arange(4), np.zeros((4, 0), np.float32), config
    )
    with pytest.raises(ValueError, match="have no covariates"):
        nameless.personalize(covariates=np.zeros(0))
    assert dataclasses.is_dataclass(config)
