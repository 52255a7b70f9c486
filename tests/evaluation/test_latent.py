import math

import numpy as np
import pytest
from scipy import stats

from persim_jax.evaluation.latent import (
    first_component_correlation,
    linear_r2,
    principal_components,
)

RNG = np.random.default_rng(0)


def test_factors_linear_in_the_covariate_correlate_fully() -> None:
    covariate = RNG.uniform(size=200)
    factors = covariate[:, None] * np.array([[3.0, -2.0, 0.5]]) + 7.0
    assert first_component_correlation(factors, covariate) == pytest.approx(1.0)
    assert first_component_correlation(factors, -covariate) == pytest.approx(1.0)
    assert linear_r2(factors, covariate) == pytest.approx(1.0)


def test_independent_factors_correlate_little() -> None:
    assert first_component_correlation(RNG.normal(size=(2000, 4)), RNG.normal(size=2000)) < 0.1
    assert linear_r2(RNG.normal(size=(2000, 4)), RNG.normal(size=2000)) < 0.02


def test_correlation_is_that_of_scipy_on_the_leading_eigenvector() -> None:
    factors = RNG.normal(size=(150, 5)) @ RNG.normal(size=(5, 5))
    covariate = factors[:, 0] + RNG.normal(size=150)
    _, vectors = np.linalg.eigh(np.cov(factors.T))
    expected = abs(stats.pearsonr(factors @ vectors[:, -1], covariate).statistic)
    assert first_component_correlation(factors, covariate) == pytest.approx(expected, rel=1e-9)


def test_rotations_and_shifts_change_nothing() -> None:
    factors, covariate = RNG.normal(size=(80, 3)) * [3, 2, 1], RNG.normal(size=80)
    rotation, _ = np.linalg.qr(RNG.normal(size=(3, 3)))
    expected = first_component_correlation(factors, covariate)
    turned = factors @ rotation + 5.0
    assert first_component_correlation(turned, covariate) == pytest.approx(expected, rel=1e-9)
    assert linear_r2(turned, covariate) == pytest.approx(linear_r2(factors, covariate), rel=1e-9)


def test_shares_of_variance_are_the_eigenvalues() -> None:
    factors = RNG.normal(size=(300, 3)) * [4.0, 2.0, 1.0]
    values = np.sort(np.linalg.eigvalsh(np.cov(factors.T)))[::-1]
    scores, shares = principal_components(factors, 3)
    np.testing.assert_allclose(shares, values / values.sum(), rtol=1e-9)
    np.testing.assert_allclose(scores.var(axis=0, ddof=1), values, rtol=1e-9)


def test_linear_r2_finds_what_no_single_component_shows() -> None:
    first, second = RNG.normal(size=(2, 400))
    factors = np.stack([first + second, first - second], axis=1)
    assert first_component_correlation(factors, first) < 0.95
    assert linear_r2(factors, first) == pytest.approx(1.0)


def test_constant_input_has_no_correlation() -> None:
    assert math.isnan(first_component_correlation(np.ones((5, 2)), np.arange(5.0)))
    assert math.isnan(first_component_correlation(RNG.normal(size=(5, 2)), np.ones(5)))
    assert math.isnan(linear_r2(RNG.normal(size=(5, 2)), np.ones(5)))
    scores, shares = principal_components(np.ones((5, 1)), 2)
    assert scores.shape == (5, 2)
    assert not shares.any()


def test_wrong_shapes_say_which() -> None:
    with pytest.raises(ValueError, match="give those of one member"):
        principal_components(np.ones((2, 5, 3)))
    with pytest.raises(ValueError, match="one number of one covariate per agent"):
        first_component_correlation(np.ones((5, 3)), np.ones((5, 2)))
    with pytest.raises(ValueError, match="not finite"):
        principal_components(np.full((5, 3), np.nan))
