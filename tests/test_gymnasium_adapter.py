"""One agent as a `gymnasium.Env`: against gymnasium itself, and for a toy ensemble."""

import dataclasses
from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.classic_control import cartpole, mountain_car
from gymnasium.utils.env_checker import check_env

import envs
from envs import base
from persim_jax.gymnasium_adapter import GymnasiumEnv
from persim_jax.models.base import DynamicsModel, ModelParams
from persim_jax.models.factor import FactorConfig, factor_model
from persim_jax.rollout import Policy, unroll
from persim_jax.types import Transitions

GAINS = np.float32([1.0, 3.0])


class ToyTask(NamedTuple):
    spec: base.EnvSpec
    reward: object
    terminated: object
    planning_bonus: object


def make_toy(max_steps=4):
    """Two members that add `bound * gain * action` to obs [1]; ends where obs exceeds 100."""
    spec = base.EnvSpec("toy", ("sum",), (), 0, (-2.0,), (2.0,), max_steps, 1.0)
    task = ToyTask(
        spec=spec,
        reward=lambda obs, action, next_obs: next_obs[0] + 1000.0 * obs[0] + action[0],
        terminated=lambda obs: obs[0] > 100.0,
        planning_bonus=lambda obs: jnp.zeros(()),
    )
    model = DynamicsModel(
        num_members=2,
        init=None,
        fit_normalizer=None,
        loss=None,
        bind=None,
        encode_actions=lambda bound, actions: bound * actions,
        start=lambda bound, obs: jnp.stack([obs, obs]),
        step=lambda key, bound, state, encoded: state + jnp.asarray(GAINS)[:, None] * encoded[None],
        observe=lambda state: state,
    )
    return model, task


def make_toy_env(bound=10.0, **kwargs):
    model, task = make_toy(**kwargs)
    return GymnasiumEnv(model, jnp.asarray(bound), task, lambda key: jax.random.uniform(key, (1,)))


@pytest.mark.parametrize(
    ("name", "covariates"), [("mountain_car", [0.0025]), ("cart_pole", [10.0, 0.5])]
)
def test_true_environments_pass_the_checker_without_warnings(name, covariates):
    check_env(GymnasiumEnv.from_environment(envs.make(name), np.float32(covariates)))


def test_a_learned_simulator_passes_the_checker_without_warnings():
    model, task = make_toy()
    spec = dataclasses.replace(task.spec, action_low=(-1.0,), action_high=(1.0,))
    reset = lambda key: jax.random.uniform(key, (1,))  # noqa: E731
    check_env(GymnasiumEnv(model, jnp.asarray(1.0), task._replace(spec=spec), reset))


def test_the_spec_makes_the_same_environment_again():
    env = GymnasiumEnv.from_environment(envs.make("cart_pole"), np.float32([3.0, 0.2]))
    again = gymnasium.make(env.spec)
    env.reset(seed=2)
    again.reset(seed=2)
    for _ in range(5):
        np.testing.assert_array_equal(env.step(1)[0], again.step(1)[0])


@pytest.mark.parametrize("gravity", [0.0004, 0.0025])
def test_an_episode_of_mountain_car_is_gymnasiums(gravity):
    env = GymnasiumEnv.from_environment(envs.make("mountain_car"), np.float32([gravity]))
    reference = mountain_car.MountainCarEnv()
    reference.gravity = gravity
    obs, _ = env.reset(seed=0)
    reference.reset(seed=0)
    reference.state = tuple(float(x) for x in obs)
    for _ in range(80):
        # Accelerating along the velocity reaches the goal from anywhere, soon with little gravity.
        action = 2 if obs[1] >= 0 else 0
        obs, reward, terminated, truncated, _ = env.step(action)
        expected, _, expected_end, _, _ = reference.step(action)
        np.testing.assert_allclose(obs, expected, rtol=0, atol=2e-5)
        assert terminated == expected_end
        assert reward == (0.0 if terminated else -1.0)
        assert not truncated
        if terminated:
            break
    assert terminated == (gravity < 0.001)


