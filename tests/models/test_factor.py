"""The factor model: folded against unfolded, numbers by hand, and symmetries that must hold."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from persim_jax.models.base import ModelParams
from persim_jax.models.factor import (
    FactorConfig,
    FactorNormalizer,
    agent_factors,
    factor_model,
    predict_delta,
)
from persim_jax.normalizer import Normalizer, identity
from persim_jax.types import Transitions
from tests.toys import factor_params

SMALL = FactorConfig(
    num_agents=4, obs_size=3, action_size=2, discrete=True, rank=2, state_features=(5,),
    ensemble_size=3,
)  # fmt: skip

configs = st.builds(
    dataclasses.replace,
    st.just(SMALL),
    discrete=st.booleans(),
    rank=st.integers(1, 3),
    state_features=st.sampled_from([(4,), (4, 3)]),
    action_features=st.sampled_from([(), (4,)]),
    activation=st.sampled_from(["relu", "tanh"]),
    skip=st.booleans(),
    ensemble_size=st.sampled_from([1, 3]),
)


def queries(config, count=7, seed=1):
    """Random agents, states and actions, one row each."""
    rng = np.random.default_rng(seed)
    actions = (
        rng.integers(config.action_size, size=count).astype(np.int32)
        if config.discrete
        else rng.uniform(-1, 1, (count, config.action_size)).astype(np.float32)
    )
    agents = rng.integers(config.num_agents, size=count).astype(np.int32)
    return agents, rng.normal(size=(count, config.obs_size)).astype(np.float32), actions


@functools.partial(jax.jit, static_argnums=0)
def predict(config, params, agents, obs, actions):
    """Unfolded differences of all queries, [M, B, D]."""
    one = functools.partial(predict_delta, config, params)
    return jax.vmap(one, out_axes=1)(agents, obs, actions)


@functools.partial(jax.jit, static_argnums=0)
def predict_twice(config, params, agents, obs, actions):
    """Differences for every agent and state with every action, folded and not: [B, B', M, D]."""
    model = factor_model(config)

    def one(agent, obs):
        bound = model.bind(params, agent, None)
        # All actions at once, as a planner encodes a plan: leading axes are kept.
        encoded = model.encode_actions(bound, actions)
        state = model.start(bound, obs)
        step = functools.partial(model.step, jax.random.key(0), bound, state)
        folded = jax.vmap(lambda e: model.observe(step(e)) - model.observe(state))(encoded)
        unfolded = jax.vmap(functools.partial(predict_delta, config, params, agent, obs))(actions)
        return folded, unfolded

    return jax.vmap(one)(agents, obs)


@settings(max_examples=4)
@example(dataclasses.replace(SMALL, discrete=False, skip=True, action_features=(4,)), True)
@example(dataclasses.replace(SMALL, skip=True, state_features=(4, 3)), True)
@example(dataclasses.replace(SMALL, discrete=False, ensemble_size=1, rank=1), False)
@given(config=configs, normalized=st.booleans())
def test_a_bound_model_predicts_the_same_numbers_as_an_unbound_one(config, normalized):
    params = factor_params(config)
    if not normalized:
        unit = identity(config.obs_size)
        params = params._replace(normalizer=FactorNormalizer(unit, unit))
    folded, unfolded = predict_twice(config, params, *queries(config))
    assert folded.shape == (7, 7, config.ensemble_size, config.obs_size)
    np.testing.assert_allclose(folded, unfolded, rtol=2e-4, atol=2e-5)


def test_permuting_agents_permutes_predictions():
    params = factor_params(SMALL)
    agents, obs, actions = queries(SMALL)
    order = np.array([2, 0, 3, 1])
    rows = params.weights["agent_encoder"]["embedding"]
    shuffled = params._replace(
        weights={**params.weights, "agent_encoder": {"embedding": rows[:, order]}}
    )
    before = predict(SMALL, params, order[agents], obs, actions)
    np.testing.assert_array_equal(predict(SMALL, shuffled, agents, obs, actions), before)
    assert np.abs(before - predict(SMALL, params, agents, obs, actions)).max() > 1e-3


def test_members_share_nothing():
    params = factor_params(SMALL)
    query = queries(SMALL)
    other = params._replace(weights=jax.tree.map(lambda x: x.at[1].add(0.1), params.weights))
    before, after = (np.asarray(predict(SMALL, p, *query)) for p in (params, other))
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    assert np.abs(after[1] - before[1]).min() > 0

    agents, obs, actions = (np.broadcast_to(x, (3, *x.shape)) for x in query)
    batch = Transitions(
        agent=agents, obs=obs, actions=actions, rewards=None, next_obs=obs + 1, terminated=None
    )

    @jax.jit
    @jax.jacrev
    def jacobian(weights):
        params_of = params._replace(weights=weights)
        return factor_model(SMALL).loss(params_of, batch, jax.random.key(0))[0]

    for leaf in jax.tree.leaves(jacobian(params.weights)):
        across = np.asarray(leaf)[~np.eye(3, dtype=bool)]
        np.testing.assert_array_equal(across, 0.0)


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
    return config, ModelParams(weights, FactorNormalizer(unit, unit))


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
    for part in raw.fit_normalizer(data):
        np.testing.assert_array_equal([part.mean, part.std], [[0.0], [1.0]])


def test_members_start_apart_as_pytorch_draws_them_and_in_order():
    config = dataclasses.replace(SMALL, num_agents=100)
    one = dataclasses.replace(config, ensemble_size=1)
    weights, first = (jax.jit(factor_model(c).init)(jax.random.key(4)) for c in (config, one))
    # A smaller ensemble is the beginning of a larger one.
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:1], b), weights, first)
    rows, bias = weights["agent_encoder"]["embedding"], weights["agent_bias"]
    # PyTorch's linear layer on 100 one-hot agents: everything in U(-0.1, 0.1).
    assert 0.09 < np.abs(rows).max() <= 0.1
    assert 0 < np.abs(bias).max() <= 0.1
    kernel = weights["state_head"]["kernel"]  # five inputs: U(-1, 1) / sqrt(5)
    assert 0.9 * 5**-0.5 < np.abs(kernel).max() <= 5**-0.5
    for leaf in (rows, bias, kernel):
        assert np.abs(leaf[0] - leaf[1]).max() > 0.1 * np.abs(leaf).max()


def test_agents_start_as_the_population_where_the_config_says_so():
    config = dataclasses.replace(SMALL, agent_start=1.0, ensemble_size=1)
    weights = jax.jit(factor_model(config).init)(jax.random.key(0))
    np.testing.assert_array_equal(weights["agent_bias"], 1.0)
    assert np.abs(weights["agent_encoder"]["embedding"]).min() > 0


def test_one_config_has_one_model():
    assert factor_model(SMALL) is factor_model(dataclasses.replace(SMALL))
    assert factor_model(SMALL) is not factor_model(dataclasses.replace(SMALL, rank=1))
