"""Lags, inputs and scaled actions of the factor model, against numbers and arrangements by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persim_jax.models.factor import FactorConfig, factor_model, predict_delta
from persim_jax.models.inputs import Scheduled, join_inputs, with_schedule
from persim_jax.types import Transitions
from tests.toys import factor_params

CONFIG = FactorConfig(
    num_agents=3, obs_size=7, action_size=2, discrete=False, rank=2, state_features=(5,),
    activation="tanh", skip=True, ensemble_size=2, num_inputs=1, lags=2, normalize_obs=True,
    normalize_delta=True, normalize_actions=True,
)  # fmt: skip


def one_step(config, params, obs, joined):
    """Next observation of agent 1 by the bound model, [M, D * L]."""
    model = factor_model(config)
    bound = model.bind(params, jnp.asarray(1), None)
    encoded = model.encode_actions(bound, joined)
    return model.observe(model.step(jax.random.key(0), bound, model.start(bound, obs), encoded))


@settings(max_examples=4)
@given(discrete=st.booleans(), num_inputs=st.sampled_from([0, 1]), lags=st.sampled_from([1, 2, 3]))
def test_a_step_predicts_the_newest_and_moves_the_others_down(discrete, num_inputs, lags):
    size, width = 2, 2 + num_inputs
    obs_size = size * lags + width * (lags - 1)
    config = dataclasses.replace(
        CONFIG, discrete=discrete, num_inputs=num_inputs, lags=lags, obs_size=obs_size
    )
    assert config.target_size == size
    params = factor_params(config)
    obs = jnp.linspace(-0.3, 0.5, obs_size)
    action = jnp.asarray(1) if discrete else jnp.asarray([0.4, -2.0])
    joined = join_inputs(config, action, jnp.asarray([3.0]) if num_inputs else None)
    found = one_step(config, params, obs, joined)
    delta = predict_delta(config, params, jnp.asarray(1), obs, joined)
    assert delta.shape == (2, size)
    np.testing.assert_allclose(found[:, :size], obs[None, :size] + delta, rtol=1e-4, atol=1e-5)
    if lags > 1:
        vector = jnp.eye(2)[1] if discrete and not num_inputs else joined
        split = size * lags
        moved = np.concatenate([obs[: split - size], vector, obs[split:-width]])
        np.testing.assert_array_equal(found[:, size:], np.stack([moved, moved]))


def test_actions_and_inputs_are_scaled_by_the_data_and_one_hot_ones_are_not():
    data = Transitions(
        agent=None, obs=jnp.zeros((2, 7)), actions=jnp.asarray([[1.0, 2e6, -3.0], [3.0, 6e6, 5.0]]),
        rewards=None, next_obs=jnp.ones((2, 7)), terminated=None,
    )  # fmt: skip
    fitted = factor_model(CONFIG).fit_normalizer(data)
    np.testing.assert_allclose(fitted.actions.mean, [2.0, 4e6, 1.0])
    np.testing.assert_allclose(fitted.actions.std, [1.0, 2e6, 4.0])
    assert fitted.delta.mean.shape == fitted.carry.shape == (2,)
    one_hot = dataclasses.replace(CONFIG, discrete=True)
    fitted = factor_model(one_hot).fit_normalizer(data)
    np.testing.assert_allclose(fitted.actions.mean, [0.0, 0.0, 1.0])
    np.testing.assert_allclose(fitted.actions.std, [1.0, 1.0, 4.0])
    raw = dataclasses.replace(CONFIG, normalize_actions=False)
    assert factor_model(raw).fit_normalizer(data).actions is None


@pytest.mark.parametrize("discrete", [True, False])
def test_the_unit_of_an_input_changes_no_prediction_of_a_model_that_scales(discrete):
    config = dataclasses.replace(CONFIG, discrete=discrete)
    params, obs = factor_params(config), jnp.linspace(-0.3, 0.5, 7)
    scaler = params.normalizer.actions
    action = jnp.asarray(0) if discrete else jnp.asarray([0.4, -2.0])
    before = one_step(config, params, obs, join_inputs(config, action, jnp.asarray([0.7])))
    unit = jnp.asarray([1.0, 1.0, 1000.0])
    scaled = dataclasses.replace(scaler, mean=scaler.mean * unit, std=scaler.std * unit)
    params = params._replace(normalizer=params.normalizer._replace(actions=scaled))
    after = one_step(config, params, obs, join_inputs(config, action, jnp.asarray([700.0])))
    # The window remembers the input in its own unit; what is predicted is the same.
    np.testing.assert_allclose(after[:, :4], before[:, :4], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after[:, 6], 1000 * before[:, 6])


def test_inputs_stand_beside_the_action_and_are_broadcast():
    config = dataclasses.replace(CONFIG, discrete=True)
    actions = jnp.asarray([[1, 0, 1], [0, 0, 0]])
    schedule = jnp.asarray([[5.0], [6.0], [7.0]])
    joined = join_inputs(config, actions, schedule)
    expected = [[[0, 1, 5], [1, 0, 6], [0, 1, 7]], [[1, 0, 5], [1, 0, 6], [1, 0, 7]]]
    np.testing.assert_array_equal(joined, expected)
    plain = dataclasses.replace(config, num_inputs=0, lags=1)
    assert join_inputs(plain, actions, None) is actions
    for wrong, inputs in ((config, None), (plain, schedule), (config, jnp.zeros((3, 2)))):
        with pytest.raises(ValueError, match="inputs are given at each step: this model takes"):
            join_inputs(wrong, actions, inputs)


@pytest.mark.parametrize("discrete", [True, False])
def test_a_scheduled_model_is_the_model_given_the_inputs(discrete):
    config = dataclasses.replace(CONFIG, discrete=discrete)
    params, obs = factor_params(config), jnp.linspace(-0.3, 0.5, 7)
    schedule = jnp.asarray([[5.0], [-6.0]])
    actions = jnp.asarray([1, 0]) if discrete else jnp.asarray([[0.4, -2.0], [1.0, 0.5]])
    model = factor_model(config)
    bound = model.bind(params, jnp.asarray(2), None)
    planner, known = with_schedule(model, config), Scheduled(bound, schedule)
    assert planner is with_schedule(factor_model(config), config)
    ours = planner.encode_actions(known, actions)
    theirs = model.encode_actions(bound, join_inputs(config, actions, schedule))
    assert jax.tree.leaves(ours)[0].shape[0] == 2
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    states = planner.start(known, obs), model.start(bound, obs)
    second = lambda encoded: jax.tree.map(lambda leaf: leaf[1], encoded)  # noqa: E731
    found = planner.step(jax.random.key(0), known, states[0], second(ours))
    np.testing.assert_array_equal(
        found, model.step(jax.random.key(0), bound, states[1], second(theirs))
    )
    with pytest.raises(TypeError, match="bind the model itself"):
        planner.bind(params, jnp.asarray(2), None)


def test_lags_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="obs_size is 7 with 3 lags"):
        dataclasses.replace(CONFIG, lags=3)