def test_an_episode_of_cart_pole_is_gymnasiums():
    env = GymnasiumEnv.from_environment(envs.make("cart_pole"), np.float32([4.0, 0.7]))
    reference = cartpole.CartPoleEnv()
    reference.force_mag, reference.length = 4.0, 0.7
    reference.polemass_length = reference.masspole * 0.7
    obs, _ = env.reset(seed=5)
    reference.reset(seed=0)
    reference.state = np.asarray(obs, np.float64)
    terminated, rng = False, np.random.default_rng(0)
    while not terminated:
        action = int(rng.integers(2))
        obs, reward, terminated, _, _ = env.step(action)
        expected, expected_reward, expected_end, _, _ = reference.step(action)
        np.testing.assert_allclose(obs, expected, rtol=1e-4, atol=1e-5)
        assert (reward, terminated) == (expected_reward, expected_end)


def test_the_time_limit_truncates_and_is_no_termination():
    env = GymnasiumEnv.from_environment(envs.make("mountain_car"), np.float32([0.0035]))
    env.reset(seed=0)
    for step in range(1, 501):
        _, _, terminated, truncated, _ = env.step(1)
        assert not terminated
        assert truncated == (step == 500)


def test_the_user_sees_the_mean_while_members_go_their_own_way():
    env = make_toy_env()
    start, _ = env.reset(seed=1)
    state = np.repeat(start[None], 2, axis=0)
    mean = start
    for action in (0.5, -1.0, 0.25):
        obs, reward, terminated, _, info = env.step(np.float32([action]))
        # bound 10 times gains 1 and 3.
        state = state + 10 * action * GAINS[:, None]
        np.testing.assert_allclose(info["member_obs"], state, rtol=1e-5)
        np.testing.assert_allclose(obs, state.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(reward, obs[0] + 1000 * mean[0] + action, rtol=1e-5)
        assert not terminated
        mean = obs


def test_a_factor_ensemble_passes_the_checker_and_goes_where_a_rollout_goes(key):
    env = envs.make("cart_pole")
    model = factor_model(FactorConfig(3, 4, 2, True, rank=2, state_features=(8,), ensemble_size=2))
    obs = jax.random.uniform(key, (20, 4), minval=-0.05, maxval=0.05)
    data = Transitions(
        agent=jnp.arange(20) % 3,
        obs=obs,
        actions=jnp.arange(20) % 2,
        rewards=jnp.ones(20),
        next_obs=obs + 0.01,
        terminated=jnp.zeros(20, bool),
    )
    params = ModelParams(model.init(key), model.fit_normalizer(data))
    bound = model.bind(params, jnp.asarray(1), None)
    simulator = GymnasiumEnv(model, bound, env, lambda key: obs[0])
    check_env(simulator)

    always_right = Policy(init=lambda: (), act=lambda key, state, obs: (jnp.asarray(1), state))
    expected = unroll(key, model, bound, env, always_right, obs[0], max_steps=8)
    simulator.reset()
    for next_obs, reward in zip(expected.obs[1:], expected.rewards, strict=True):
        actual = simulator.step(1)
        np.testing.assert_allclose(actual[0], next_obs, rtol=1e-5, atol=1e-6)
        assert actual[1] == reward
        if actual[2]:
            break


def test_a_termination_of_the_mean_ends_the_episode_even_at_the_limit():
    env = make_toy_env(bound=100.0, max_steps=1)
    env.reset(seed=0)
    _, _, terminated, truncated, _ = env.step(np.float32([2.0]))
    assert (terminated, truncated) == (True, False)


def test_seeds_repeat_and_episodes_differ():
    env, other = make_toy_env(), make_toy_env()
    first = [env.reset(seed=3)[0], env.reset()[0], env.reset()[0]]
    second = [other.reset(seed=3)[0], other.reset()[0], other.reset()[0]]
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first)) == 3
    assert env.reset(seed=4)[0] != first[0]


