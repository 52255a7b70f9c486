"""A factor model small enough to work out its predictions and its loss by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.models.base import ModelParams
from persim_jax.models.factor import (
    FactorConfig,
    FactorNormalizer,
    agent_factors,
    factor_model,
    predict_delta,
    state_inputs,
)
from persim_jax.normalizer import Normalizer
from persim_jax.types import Transitions


@functools.partial(jax.jit, static_argnums=0)
def predict(config, params, agents, obs, actions):
    """Unfolded differences of all queries, [M, B, D]."""
    one = functools.partial(predict_delta, config, params)
    return jax.vmap(one, out_axes=1)(agents, obs, actions)


def by_hand():
    """D = 1, r = 1, two agents, two actions, one ReLU; two members, the second with v doubled.

    u = 0.5 + (1, -2)[agent], v = 3 relu(2 s - 1) + 1, w = (1, 4)[action] + 0.
    """
    config = FactorConfig(
        num_agents=2, obs_size=1, action_size=2, discrete=True, rank=1, state_features=(1,),
        ensemble_size=2, agent_penalty=0.1,
    )  # fmt: skip
    pair = lambda a, b: jnp.asarray([a, b], jnp.float32)  # noqa: E731
    weights = {
        "agent_encoder": {"embedding": pair([[1], [-2]], [[1], [-2]])},
        "agent_bias": pair([0.5], [0.5]),
        "state_trunk": {"dense_0": {"kernel": pair([[2]], [[2]]), "bias": pair([-1], [-1])}},
        "state_head": {"kernel": pair([[3]], [[6]]), "bias": pair([1], [2])},
        "action_encoder": {
            "dense_0": {"kernel": pair([[1], [4]], [[1], [4]]), "bias": pair([0], [0])}
        },
    }
    unit = Normalizer(mean=jnp.zeros(1), std=jnp.ones(1))
    return config, ModelParams(weights, FactorNormalizer(unit, unit, jnp.ones_like(unit.mean)))


def test_a_prediction_and_its_loss_by_hand():
    config, params = by_hand()
    # Agent 0, s = 1, action 1: u = 1.5, v = 3 * 1 + 1 = 4, w = 4, so 24; doubled 48.
    # Agent 1, s = 0, action 0: u = -1.5, v = 3 * 0 + 1 = 1, w = 1, so -1.5; doubled -3.
    obs = np.float32([[1.0], [0.0]])
    deltas = predict(config, params, np.int32([0, 1]), obs, np.int32([1, 0]))
    np.testing.assert_allclose(deltas[..., 0], [[24.0, -1.5], [48.0, -3.0]])
    np.testing.assert_allclose(agent_factors(config, params), [[[1.5], [-1.5]]] * 2)
    twice = lambda x: np.stack([x, x])  # noqa: E731
    batch = Transitions(
        agent=twice(np.int32([0, 1])), obs=twice(obs), actions=twice(np.int32([1, 0])),
        rewards=None, next_obs=twice(obs + np.float32([[20.0], [-1.0]])), terminated=None,
    )  # fmt: skip
    losses, metrics = factor_model(config).loss(params, batch, jax.random.key(0))
    mse = [(4**2 + 0.5**2) / 2, (28**2 + 2**2) / 2]
    np.testing.assert_allclose(metrics["mse"], mse)
    # 0.1 times the mean square of the rows 1 and -2, without the shared bias.
    np.testing.assert_allclose(losses, np.asarray(mse) + 0.1 * 2.5)


@pytest.mark.parametrize(("huber", "losses"), [(0.0, 8.125), (100.0, 8.125), (1.0, 3.625)])
def test_the_huber_loss_is_the_square_and_then_a_line_of_the_same_slope(huber, losses):
    config, params = by_hand()
    config = dataclasses.replace(config, huber=huber, agent_penalty=0.0, ensemble_size=1)
    params = params._replace(weights=jax.tree.map(lambda leaf: leaf[:1], params.weights))
    obs = np.float32([[[1.0], [0.0]]])
    # Predictions 24 and -1.5, off by 4 and by 0.5: 16 and 0.25, or 2 * 1 * 4 - 1 = 7 and 0.25.
    batch = Transitions(
        agent=np.int32([[0, 1]]), obs=obs, actions=np.int32([[1, 0]]), rewards=None,
        next_obs=obs + np.float32([[20.0], [-1.0]]), terminated=None,
    )  # fmt: skip
    found, metrics = factor_model(config).loss(params, batch, jax.random.key(0))
    np.testing.assert_allclose(found, [losses])
    np.testing.assert_allclose(metrics["mse"], [8.125])


def test_the_normalizer_is_taken_from_the_data_and_folds_into_raw_units():
    config, params = by_hand()
    config = dataclasses.replace(config, normalize_obs=True, normalize_delta=True)
    obs, next_obs = np.float32([[4.0], [8.0]]), np.float32([[5.0], [12.0]])
    data = Transitions(
        agent=None, obs=obs, actions=None, rewards=None, next_obs=next_obs, terminated=None
    )
    fitted = factor_model(config).fit_normalizer(data)
    # States 4 and 8: mean 6, deviation 2. Differences 1 and 4: mean 2.5, deviation 1.5.
    np.testing.assert_allclose([fitted.obs.mean, fitted.obs.std], [[6.0], [2.0]])
    np.testing.assert_allclose([fitted.delta.mean, fitted.delta.std], [[2.5], [1.5]])
    params = params._replace(normalizer=fitted)
    # Scaled state (8 - 6) / 2 = 1, so the scaled difference is 24 as before: 24 * 1.5 + 2.5.
    deltas = predict(config, params, np.int32([0]), obs[1:], np.int32([1]))
    np.testing.assert_allclose(deltas[:, 0, 0], [24 * 1.5 + 2.5, 48 * 1.5 + 2.5])
    raw = factor_model(dataclasses.replace(config, normalize_obs=False, normalize_delta=False))
    for part in raw.fit_normalizer(data)[:2]:
        np.testing.assert_array_equal([part.mean, part.std], [[0.0], [1.0]])


def noisy_coordinates(rows=4000):
    """Two coordinates: a slow walk, and one that is drawn anew at each step."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(rows, 2)).astype(np.float32)
    walk = obs[:, 0] + 0.1 * rng.normal(size=rows)
    next_obs = np.stack([walk, rng.normal(size=rows)], axis=1).astype(np.float32)
    return Transitions(
        agent=None, obs=obs, actions=None, rewards=None, next_obs=next_obs, terminated=None
    )


