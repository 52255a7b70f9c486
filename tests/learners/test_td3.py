"""TD3 by hand: targets, both kinds of steps and actions, on networks small enough for paper."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs.base import EnvSpec
from persim_jax.learners.td3 import (
    TD3Config,
    actor_action,
    critic_values,
    make_td3,
    td3_targets,
)
from persim_jax.types import Transitions

LOW, HIGH = np.array([-1.0, 0.0]), np.array([3.0, 0.5])
CENTER, HALF = (LOW + HIGH) / 2, (HIGH - LOW) / 2


def make_spec(obs_size=3, low=LOW, high=HIGH):
    names = tuple(f"x{i}" for i in range(obs_size))
    return EnvSpec("toy", names, (), 0, tuple(map(float, low)), tuple(map(float, high)), 9, 1.0)


SPEC = make_spec()
ONE = make_spec(1, LOW[:1], HIGH[:1])  # one observation, one action in [-1, 3]


def transitions(batch_size, key):
    keys = jax.random.split(key, 4)
    actions = jax.random.uniform(keys[0], (batch_size, 2))
    return Transitions(
        agent=jnp.zeros(batch_size, jnp.int32),
        obs=jax.random.normal(keys[1], (batch_size, 3)),
        actions=actions * jnp.asarray([[4.0, 0.5]]) + jnp.asarray([[-1.0, 0.0]]),
        rewards=2.0 * jax.random.normal(keys[2], (batch_size,)),
        next_obs=jax.random.normal(keys[3], (batch_size, 3)),
        terminated=jnp.arange(batch_size) % 3 == 0,
    )


def fresh(key, config, spec=SPEC):
    """A new learner's state, compiled as a whole: op by op it takes seconds."""
    return jax.jit(make_td3(spec, config).init)(key)


targets_of = jax.jit(td3_targets, static_argnums=(1, 2))
action_of = jax.jit(actor_action, static_argnums=(0, 1))
values_of = jax.jit(critic_values, static_argnums=(0, 1))


def linear(kernel, bias):
    return {"params": {"dense_0": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}}


def one_state(actor_bias, critics, config):
    """Of `ONE` with linear target networks: pi' ignores s, Q_i' = c[0] s + c[1] a."""
    state = fresh(jax.random.key(0), config, ONE)
    kernels = [[[c[0]], [c[1]]] for c in critics]
    return dataclasses.replace(
        state,
        target_params=linear([[0.0]], [actor_bias]),
        target_critics=linear(kernels, [[0.0], [0.0]]),
    )


def one_batch(next_obs, rewards, terminated):
    size = len(rewards)
    return Transitions(
        agent=jnp.zeros(size, jnp.int32),
        obs=jnp.zeros((size, 1)),
        actions=jnp.zeros((size, 1)),
        rewards=jnp.asarray(rewards),
        next_obs=jnp.asarray(next_obs)[:, None],
        terminated=jnp.asarray(terminated),
    )


@pytest.mark.optimizes
def test_targets_take_the_smaller_critic_and_bootstrap_unless_terminated(key):
    config = TD3Config(hidden=(), discount=0.5, target_noise=0.0)
    # The action is the middle of [-1, 3], 1: the critics say 1 and 3 at s = 0, 11 and 2 at s = 1.
    state = one_state(0.0, [(10.0, 1.0), (-1.0, 3.0)], config)
    # A time limit is not stored at all: a row is either a termination or bootstraps.
    batch = one_batch([0.0, 1.0, 0.0, 1.0], [0.5, 0.25, 4.0, 5.0], [False, False, True, True])
    targets = targets_of(key, ONE, config, state, batch)
    np.testing.assert_allclose(targets, [0.5 + 0.5, 0.25 + 1.0, 4.0, 5.0])


@pytest.mark.optimizes
def test_nothing_follows_a_termination_not_even_values_that_are_no_numbers(key):
    config = TD3Config(hidden=())
    state = one_state(0.0, [(jnp.nan, 1.0), (1.0, 1.0)], config)
    targets = targets_of(key, ONE, config, state, one_batch([1.0], [3.0], [True]))
    np.testing.assert_array_equal(targets, [3.0])


