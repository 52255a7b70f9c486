"""Collected data: how often actions are random, and that they replay to the stored states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import base
from persim_jax import collect
from persim_jax.models.true_env import true_dynamics
from tests.toys import greedy_act, line_env, line_params

# Everybody is far below the end and stays there: 40 agents, 30 steps.
ENV = line_env(max_steps=30)
GAINS = np.linspace(0.001, 0.01, 40, dtype=np.float32)
THRESHOLDS = jnp.where(jnp.arange(40) % 2 == 0, 99.0, -99.0)
BASE_NAMES = {"random": 1.0, "pure": 0.0, "pure_eps20": 0.2, "pure_eps40": 0.4}


@functools.cache
def data_of(name, seed=0):
    """A dataset of the line's 40 agents; policies drive even ones right and odd ones left."""
    behavior = collect.BEHAVIORS[name]
    params = line_params(GAINS, noise=0.001)
    found = collect.collect_dataset(
        jax.random.key(seed), ENV, params, greedy_act, THRESHOLDS, behavior
    )
    return jax.tree.map(np.asarray, found)


def own_actions():
    """What the pure policies do, [40, 30]."""
    return np.broadcast_to(np.where(np.arange(40) % 2 == 0, 2, 0)[:, None], (40, 30))


def test_the_behaviors_of_the_protocol():
    assert {name: b.epsilon for name, b in collect.BEHAVIORS.items()} == BASE_NAMES
    assert all(name == behavior.name for name, behavior in collect.BEHAVIORS.items())


def test_without_epsilon_every_action_is_the_policy_of_its_own_agent():
    np.testing.assert_array_equal(data_of("pure").actions, own_actions())


@pytest.mark.parametrize("name", ["random", "pure_eps20", "pure_eps40"])
def test_with_epsilon_that_share_of_actions_is_uniform(name):
    actions, epsilon = data_of(name).actions, BASE_NAMES[name]
    n = actions.size
    # Of the uniform actions one in three is the policy's own.
    for other in (1, 2):
        share = np.mean((actions - own_actions()) % 3 == other)
        p = epsilon / 3
        assert abs(share - p) < 3.5 * np.sqrt(p * (1 - p) / n)


def test_random_actions_are_independent_over_time_and_agents():
    actions = data_of("random").actions
    for same in (actions[:, 1:] == actions[:, :-1], actions[1:] == actions[:-1]):
        assert abs(same.mean() - 1 / 3) < 3.5 * np.sqrt(2 / 9 / same.size)


def test_continuous_random_actions_fill_their_bounds(key):
    spec = base.EnvSpec("arm", ("x",), (), 0, (-1.0, 2.0), (1.0, 10.0), 5, 1.0)
    draw = jax.jit(jax.vmap(lambda key: collect.random_action(key, spec)))
    actions = np.sort((np.asarray(draw(jax.random.split(key, 2000))) - [-1, 2]) / [2, 8], axis=0)
    assert actions.shape == (2000, 2)
    # Kolmogorov and Smirnov's distance from U(0, 1); 1.63 / sqrt(n) is its 1 % point.
    assert np.abs(actions - np.linspace(0, 1, 2000)[:, None]).max() < 1.63 / np.sqrt(2000)
    assert 0 <= actions.min() <= actions.max() <= 1


def collect_cars(agents, key):
    """Random and greedy-to-the-right trajectories of MountainCars, one lane for each agent."""
    env = envs.make("mountain_car")
    gravity = jnp.linspace(0.0001, 0.0035, 6)
    params = jax.vmap(env.params)(gravity[:, None])
    obs = jnp.stack([jnp.linspace(-0.6, 0.3, 6), jnp.linspace(0.0, 0.05, 6)], axis=1)[agents]
    found = collect.collect(
        key, true_dynamics(env), params, env, greedy_act, jnp.full(6, 9.0)[agents],
        jnp.asarray(0.3), agents, obs, 60,
    )  # fmt: skip
    return env, params, found


def test_stored_actions_replay_to_the_stored_states():
    env, params, found = collect_cars(jnp.arange(6), jax.random.key(2))

    @jax.jit
    @jax.vmap
    def replay(own, obs, actions):
        def step(state, action):
            state = env.step(jax.random.key(0), state, action, own)
            return state, env.observe(state, own)

        return jax.lax.scan(step, env.state_from_obs(obs, own), actions)[1]

    found = jax.tree.map(np.asarray, found)
    paths = np.asarray(replay(params, found.obs[:, 0], found.actions))
    assert 0 < found.terminated.any(axis=1).sum() < 6
    for agent, steps in enumerate(found.mask.sum(axis=1)):
        stored = found.obs[agent, 1 : steps + 1]
        np.testing.assert_allclose(stored, paths[agent, :steps], rtol=0, atol=1e-5)
        arrived = (stored[:, 0] >= 0.5) & (stored[:, 1] >= 0)
        np.testing.assert_array_equal(found.terminated[agent, :steps], arrived)
        np.testing.assert_array_equal(found.rewards[agent, :steps], arrived - 1.0)
        assert arrived[-1] or steps == 60


def test_a_lane_does_not_depend_on_the_others():
    key = jax.random.key(3)
    _, _, together = collect_cars(jnp.arange(6), key)
    order = jnp.asarray([4, 1, 3])
    _, _, some = collect_cars(order, key)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[order]), some, together)
    _, _, others = collect_cars(order, jax.random.key(4))
    assert np.any(np.asarray(others.actions != some.actions))


def test_initial_observations_are_those_of_each_lane_and_differ_by_it():
    params = line_params(GAINS[:4])
    key, env = jax.random.key(6), line_env()
    obs = collect.initial_obs(key, env, params, jnp.asarray([7, 1, 3, 1]))
    for row, lane in enumerate([7, 1, 3, 1]):
        own = jax.tree.map(lambda leaf: leaf[0], params)
        expected = env.reset(jax.random.fold_in(key, lane), own)
        np.testing.assert_allclose(obs[row], expected, rtol=1e-6)
    assert len(np.unique(np.asarray(obs[:3, 0]))) == 3


def test_a_dataset_has_a_trajectory_of_every_agent_and_depends_on_its_key():
    first, again, other = data_of("random"), data_of("random"), data_of("random", seed=1)
    assert first.obs.shape == (40, 31, 2)
    assert first.actions.dtype == np.int32
    assert bool(first.mask.all())
    assert not first.terminated.any()
    assert len(np.unique(first.obs[:, 0, 0])) == 40
    np.testing.assert_array_equal(first.obs, again.obs)
    assert np.all(first.obs[:, 0, 0] != other.obs[:, 0, 0])
    # Rewards and states are those of the same step.
    position, push = first.obs[..., 0], first.actions
    expected = position[:, 1:] - 0.5 * position[:, :-1] + 0.1 * push
    np.testing.assert_allclose(first.rewards, expected, rtol=1e-4, atol=1e-5)