def test_a_coordinate_that_does_not_carry_over_is_predicted_itself():
    data = noisy_coordinates()
    config, _ = by_hand()
    config = dataclasses.replace(config, obs_size=2, normalize_delta=True)
    plain = factor_model(config).fit_normalizer(data)
    np.testing.assert_array_equal(plain.carry, [1.0, 1.0])
    fitted = factor_model(dataclasses.replace(config, target="auto")).fit_normalizer(data)
    np.testing.assert_array_equal(fitted.carry, [1.0, 0.0])
    np.testing.assert_allclose(fitted.delta.std, [0.1, 1.0], rtol=0.05)
    # Independent draws: the difference has twice the variance, and the share is 1 / sqrt(2).
    np.testing.assert_allclose(plain.delta.std, [0.1, 2**0.5], rtol=0.05)
    with pytest.raises(ValueError, match="target 'absolute' is unknown"):
        dataclasses.replace(config, target="absolute")


def test_a_full_turn_of_an_angle_changes_no_input_of_the_state_encoder():
    config, _ = by_hand()
    config = dataclasses.replace(config, obs_size=3, angles=(1,))
    assert config.input_size == 4
    obs = jnp.array([0.5, 0.3, -2.0])
    inputs = state_inputs(config, obs)
    np.testing.assert_allclose(inputs, [0.5, np.sin(0.3), -2.0, np.cos(0.3)], rtol=1e-6)
    turned = state_inputs(config, obs.at[1].add(2 * np.pi))
    np.testing.assert_allclose(turned, inputs, atol=1e-6)
    with pytest.raises(ValueError, match=r"angles are \(3,\)"):
        dataclasses.replace(config, angles=(3,))
