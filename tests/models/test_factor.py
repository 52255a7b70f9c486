"""The factor model: folded against unfolded, numbers by hand, and symmetries that must hold."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from persim_jax.models.factor import (
    FactorConfig,
    FactorNormalizer,
    factor_model,
    predict_delta,
)
from persim_jax.normalizer import identity
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
    rank=st.integers(1, 4),
    state_features=st.sampled_from([(4,), (4, 3)]),
    action_features=st.sampled_from([(), (4,)]),
    activation=st.sampled_from(["relu", "tanh"]),
    skip=st.booleans(),
    layer_norm=st.booleans(),
    angles=st.sampled_from([(), (0,)]),
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
@example(dataclasses.replace(SMALL, discrete=False, rank=4), True)  # more factors than 1 + actions
@given(config=configs, normalized=st.booleans())
def test_a_bound_model_predicts_the_same_numbers_as_an_unbound_one(config, normalized):
    params = factor_params(config)
    if not normalized:
        inputs, unit = identity(config.input_size), identity(config.obs_size)
        carry = np.float32([1, 0, 1])
        params = params._replace(normalizer=FactorNormalizer(inputs, unit, carry))
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


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rank", 0),
        ("ensemble_size", 0),  # a mean over nobody, which is NaN
        ("state_features", ()),
        ("action_features", (4, 0)),
        ("agent_penalty", -0.1),  # would drive agents apart
        ("huber", -1.0),
    ],
)
def test_settings_that_make_no_model_are_refused(field, value):
    with pytest.raises(ValueError, match=rf"{field} (is |are )?{re.escape(str(value))}"):
        dataclasses.replace(SMALL, **{field: value})
