"""Every sampler of continuous actions finds known optima, under one contract."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.methods.true_env import TRUE_ENV
from persim_jax.models.true_env import true_dynamics
from persim_jax.planning.mpc import PlannerConfig, make_sampler, mpc_policy
from persim_jax.rollout import unroll
from tests.planning.continuous import EFFORT, best_plan, plane_env, pulls_model
from tests.toys import cache_size

HORIZON = 4
ENV = plane_env()
ONE = {"gain": jnp.asarray(1.0)}
NAMES = ("cem", "icem", "mppi")


def config_of(name, **changes):
    """Enough rounds and candidates to come close; the noise of MPPI does not shrink by itself."""
    std = (0.1, 0.1) if name == "mppi" else (0.3, 0.6)
    fields = {"num_candidates": 500, "horizon": HORIZON, "num_rounds": 15, "init_std": std}
    return PlannerConfig(name, **fields | changes)


@functools.partial(jax.jit, static_argnames="config")
def decide(config, keys, obs):
    """First decisions of an episode and the planner's state after them, for each key."""
    policy = mpc_policy(true_dynamics(ENV), ONE, ENV, config)
    return jax.vmap(lambda key: policy.act(key, policy.init(), obs))(keys)


def earned(plan, obs):
    total, obs = 0.0, np.asarray(obs, np.float64)
    for action in np.asarray(plan, np.float64):
        obs = obs + action
        total -= np.sum(obs**2) + EFFORT * np.sum(action**2)
    return total


@pytest.mark.parametrize("name", NAMES)
def test_a_linear_quadratic_optimum_is_found(key, name):
    obs = np.float32([0.4, -0.3])
    best, value = best_plan(obs, HORIZON)
    assert earned(best, obs) == pytest.approx(value)
    actions, state = decide(config_of(name), jax.random.split(key, 8), obs)
    np.testing.assert_allclose(actions, np.broadcast_to(best[0], (8, 2)), atol=0.05)
    # The rest of the plan is what the next decision starts from; all of it earns nearly the best.
    for action, mean in zip(np.asarray(actions), np.asarray(state.mean), strict=True):
        plan = np.concatenate([action[None], mean[:-1]])
        assert value * 1.1 < earned(plan, obs) <= value
    assert earned(np.zeros((HORIZON, 2)), obs) < 5 * value


@pytest.mark.parametrize("name", NAMES)
def test_an_optimum_at_the_bounds_is_found(key, name):
    # So far away that every step goes as far as the bounds let it: -1 and 1/2.
    changes = {"init_std": (0.3, 0.6)}
    actions, _ = decide(config_of(name, **changes), jax.random.split(key, 8), np.float32([9, -9]))
    np.testing.assert_allclose(actions, np.broadcast_to([-1.0, 0.5], (8, 2)), atol=0.15)
    assert (np.asarray(actions) >= -1).all()
    assert (np.asarray(actions[:, 1]) <= 0.5).all()


def quick(name):
    """Settings of whole episodes; noise wide enough for MPPI to get to the optimum."""
    fields = {"num_candidates": 100, "num_elites": 20, "num_rounds": 8, "chunk_size": 50}
    return config_of(name, **fields, init_std=(0.3, 0.6))


@functools.partial(jax.jit, static_argnames=("model", "config"))
def episode(model, config, bound, key, obs):
    policy = mpc_policy(model, bound, ENV, config)
    return unroll(key, model, bound, ENV, policy, obs, 6)


@pytest.mark.parametrize("name", NAMES)
def test_the_true_environment_and_a_model_of_it_are_planned_in_by_the_same_call(key, name):
    config, obs = quick(name), jnp.asarray([0.8, -0.6])
    true = episode(true_dynamics(ENV), config, ONE, key, obs)
    model = episode(pulls_model(1), config, jnp.ones(1), key, obs)
    np.testing.assert_allclose(true.actions, model.actions, atol=1e-5)
    # Driven to 0, nearly three quarters of the way in each step, and kept there.
    np.testing.assert_allclose(true.actions[0], best_plan(obs, HORIZON)[0][0], atol=0.25)
    np.testing.assert_allclose(true.obs[3:], 0.0, atol=0.25)


def test_true_env_as_a_method_plans_for_each_agent_in_its_own_physics(key):
    # An agent of gain -1 takes the opposite of the best action, one of gain 1/2 a longer one.
    gains = {"gain": jnp.asarray([1.0, -1.0, 0.5])}
    fitted = TRUE_ENV.fit(key, None, ENV, gains, None, None)

    @jax.jit
    @jax.vmap
    def act(agent):
        policy = TRUE_ENV.policy(fitted, agent, config_of("cem"))
        return policy.act(key, policy.init(), jnp.asarray([0.4, -0.3]))[0]

    best = best_plan([0.4, -0.3], HORIZON)[0][0]
    actions = np.asarray(act(jnp.arange(3)))
    np.testing.assert_allclose(actions[:2], [best, -best], atol=0.05)
    assert (np.abs(actions[2]) > np.abs(best) + 0.02).all()


@pytest.mark.parametrize("name", NAMES)
def test_episodes_side_by_side_are_the_episodes_alone_and_keys_decide(key, name):
    config, keys = quick(name), jax.random.split(key, 3)
    obs = jnp.asarray([[0.8, -0.6], [0.1, 0.2], [-0.5, 0.4]])
    model = true_dynamics(ENV)
    lanes = jax.jit(jax.vmap(functools.partial(episode, model, config, ONE)))(keys, obs)
    for lane in range(3):
        alone = episode(model, config, ONE, keys[lane], obs[lane])
        np.testing.assert_allclose(lanes.actions[lane], alone.actions, atol=1e-4)
    again = episode(model, config, ONE, keys[0], obs[0])
    alone = episode(model, config, ONE, keys[0], obs[0])
    np.testing.assert_array_equal(again.actions, alone.actions)
    other = episode(model, config, ONE, keys[1], obs[0])
    assert (np.asarray(other.actions) != alone.actions).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_keeps_the_structure_of_its_state(key, name):
    config = config_of(name, num_candidates=6, num_elites=3, num_rounds=2)
    spec, sampler = ENV.spec, make_sampler(ENV.spec, config)
    assert make_sampler(plane_env().spec, config) is sampler

    @jax.jit
    def decision(key, state):
        for _ in range(sampler.num_rounds):
            actions, state = sampler.sample(key, state)
            state = sampler.update(state, actions, actions.sum(axis=(1, 2)))
        return sampler.best(state), sampler.shift(state)

    state = first = sampler.init(spec)
    for k in jax.random.split(key, 3):
        action, state = decision(k, state)
        assert action.shape == (2,)
        assert action.dtype == jnp.float32
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)  # noqa: E731
    assert shapes(state) == shapes(first)
    assert cache_size(decision) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_leaves_the_finite_numbers_everywhere_still_gets_an_action(key, name):
    lost = ENV._replace(reward=lambda obs, action, next_obs: obs[0] * jnp.nan)
    config = config_of(name, num_candidates=20, num_elites=5, num_rounds=3)
    policy = mpc_policy(true_dynamics(ENV), ONE, lost, config)
    action, state = jax.jit(policy.act)(key, policy.init(), jnp.zeros(2))
    assert np.isfinite(action).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