@pytest.mark.optimizes
@pytest.mark.parametrize(("noise", "clip"), [(0.2, 0.5), (0.3, 0.1)])
def test_the_targets_noise_is_clipped_and_in_units_of_half_the_range(key, noise, clip):
    config = TD3Config(hidden=(), discount=1.0, target_noise=noise, noise_clip=clip)
    size = 20_000
    zeros = np.zeros(size, np.float32)
    batch = one_batch(zeros, zeros, np.zeros(size, bool))
    # Both critics are the action itself, so the target is the smoothed action around 1.
    state = one_state(0.0, [(0.0, 1.0), (0.0, 1.0)], config)
    found = (np.asarray(targets_of(key, ONE, config, state, batch)) - 1.0) / 2.0
    expected = np.clip(noise * np.random.default_rng(0).standard_normal(size), -clip, clip)
    assert np.abs(found).max() == pytest.approx(clip, abs=1e-6)
    np.testing.assert_allclose(found.mean(), 0.0, atol=4.0 * noise / np.sqrt(size))
    np.testing.assert_allclose(found.std(), expected.std(), rtol=0.03)


@pytest.mark.optimizes
def test_the_smoothed_action_stays_within_its_bounds(key):
    config = TD3Config(hidden=(), discount=1.0)
    zeros = np.zeros(1000, np.float32)
    batch = one_batch(zeros, zeros, np.zeros(1000, bool))
    # The policy sits at the upper bound, 3: half of the noise is cut away, the other half is not.
    state = one_state(100.0, [(0.0, 1.0), (0.0, 1.0)], config)
    found = np.asarray(targets_of(key, ONE, config, state, batch))
    assert found.max() == 3.0
    assert 0.4 < (found == 3.0).mean() < 0.6
    assert found.min() < 2.5


class NumpyAdam:
    """Adam of Kingma and Ba (2015) over a dict of arrays."""

    def __init__(self, rate):
        self.rate, self.count, self.m, self.v = rate, 0, {}, {}

    def step(self, params, gradient):
        self.count += 1
        new = {}
        for name, g in gradient.items():
            self.m[name] = 0.9 * self.m.get(name, 0.0) + 0.1 * g
            self.v[name] = 0.999 * self.v.get(name, 0.0) + 0.001 * g**2
            m = self.m[name] / (1.0 - 0.9**self.count)
            v = self.v[name] / (1.0 - 0.999**self.count)
            new[name] = params[name] - self.rate * m / (np.sqrt(v) + 1e-8)
        return new


def numpy_layer(params):
    return {
        name: np.asarray(leaf, np.float64) for name, leaf in params["params"]["dense_0"].items()
    }


def numpy_actor(params, obs):
    tanh = np.tanh(obs @ params["kernel"] + params["bias"])
    return CENTER + HALF * tanh, tanh


def numpy_critics(critics, obs, actions):
    inputs = np.concatenate([obs, actions], axis=1)
    return [inputs @ critics["kernel"][i][:, 0] + critics["bias"][i, 0] for i in (0, 1)], inputs


