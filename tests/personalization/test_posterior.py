"""The posterior of factors against Bayesian regression in float64, and what it promises."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.personalization import posterior as module
from persim_jax.personalization.posterior import FactorPrior
from tests.oracles import bayesian_regression, forgetful_regression

STEPS, OBS, RANK = 12, 2, 3
condition = jax.jit(module.condition)
moments = jax.jit(lambda posterior: (module.mean(posterior), module.covariance(posterior)))


def problem(seed, noise=0.1, collinear=1.0):
    """A prior, T transitions of an agent drawn from it, and their noise."""
    rng = np.random.default_rng(seed)
    root = np.tril(rng.normal(size=(RANK, RANK))) + 2 * np.eye(RANK)
    prior = FactorPrior(*(jnp.asarray(x, jnp.float32) for x in (rng.normal(size=RANK), root)))
    noises = noise * rng.uniform(0.5, 2, OBS)
    basis = rng.normal(size=(STEPS, OBS, RANK))
    basis[..., 1] = basis[..., 0] + collinear * basis[..., 1]
    factors = rng.normal(size=RANK)
    target = basis @ factors + noises * rng.normal(size=(STEPS, OBS))
    return prior, np.float32(basis), np.float32(target), np.float32(noises), factors


def given(prior, basis, target, noise, mask=None, forgetting=1.0):
    mask = np.ones(len(basis), bool) if mask is None else mask
    forgetting = jnp.asarray(forgetting)
    return condition(module.start(prior), basis, target, noise, mask, forgetting)


def covariance_of(prior):
    root = np.float64(prior.root)
    return root @ root.T


seeds = st.integers(0, 2**31)


@hypothesis.given(seeds, st.integers(0, STEPS), st.sampled_from([1e-3, 0.1, 10.0]))
@hypothesis.settings(max_examples=40)
def test_it_is_bayesian_regression(seed, count, noise):
    prior, basis, target, noises, _ = problem(seed, noise)
    mask = np.arange(STEPS) < count
    mean, covariance = moments(given(prior, basis, target, noises, mask))
    flat = lambda x: x[:count].reshape(count * OBS, *x.shape[2:])  # noqa: E731
    expected = bayesian_regression(
        prior.mean, covariance_of(prior), flat(basis), flat(target), np.tile(noises, count)
    )
    scale = np.sqrt(np.abs(np.diag(expected[1])).max())
    np.testing.assert_allclose(mean, expected[0], rtol=1e-3, atol=1e-2 * scale + 1e-5)
    np.testing.assert_allclose(covariance, expected[1], rtol=1e-2, atol=1e-2 * scale**2)


@hypothesis.given(seeds)
@hypothesis.settings(max_examples=25)
def test_the_order_of_transitions_does_not_matter(seed):
    prior, basis, target, noises, _ = problem(seed)
    order = np.random.default_rng(seed).permutation(STEPS)
    ours = given(prior, basis, target, noises)
    theirs = given(prior, basis[order], target[order], noises)
    np.testing.assert_allclose(ours.root, theirs.root, rtol=1e-4, atol=2e-3)
    np.testing.assert_allclose(moments(ours)[0], moments(theirs)[0], rtol=1e-3, atol=1e-4)


@hypothesis.given(seeds, st.sampled_from([1.0, 0.9, 0.3]))
@hypothesis.settings(max_examples=25)
def test_one_by_one_is_all_at_once_with_forgetting_and_without(seed, forgetting):
    prior, basis, target, noises, _ = problem(seed)
    mask = np.random.default_rng(seed).uniform(size=STEPS) < 0.7
    together = given(prior, basis, target, noises, mask, forgetting)
    single = module.start(prior)
    for t in range(STEPS):
        rows = (x[t : t + 1] for x in (basis, target))
        single = condition(single, *rows, noises, mask[t : t + 1], jnp.asarray(forgetting))
    np.testing.assert_allclose(single.root, together.root, rtol=1e-3, atol=5e-3)
    np.testing.assert_allclose(moments(single)[0], moments(together)[0], rtol=2e-3, atol=1e-3)
    expected = forgetful_regression(
        np.float64(prior.mean), covariance_of(prior), basis[mask], target[mask], noises, forgetting
    )
    np.testing.assert_allclose(moments(together)[0], expected[0], rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(moments(together)[1], expected[1], rtol=2e-2, atol=1e-4)


@hypothesis.given(seeds, st.integers(0, STEPS - 1))
@hypothesis.settings(max_examples=25)
def test_more_data_never_widens_it(seed, count):
    prior, basis, target, noises, _ = problem(seed)
    fewer, more = (
        np.float64(moments(given(prior, basis, target, noises, np.arange(STEPS) < n))[1])
        for n in (count, count + 1)
    )
    # No direction has a larger variance: the difference has no positive eigenvalue.
    assert np.linalg.eigvalsh(more - fewer).max() <= 1e-4 * np.trace(fewer)
    assert np.trace(more) < np.trace(fewer)


@hypothesis.given(seeds)
@hypothesis.settings(max_examples=10)
def test_no_data_is_the_prior(seed):
    prior, basis, target, noises, _ = problem(seed)
    for forgetting in (1.0, 0.5):
        nothing = given(prior, basis, target, noises, np.zeros(STEPS, bool), forgetting)
        mean, covariance = moments(nothing)
        np.testing.assert_array_equal(mean, prior.mean)
        np.testing.assert_allclose(covariance, covariance_of(prior), rtol=1e-5, atol=1e-5)


def test_an_agent_that_is_forgotten_falls_back_to_the_prior_and_no_further():
    prior, basis, target, noises, _ = problem(3)
    blank = np.zeros_like(basis)  # transitions that say nothing
    posterior = given(prior, basis, target, noises)
    for _ in range(3):
        posterior = condition(
            posterior, blank, np.zeros_like(target), noises, np.ones(STEPS, bool), jnp.asarray(0.5)
        )
    mean, covariance = moments(posterior)
    np.testing.assert_allclose(mean, prior.mean, atol=1e-3)
    np.testing.assert_allclose(covariance, covariance_of(prior), rtol=1e-3, atol=1e-3)


def test_a_drifting_agent_is_followed_only_by_one_that_forgets():
    prior, basis, _, noises, before = problem(5)
    after = before + 1.0
    target = np.concatenate([basis[:6] @ before, basis[6:] @ after]).astype(np.float32)
    errors = [
        np.linalg.norm(moments(given(prior, basis, target, noises, None, forgetting))[0] - after)
        for forgetting in (1.0, 0.5)
    ]
    assert errors[1] < 0.2 * errors[0]


def test_nearly_noise_free_and_nearly_collinear_data_do_not_drown_in_rounding():
    # Normal equations would need 1 / (noise / prior)^2 / collinear^2 = 1e12 to fit in float32.
    prior, basis, target, noises, _ = problem(7, noise=1e-4, collinear=1e-2)
    mean, _ = moments(given(prior, basis, target, noises))
    flat = basis.reshape(-1, RANK), target.reshape(-1), np.tile(noises, STEPS)
    expected, covariance = bayesian_regression(prior.mean, covariance_of(prior), *flat)
    assert np.abs(mean - expected).max() < 0.5 * np.sqrt(np.diag(covariance).max())


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7, 12])
def test_guesses_have_the_mean_and_with_enough_of_them_the_covariance(count):
    posterior = given(*problem(11)[:4])
    guesses = module.sample(jax.random.key(1), posterior, count)
    mean, covariance = moments(posterior)
    assert guesses.shape == (count, RANK)
    np.testing.assert_allclose(guesses.mean(axis=0), mean, rtol=1e-4, atol=1e-5)
    if count % 2:
        np.testing.assert_allclose(guesses[0], mean, rtol=1e-5, atol=1e-6)
    if count // 2 % RANK == 0 and count > 1:
        found = (guesses - mean[None]).T @ (guesses - mean[None]) / count
        np.testing.assert_allclose(found, covariance, rtol=1e-3, atol=1e-6)


def test_two_guesses_have_the_covariance_on_average():
    posterior = given(*problem(11)[:4])
    keys = jax.random.split(jax.random.key(2), 4000)
    guesses = jax.vmap(functools.partial(module.sample, posterior=posterior, count=2))(keys)
    mean, covariance = moments(posterior)
    centered = (guesses - mean[None, None]).reshape(-1, RANK)
    found = centered.T @ centered / len(centered)
    np.testing.assert_allclose(found, covariance, atol=0.06 * np.trace(covariance))


def test_one_step_ahead_both_the_factors_and_the_residuals_count():
    prior, basis, target, noises, _ = problem(13)
    posterior = given(prior, basis[:2], target[:2], noises)
    mean, covariance = module.predict(posterior, basis[5], noises)
    factors = [np.float64(x) for x in moments(posterior)]
    np.testing.assert_allclose(mean, basis[5] @ factors[0], rtol=1e-3, atol=1e-4)
    expected = basis[5] @ factors[1] @ basis[5].T + np.diag(noises**2)
    np.testing.assert_allclose(covariance, expected, rtol=1e-3, atol=1e-4)
    particles = module.sample(jax.random.key(0), posterior, 2 * RANK) @ basis[5].T
    np.testing.assert_allclose(particles.mean(axis=0), mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        np.cov(particles.T, bias=True) + np.diag(noises**2), covariance, rtol=1e-2, atol=1e-3
    )
