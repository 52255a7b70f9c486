"""Rivals that are honest, rollouts that are those of the simulators, and where data end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.models.factor import FactorConfig
from persim_jax.personalization.evidence import evidence_of
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.validation import queries as queries_lib
from persim_jax.validation.config import ValidationConfig
from persim_jax.validation.open_loop import (
    FAR,
    forecast,
    forecast_simulators,
    one_step_noise,
    persistence,
)
from persim_jax.validation.per_agent import RidgeConfig, fit_each, ridge_model, scaling_of
from persim_jax.validation.support import outside, support_of
from tests.toys import factor_params
from tests.validation.records import line_data

CONFIG = ValidationConfig(horizon=8)
SIZES = RidgeConfig(size=2, lags=1, num_actions=3, degree=2)


def windows(data, start=20):
    return queries_lib.windows(data, np.full(data.num_agents, start), CONFIG)


def test_a_forecast_is_the_rollout_of_each_agents_own_simulator():
    config = FactorConfig(
        2, 2, 3, True, rank=2, state_features=(6,), activation="tanh", ensemble_size=3
    )
    data = line_data([0.1, 0.2])
    simulators = PersonalizedSimulators(
        factor_params(config), np.asarray(data.agent_ids), np.zeros((2, 0)), config,
        noise=jnp.full((3, 2), 0.5),
    )  # fmt: skip
    queries = windows(data)
    found = forecast_simulators(simulators, queries, np.ones(2))
    noise = 0.5 * np.asarray(simulators.params.normalizer.delta.std)
    np.testing.assert_allclose(one_step_noise(simulators), noise, rtol=1e-6)
    for q in (0, len(queries.agent) - 1):
        agent_id = int(data.agent_ids[queries.agent[q]])
        path = simulators.rollout(agent_id, queries.obs[q], queries.actions[q])
        path = jax.tree.map(np.asarray, path)
        finite = np.abs(path.mean) < 1e3  # random weights make some paths run away
        np.testing.assert_allclose(found.mean[q][finite], path.mean[finite], rtol=1e-2, atol=1e-2)
        spread = np.sqrt(np.var(path.members, axis=0) + noise**2)
        np.testing.assert_allclose(found.std[q][finite], spread[finite], rtol=2e-2, atol=1e-2)


def test_what_leaves_the_numbers_is_far_away_and_not_missing():
    data = line_data([0.1])
    queries = windows(data)
    config = FactorConfig(1, 2, 3, True, rank=2, state_features=(6,), ensemble_size=2)
    params = factor_params(config)
    broken = params._replace(weights=jax.tree.map(lambda w: w * jnp.inf, params.weights))
    from persim_jax.models.factor import factor_model

    found = forecast(factor_model(config), broken, queries, np.array([1.0, 1e20]))
    far = np.broadcast_to(FAR * np.array([1.0, 1e20]), found.mean.shape)
    np.testing.assert_allclose(np.abs(found.mean), far, rtol=1e-6)
    assert np.all(np.isfinite(found.std))


def test_persistence_stays_where_it_starts():
    data = line_data([0.1, 0.2])
    found = persistence(windows(data))
    np.testing.assert_array_equal(found.mean[0], np.tile(data.obs[0, 20], (8, 1)))
    np.testing.assert_array_equal(found.std, 0)


def test_each_agents_own_model_finds_its_own_linear_system():
    data = line_data([0.1, -0.4, 0.7])
    early = data.replace(mask=np.asarray(data.mask) & (np.arange(40) < 20))
    config, params = fit_each(evidence_of(early), scaling_of(early), SIZES)
    queries = windows(data)
    found = forecast(ridge_model(config), params, queries, np.ones(2))
    np.testing.assert_allclose(found.mean[queries.mask], queries.truth[queries.mask], atol=0.02)
    # With next to no steps it stays stiff instead of wild.
    few = data.replace(mask=np.asarray(data.mask) & (np.arange(40) < 2))
    config, params = fit_each(evidence_of(few), scaling_of(early), SIZES)
    stiff = forecast(ridge_model(config), params, windows(data), np.ones(2))
    assert np.abs(stiff.mean).max() < 3 * np.abs(data.obs).max() + 1


def test_steps_that_are_masked_do_not_count_and_agents_do_not_meet():
    data = line_data([0.1, -0.4])
    early = np.asarray(data.mask) & (np.arange(40) < 20)
    altered = data.obs.copy()
    altered[:, 25:] = 7.0
    altered[1] = -3.0 * data.obs[1]
    scaling = scaling_of(data.replace(mask=early))
    fits = [
        fit_each(evidence_of(d.replace(mask=early)), scaling, SIZES)[1].coefficients
        for d in (data, data.replace(obs=altered))
    ]
    np.testing.assert_allclose(fits[0][0], fits[1][0], atol=1e-6)
    assert np.abs(fits[0][1] - fits[1][1]).max() > 1e-3


def test_two_degrees_beat_one_where_the_truth_is_quadratic():
    data = line_data([0.1], steps=60)
    bent = data.obs.copy()
    for t in range(60):
        push = data.actions[:, t] - 1.0
        bent[:, t + 1, 1] = 0.5 * bent[:, t, 1] + 0.5 * bent[:, t, 1] ** 2 + 0.3 * push
    data = data.replace(obs=bent)
    errors = []
    for degree in (1, 2):
        config, params = fit_each(
            evidence_of(data), scaling_of(data), SIZES._replace(degree=degree)
        )
        queries = windows(data)
        found = forecast(ridge_model(config), params, queries, np.ones(2))
        errors.append(np.abs(found.mean - queries.truth)[queries.mask, 1].max())
    assert errors[1] < 0.1 * errors[0]


def test_queries_like_the_data_are_inside_and_others_are_not():
    data = line_data(np.full(40, 0.1), seed=1)
    cloud = support_of(data)
    same = outside(cloud, windows(line_data(np.full(10, 0.1), seed=2)), 3)
    assert same.mean() < 0.1
    away = windows(data)
    away = away._replace(states=away.states + np.float32([50.0, 0.0]))
    np.testing.assert_array_equal(outside(cloud, away, 3), 1.0)
    # An action that was never taken in such a state is far, too.
    one_sided = data.replace(actions=np.zeros_like(data.actions))
    other = windows(data)
    other = other._replace(actions=np.full_like(other.actions, 2))
    assert outside(support_of(one_sided), other, 3).mean() > 0.9


def test_the_cloud_holds_all_agents_however_many_transitions_there_are():
    # 12 000 transitions are just short of twice what the cloud takes; the last quarter of the
    # agents lives elsewhere.
    data = line_data(np.full(120, 0.1), steps=100)
    obs = np.array(data.obs)
    obs[90:, :, 0] += 1000.0
    data = data.replace(obs=obs)
    cloud = support_of(data)
    x = cloud.references[:, 0] * cloud.std[0] + cloud.mean[0]
    assert np.mean(x > 500) == pytest.approx(0.25, abs=0.01)
    assert outside(cloud, windows(data), 3)[-20:].mean() < 0.1