def numpy_update(state, batch, config):
    """The whole update for linear networks and no target noise, derivatives by hand."""
    actor, critics, slow_actor, slow_critics = map(
        numpy_layer, (state.params, state.critics, state.target_params, state.target_critics)
    )
    adam = NumpyAdam(config.learning_rate)
    columns = (batch.obs, batch.actions, batch.rewards, batch.next_obs, batch.terminated)
    parts = [np.split(np.asarray(column), config.policy_delay) for column in columns]
    for obs, actions, rewards, next_obs, terminated in zip(*parts, strict=True):
        values, _ = numpy_critics(slow_critics, next_obs, numpy_actor(slow_actor, next_obs)[0])
        targets = rewards + config.discount * np.where(terminated, 0.0, np.minimum(*values))
        values, inputs = numpy_critics(critics, obs, actions)
        errors = [2.0 * (value - targets) / len(targets) for value in values]
        loss = sum(np.mean((value - targets) ** 2) for value in values)
        gradient = {
            "kernel": np.stack([(inputs.T @ error)[:, None] for error in errors]),
            "bias": np.array([[error.sum()] for error in errors]),
        }
        critics = adam.step(critics, gradient)
    actions, tanh = numpy_actor(actor, obs)
    value = numpy_critics(critics, obs, actions)[0][0].mean()
    # Of the first critic only; the policy's action is its last two inputs.
    slope = -critics["kernel"][0][3:, 0] * HALF * (1.0 - tanh**2) / len(obs)
    gradient = {"kernel": obs.T @ slope, "bias": slope.sum(axis=0)}
    actor = NumpyAdam(config.learning_rate).step(actor, gradient)
    rate = config.target_rate
    slowly = lambda new, old: {k: (1.0 - rate) * old[k] + rate * new[k] for k in old}  # noqa: E731
    slow = slowly(actor, slow_actor), slowly(critics, slow_critics)
    return (actor, critics, *slow), {"loss": loss, "q": value}


@pytest.mark.optimizes
@pytest.mark.parametrize(
    "policy_delay", [2, *(pytest.param(delay, marks=pytest.mark.slow) for delay in (1, 3))]
)
def test_an_update_is_the_published_rhythm_in_numpy(key, policy_delay):
    config = TD3Config(
        hidden=(), learning_rate=0.03, target_rate=0.2, target_noise=0.0, policy_delay=policy_delay
    )
    keys = jax.random.split(key, 4)
    learner, batch = make_td3(SPEC, config), transitions(8 * policy_delay, keys[0])
    # Targets of their own, so that a mix-up with the learned networks shows.
    other = fresh(keys[1], config)
    state = dataclasses.replace(
        fresh(keys[2], config), target_params=other.params, target_critics=other.critics
    )
    expected, told = numpy_update(state, batch, config)
    new, metrics = jax.jit(learner.update)(keys[3], state, batch)
    for found, wanted in zip(
        (new.params, new.critics, new.target_params, new.target_critics), expected, strict=True
    ):
        for name, values in numpy_layer(found).items():
            np.testing.assert_allclose(values, wanted[name], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(metrics["loss"], told["loss"], rtol=1e-4)
    np.testing.assert_allclose(metrics["q"], told["q"], rtol=1e-4, atol=1e-5)
    assert int(new.critic_opt_state[0].count) == policy_delay
    assert int(new.actor_opt_state[0].count) == 1


@pytest.mark.slow
@pytest.mark.optimizes
def test_learners_under_vmap_are_learners_one_at_a_time(key):
    config = TD3Config(hidden=(6,), learning_rate=1e-2)
    keys = jax.random.split(key, 9)
    learner = make_td3(SPEC, config)
    states = jax.jit(jax.vmap(learner.init))(keys[:3])
    batches = jax.vmap(lambda key: transitions(8, key))(keys[3:6])
    together, _ = jax.jit(jax.vmap(learner.update))(keys[6:], states, batches)
    for agent in range(3):
        state, batch = jax.tree.map(lambda leaf, i=agent: leaf[i], (states, batches))
        alone, _ = jax.jit(learner.update)(keys[6 + agent], state, batch)
        own = jax.tree.map(lambda leaf, i=agent: leaf[i], together)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), alone, own
        )


def layers_of(params):
    layers = params["params"]
    return [jax.device_get(layers[name]) for name in sorted(layers)]


