"""What every environment promises, whatever its physics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import covariates


@pytest.fixture(params=envs.ENV_NAMES)
def env(request):
    return envs.make(request.param)


def actions(env, value, num_agents, dtype=jnp.float32):
    """Returns the same action for each agent: `value [N]`, or `[N, A]` where it is continuous."""
    if env.spec.discrete:
        return jnp.full(num_agents, value, jnp.int32)
    return jnp.full((num_agents, env.spec.action_size), value, dtype)


def reset_agents(env, num_agents=500):
    """Returns the params and the initial states of many agents."""
    agents = covariates.make_agents(env.spec.name, num_agents)
    params = jax.vmap(env.params)(agents.covariates)
    keys = jax.random.split(jax.random.key(0), num_agents)
    return params, jax.jit(jax.vmap(env.reset))(keys, params)


def test_make_returns_the_same_hashable_record(env):
    assert env.spec.name in envs.ENV_NAMES
    assert envs.make(env.spec.name) is env
    assert hash(env) == hash(envs.make(env.spec.name))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"'pendulum'.*mountain_car, cart_pole, half_cheetah"):
        envs.make("pendulum")


@pytest.mark.parametrize("name", ["mountain_car", "cart_pole"])
def test_where_there_is_no_choice_of_backends_only_auto_is_one(name):
    assert envs.make(name, "auto") is envs.make(name, None) is envs.make(name)
    assert envs.make(name).spec.backend == ""
    with pytest.raises(ValueError, match=rf"{name} has no backends.*'mjx'.*'auto'"):
        envs.make(name, "mjx")


def test_spec_agrees_with_the_covariate_table(env):
    assert env.spec.covariate_names == covariates.get(env.spec.name).names
    assert len(env.spec.action_low) == len(env.spec.action_high)
    assert env.spec.action_size == (env.spec.num_actions or len(env.spec.action_low))
    assert env.spec.discrete == (not env.spec.action_low)


def test_whole_numbers_are_covariates_too_and_leave_the_other_constants_alone(env):
    whole = [1] * len(env.spec.covariate_names)
    for values in (whole, np.asarray(whole), jnp.asarray(whole)):
        found, expected = env.params(values), env.params(np.float32(whole))
        assert jax.tree.map(float, found) == jax.tree.map(float, expected)
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}


def test_covariates_of_the_wrong_shape_are_refused(env):
    size = len(env.spec.covariate_names)
    with pytest.raises(ValueError, match=rf"\({size},\), not \(7, {size}\).*vmap"):
        env.params(jnp.ones((7, size)))


def test_500_agents_in_one_vmap_give_500_next_states(env):
    params, _ = reset_agents(env)
    # One common state, so that nothing but the physics can differ.
    obs = jnp.full((500, env.spec.obs_size), 0.03)
    keys = jax.random.split(jax.random.key(1), 500)
    states = jax.vmap(env.state_from_obs)(obs, params)
    stepped = jax.vmap(env.step)(keys, states, actions(env, 0, 500), params)
    next_obs = np.asarray(jax.vmap(env.observe)(stepped, params))
    assert next_obs.shape == (500, env.spec.obs_size)
    assert len(np.unique(next_obs, axis=0)) == 500


def test_state_from_obs_is_the_inverse_of_observe(env):
    params, states = reset_agents(env, 50)
    back = jax.vmap(env.state_from_obs)(jax.vmap(env.observe)(states, params), params)
    assert jax.tree.structure(back) == jax.tree.structure(states)
    jax.tree.map(np.testing.assert_array_equal, back, states)


def test_a_state_from_obs_continues_as_the_state_itself(env):
    params, states = reset_agents(env, 20)
    step = jax.vmap(env.step)
    keys, action = jax.random.split(jax.random.key(2), 20), actions(env, 1, 20)
    for _ in range(5):
        states = step(keys, states, action, params)
    rebuilt = jax.vmap(env.state_from_obs)(jax.vmap(env.observe)(states, params), params)
    jax.tree.map(
        np.testing.assert_array_equal,
        step(keys, rebuilt, action, params),
        step(keys, states, action, params),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("x64")
def test_dtypes_are_those_of_the_inputs_and_none_is_weak(env, dtype):
    params = env.params(np.full(len(env.spec.covariate_names), 0.5, dtype))
    state = env.reset(jax.random.key(0), params)
    (action,) = actions(env, 1, 1, dtype)
    stepped = env.step(jax.random.key(0), state, action, params)
    obs = env.observe(stepped, params)
    reward = env.reward(obs, action, obs)
    bonus = env.planning_bonus(obs[None])
    for leaf in jax.tree.leaves((params, state, stepped, obs, reward, bonus)):
        assert leaf.dtype == dtype
        assert not leaf.weak_type
    assert env.terminated(obs).dtype == jnp.bool_
    assert reward.shape == bonus.shape == env.terminated(obs).shape == ()


def test_a_second_call_compiles_nothing(env):
    traces = []

    @jax.jit
    def step(key, state, action, params):
        traces.append(env.spec.name)
        return jax.vmap(env.step)(key, state, action, params)

    params, state = reset_agents(env, 8)
    keys = jax.random.split(jax.random.key(3), 8)
    for action in (0, 1):
        state = step(keys, state, actions(env, action, 8), params)
    other = covariates.make_agents(env.spec.name, 8, seed=1).covariates
    step(keys, state, actions(env, 0, 8), jax.vmap(env.params)(other))
    assert traces == [env.spec.name]


def test_the_same_key_draws_the_same_state_and_another_key_another(env):
    params = env.params(jnp.full(len(env.spec.covariate_names), 0.5))
    draws = [env.observe(env.reset(jax.random.key(seed), params), params) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
