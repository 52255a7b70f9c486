"""A true environment seen as a model is the environment itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from persim_jax.models.true_env import true_dynamics
from tests.toys import line_env, line_params

COVARIATES = {
    "mountain_car": np.float32([[0.0001], [0.0025], [0.0035]]),
    "cart_pole": np.float32([[2.0, 0.5], [10.0, 0.85], [18.0, 0.15]]),
}


@pytest.mark.parametrize("name", COVARIATES)
def test_a_bound_model_follows_the_environment_of_its_agent(name):
    env = envs.make(name)
    params = jax.vmap(env.params)(COVARIATES[name])
    model = true_dynamics(env)
    actions = np.random.default_rng(0).integers(env.spec.num_actions, size=12).astype(np.int32)

    @jax.jit
    def as_model(agent, obs):
        bound = model.bind(params, agent, None)
        state, path = model.start(bound, obs), [model.observe(model.start(bound, obs))]
        for action in model.encode_actions(bound, actions):
            state = model.step(jax.random.key(1), bound, state, action)
            path.append(model.observe(state))
        return jnp.stack(path)

    @jax.jit
    def as_env(covariates, obs):
        own = env.params(covariates)
        state, path = env.state_from_obs(obs, own), [obs]
        for action in actions:
            state = env.step(jax.random.key(1), state, action, own)
            path.append(env.observe(state, own))
        return jnp.stack(path)

    obs = jnp.asarray([0.01, 0.02, 0.03, -0.01][: env.spec.obs_size])
    paths = []
    for agent, covariates in enumerate(COVARIATES[name]):
        path = as_model(jnp.asarray(agent), obs)
        assert path.shape == (13, 1, env.spec.obs_size)
        np.testing.assert_allclose(path[:, 0], as_env(covariates, obs), rtol=1e-6, atol=1e-7)
        paths.append(np.asarray(path))
    assert np.abs(paths[0] - paths[1]).max() > 1e-3  # agents are told apart


def test_noise_comes_from_the_key_of_the_step():
    env = line_env()
    model, params = true_dynamics(env), line_params([1.0, 2.0], noise=1.0)
    bound = model.bind(params, jnp.asarray(1), None)
    state = model.start(bound, jnp.zeros(2))
    steps = [
        model.step(jax.random.key(seed), bound, state, jnp.asarray(2)).obs[0] for seed in (0, 0, 1)
    ]
    noise = jax.random.normal(jax.random.key(0))
    np.testing.assert_allclose(steps[0], 2.0 + noise, rtol=1e-6)
    assert steps[0] == steps[1] != steps[2]


def test_there_is_nothing_to_train():
    model = true_dynamics(line_env())
    for function in (model.init, model.fit_normalizer, model.loss):
        with pytest.raises(TypeError, match="no weights"):
            function(jax.random.key(0))


def test_one_environment_has_one_model():
    assert true_dynamics(envs.make("cart_pole")) is true_dynamics(envs.make("cart_pole"))
    assert true_dynamics(envs.make("cart_pole")).num_members == 1
    assert true_dynamics(line_env()) is not true_dynamics(line_env(num_actions=2))