def test_steps_of_a_random_model_use_fresh_keys_that_the_seed_repeats():
    model, task = make_toy(max_steps=100)
    noisy = model._replace(
        step=lambda key, bound, state, encoded: state + jax.random.normal(key, (2, 1))
    )
    env = GymnasiumEnv(noisy, jnp.asarray(1.0), task, lambda key: jnp.zeros(1))

    def episode(seed):
        env.reset(seed=seed)
        states = [env.step(np.zeros(1))[4]["member_obs"] for _ in range(20)]
        return np.diff(np.concatenate(states, axis=1), axis=1)

    first = episode(0)
    assert len(np.unique(first)) == first.size
    np.testing.assert_array_equal(first, episode(0))
    assert not np.array_equal(first, episode(1))


def test_steps_outside_an_episode_are_refused():
    env = make_toy_env(max_steps=1)
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        env.step(np.zeros(1))
    env.reset(seed=0)
    env.step(np.zeros(1))
    with pytest.raises(gymnasium.error.ResetNeeded, match="reset"):
        env.step(np.zeros(1))


def test_a_state_that_is_no_number_is_told_and_earns_nothing():
    model, task = make_toy(max_steps=9)
    # One for each step, and an end that no comparison with NaN comes to.
    task = task._replace(reward=lambda obs, action, next_obs: jnp.ones(()))
    squares = model._replace(
        step=lambda key, bound, state, encoded: 1e15 * state * state + encoded[None]
    )
    task = task._replace(terminated=lambda obs: obs[0] < -1.0)
    env = GymnasiumEnv(squares, jnp.asarray(1.0), task, lambda key: jnp.ones(1))
    env.reset(seed=0)
    assert env.step(np.zeros(1))[1] == 1.0  # 1e15, then more than float32 has
    with pytest.raises(FloatingPointError, match=r"the observation is \[inf\] in step 2: .*"):
        env.step(np.zeros(1))


@pytest.mark.parametrize(
    ("low", "high"), [(-354.0286254, 378.4718017), (-967.6399536, 969.1373291), (-42.5551, -6.8010)]
)
def test_the_ends_of_rescaled_actions_are_the_bounds(low, high):
    model, task = make_toy()
    spec = dataclasses.replace(task.spec, action_low=(low,), action_high=(high,))
    env = GymnasiumEnv(model, jnp.asarray(1.0), task._replace(spec=spec), lambda key: jnp.zeros(1))
    scaled = gymnasium.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
    for end, bound in ((-1, low), (1, high)):
        scaled.reset(seed=0)
        # Its members add once and three times the action, in the mean twice.
        found = scaled.step(np.float32([end]))[0]
        np.testing.assert_array_equal(found, np.float32([2 * np.float32(bound)]))
    env.reset(seed=0)
    with pytest.raises(gymnasium.error.InvalidAction, match="not in Box"):
        env.step(np.float32([high + 1e-3 * abs(high)]))


@pytest.mark.parametrize("action", [[2.5], [np.nan], [0.0, 0.0]])
def test_actions_outside_the_box_are_refused(action):
    env = make_toy_env()
    env.reset(seed=0)
    with pytest.raises(gymnasium.error.InvalidAction, match="not in Box"):
        env.step(np.asarray(action))


@pytest.mark.parametrize("action", [3, -1, 0.5])
def test_actions_that_do_not_exist_are_refused(action):
    env = GymnasiumEnv.from_environment(envs.make("mountain_car"), np.float32([0.001]))
    env.reset(seed=0)
    with pytest.raises(gymnasium.error.InvalidAction, match="not in Discrete"):
        env.step(action)


def test_agents_of_one_model_share_one_compilation():
    traces = []
    model, task = make_toy(max_steps=100)

    def step(key, bound, state, encoded):
        traces.append(None)
        return model.step(key, bound, state, encoded)

    counted = model._replace(step=step)
    for bound in (1.0, 2.0):
        env = GymnasiumEnv(counted, jnp.asarray(bound), task, lambda key: jnp.zeros(1))
        for _ in range(2):
            env.reset()
            env.step(np.zeros(1))
            env.step(np.ones(1))
    assert len(traces) == 1
