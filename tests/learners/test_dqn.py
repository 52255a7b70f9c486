"""DQN by hand: targets, loss, gradient and choice on tables small enough to check on paper."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from persim_jax.learners.dqn import DQNConfig, dqn_loss, make_dqn, q_values, td_loss, td_targets
from persim_jax.types import Transitions

SPEC = envs.make("mountain_car").spec
REWARDS = jnp.array([1.0, 2.0, 3.0])
NEXT_TARGET_VALUES = jnp.array([[1.0, 5.0], [4.0, 2.0], [7.0, 8.0]])
NEXT_VALUES = jnp.array([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])


def transitions(batch_size, key):
    obs_key, next_key, action_key, reward_key = jax.random.split(key, 4)
    return Transitions(
        agent=jnp.zeros(batch_size, jnp.int32),
        obs=jax.random.normal(obs_key, (batch_size, 2)),
        actions=jax.random.randint(action_key, (batch_size,), 0, 3, jnp.int32),
        rewards=2.0 * jax.random.normal(reward_key, (batch_size,)),
        next_obs=jax.random.normal(next_key, (batch_size, 2)),
        terminated=jnp.arange(batch_size) % 3 == 0,
    )


def test_targets_take_the_targets_own_maximum():
    terminated = jnp.zeros(3, bool)
    targets = td_targets(REWARDS, terminated, NEXT_TARGET_VALUES, NEXT_VALUES, 0.5, double=False)
    np.testing.assert_allclose(targets, [1.0 + 2.5, 2.0 + 2.0, 3.0 + 4.0])


def test_double_dqn_values_the_learned_networks_choice():
    # The learned network prefers actions 0, 1, 0, which the target network values 1, 2, 7.
    terminated = jnp.zeros(3, bool)
    targets = td_targets(REWARDS, terminated, NEXT_TARGET_VALUES, NEXT_VALUES, 0.5, double=True)
    np.testing.assert_allclose(targets, [1.0 + 0.5, 2.0 + 1.0, 3.0 + 3.5])


@pytest.mark.parametrize("double", [False, True])
def test_nothing_follows_a_termination(double):
    terminated = jnp.array([True, False, True])
    # Not even values that are no numbers.
    values = NEXT_TARGET_VALUES.at[0].set(jnp.nan)
    targets = td_targets(REWARDS, terminated, values, NEXT_VALUES, 0.5, double)
    np.testing.assert_allclose(targets[jnp.array([0, 2])], [1.0, 3.0])
    assert targets[1] != 2.0


def test_huber_loss_by_hand():
    values = jnp.array([[0.0, 10.0], [3.0, 0.0], [0.0, -1.0]])
    actions = jnp.array([0, 0, 1], jnp.int32)
    # Errors 0.5, 3 and -1: 0.5 * 0.25, 3 - 0.5 and 0.5.
    loss = td_loss(values, actions, jnp.array([0.5, 0.0, 0.0]))
    np.testing.assert_allclose(loss, (0.125 + 2.5 + 0.5) / 3.0, rtol=1e-6)


@pytest.mark.optimizes
def test_gradient_is_that_of_a_linear_network_with_fixed_targets(key):
    config = DQNConfig(hidden=(), discount=0.9)
    init_key, target_key, batch_key = jax.random.split(key, 3)
    learner, batch = make_dqn(SPEC, config), transitions(12, batch_key)
    state = learner.init(init_key)
    # Other target parameters, so that a gradient through the target or a mix-up shows.
    state = dataclasses.replace(state, target_params=learner.init(target_key).params)
    gradient, _ = jax.grad(dqn_loss, has_aux=True)(state.params, SPEC, config, state, batch)

    def linear(params, obs):
        layer = params["params"]["dense_0"]
        return np.asarray(obs) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])

    rows, actions = np.arange(12), np.asarray(batch.actions)
    best = linear(state.target_params, batch.next_obs).max(axis=1)
    targets = np.asarray(batch.rewards) + 0.9 * np.where(batch.terminated, 0.0, best)
    errors = np.clip(linear(state.params, batch.obs)[rows, actions] - targets, -1.0, 1.0) / 12.0
    kernel, bias = np.zeros((2, 3)), np.zeros(3)
    for row, action in zip(rows, actions, strict=True):
        kernel[:, action] += errors[row] * np.asarray(batch.obs)[row]
        bias[action] += errors[row]
    layer = gradient["params"]["dense_0"]
    np.testing.assert_allclose(layer["kernel"], kernel, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer["bias"], bias, rtol=1e-4, atol=1e-6)


@pytest.mark.optimizes
def test_update_is_one_adam_step_then_a_polyak_step(key):
    config = DQNConfig(hidden=(), learning_rate=1e-2, target_rate=0.1)
    init_key, batch_key, update_key = jax.random.split(key, 3)
    learner, batch = make_dqn(SPEC, config), transitions(12, batch_key)
    state = learner.init(init_key)
    gradient, _ = jax.grad(dqn_loss, has_aux=True)(state.params, SPEC, config, state, batch)
    new, metrics = jax.jit(learner.update)(update_key, state, batch)
    # Adam's first step is the learning rate times the sign of the gradient.
    expected = jax.tree.map(lambda p, g: p - 1e-2 * jnp.sign(g), state.params, gradient)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5)  # noqa: E731
    jax.tree.map(close, new.params, expected)
    target = jax.tree.map(lambda p, e: 0.9 * p + 0.1 * e, state.target_params, expected)
    jax.tree.map(close, new.target_params, target)
    assert metrics["loss"] > 0.0


def test_greedy_action_is_the_best_one(key):
    learner = make_dqn(SPEC, DQNConfig(hidden=(8,)))
    init_key, obs_key, act_key = jax.random.split(key, 3)
    state = learner.init(init_key)
    for obs in jax.random.normal(obs_key, (5, 2)):
        values = np.asarray(q_values(SPEC, DQNConfig(hidden=(8,)), state.params, obs))
        action = learner.act(act_key, state, obs, jnp.zeros(()))
        assert action.dtype == jnp.int32
        assert int(action) == int(values.argmax())


def test_explore_is_the_probability_of_a_random_action(key):
    learner = make_dqn(SPEC, DQNConfig(hidden=(8,)))
    init_key, act_key = jax.random.split(key)
    state, obs = learner.init(init_key), jnp.array([0.3, -0.7])
    best = int(learner.act(act_key, state, obs, jnp.zeros(())))
    act = jax.vmap(learner.act, (0, None, None, None))
    actions = act(jax.random.split(act_key, 9000), state, obs, jnp.asarray(0.6))
    shares = np.bincount(actions, minlength=3) / 9000.0
    expected = np.full(3, 0.2)
    expected[best] += 0.4
    np.testing.assert_allclose(shares, expected, atol=4.0 * np.sqrt(0.25 / 9000.0))


def test_observations_are_scaled_before_the_network(key):
    plain, scaled = DQNConfig(hidden=(8,)), DQNConfig(hidden=(8,), obs_scale=(2.0, 10.0))
    params = make_dqn(SPEC, plain).init(key).params
    obs = jnp.array([[0.5, -0.03], [0.1, 0.02]])
    np.testing.assert_allclose(
        q_values(SPEC, scaled, params, obs),
        q_values(SPEC, plain, params, jnp.array([[1.0, -0.3], [0.2, 0.2]])),
        rtol=1e-6,
    )


def test_one_config_is_one_learner():
    assert make_dqn(SPEC, DQNConfig()) is make_dqn(SPEC, DQNConfig())
    hash(make_dqn(SPEC, DQNConfig()))


def test_continuous_actions_are_refused():
    spec = dataclasses.replace(SPEC, num_actions=0, action_low=(-1.0,), action_high=(1.0,))
    with pytest.raises(ValueError, match=r"mountain_car has continuous actions.*TD3"):
        make_dqn(spec, DQNConfig())


def test_a_scale_of_another_length_is_refused():
    with pytest.raises(ValueError, match="obs_scale has 3 numbers, an observation 2"):
        make_dqn(SPEC, DQNConfig(obs_scale=(1.0, 1.0, 1.0)))