@pytest.mark.optimizes
def test_the_networks_are_relu_layers_with_a_tanh_on_the_actor(key):
    config = TD3Config(hidden=(7, 5), obs_scale=(2.0, 0.1, -1.0))
    state = fresh(key, config)
    obs, actions = np.random.default_rng(0).normal(size=(2, 4, 3)).astype(np.float32)
    actions = actions[:, :2]

    def through(layers, x):
        for layer in layers[:-1]:
            x = np.maximum(x @ layer["kernel"] + layer["bias"], 0.0)
        return x @ layers[-1]["kernel"] + layers[-1]["bias"]

    scaled = obs * np.array([2.0, 0.1, -1.0])
    np.testing.assert_allclose(
        action_of(SPEC, config, state.params, jnp.asarray(obs)),
        CENTER + HALF * np.tanh(through(layers_of(state.params), scaled)),
        rtol=1e-5,
    )
    inputs = np.concatenate([scaled, actions], axis=1)
    found = values_of(SPEC, config, state.critics, jnp.asarray(obs), jnp.asarray(actions))
    for i in (0, 1):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], state.critics)
        expected = through(layers_of(own), inputs)[:, 0]
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-6)
    assert np.abs(found[0] - found[1]).min() > 0.0  # twins, but not the same


@pytest.mark.optimizes
def test_targets_start_as_copies(key):
    state = fresh(key, TD3Config(hidden=(4,)))
    jax.tree.map(np.testing.assert_array_equal, state.params, state.target_params)
    jax.tree.map(np.testing.assert_array_equal, state.critics, state.target_critics)


@pytest.mark.optimizes
def test_actions_reach_both_bounds_and_never_leave_them(key):
    config = TD3Config(hidden=(8,))
    learner = make_td3(SPEC, config)
    state = fresh(key, config)
    state = dataclasses.replace(state, params=jax.tree.map(lambda p: 100.0 * p, state.params))
    obs = jax.random.normal(key, (200, 3))
    act = jax.jit(jax.vmap(learner.act, (0, None, 0, None)))
    for explore in (0.0, 0.1, 10.0):
        actions = np.asarray(act(jax.random.split(key, 200), state, obs, jnp.asarray(explore)))
        assert (actions >= LOW.astype(np.float32)).all()
        assert (actions <= HIGH.astype(np.float32)).all()
        np.testing.assert_allclose(actions.min(axis=0), LOW, atol=1e-5)
        np.testing.assert_allclose(actions.max(axis=0), HIGH, atol=1e-5)


@pytest.mark.optimizes
def test_explore_is_the_noise_in_units_of_half_the_range(key):
    config = TD3Config(hidden=(8,))
    learner = make_td3(SPEC, config)
    state, obs = fresh(key, config), jnp.array([0.1, -0.2, 0.3])
    greedy = action_of(SPEC, config, state.params, obs)
    np.testing.assert_allclose(learner.act(key, state, obs, jnp.zeros(())), greedy, rtol=1e-6)
    act = jax.jit(jax.vmap(learner.act, (0, None, None, None)))
    actions = act(jax.random.split(key, 9000), state, obs, jnp.asarray(0.05))
    noise = (np.asarray(actions) - np.asarray(greedy)) / HALF
    np.testing.assert_allclose(noise.std(axis=0), 0.05, rtol=0.04)
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=4.0 * 0.05 / np.sqrt(9000))


def test_one_config_is_one_learner():
    assert make_td3(SPEC, TD3Config()) is make_td3(SPEC, TD3Config())
    hash(make_td3(SPEC, TD3Config()))


def test_discrete_actions_are_refused():
    with pytest.raises(ValueError, match=r"cart_pole has discrete actions.*DQN"):
        make_td3(envs.make("cart_pole").spec, TD3Config())


def test_a_scale_of_another_length_and_no_delay_are_refused():
    with pytest.raises(ValueError, match="obs_scale has 2 numbers, an observation 3"):
        make_td3(SPEC, TD3Config(obs_scale=(1.0, 1.0)))
    with pytest.raises(ValueError, match="policy_delay is 0: it must be at least 1"):
        make_td3(SPEC, TD3Config(policy_delay=0))


@pytest.mark.optimizes
def test_a_batch_that_cannot_be_split_is_refused(key):
    config = TD3Config(hidden=())
    state, batch = fresh(key, config), transitions(7, key)
    with pytest.raises(ValueError, match="7 rows: make it a multiple of policy_delay, 2"):
        make_td3(SPEC, config).update(key, state, batch)
