"""What every model, sampler and environment promises: jit, vmap, precision, one compilation."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import half_cheetah
from persim_jax.models.base import DynamicsModel
from persim_jax.models.cadm import cadm_model
from persim_jax.models.factor import FactorConfig, factor_model
from persim_jax.models.true_env import true_dynamics
from persim_jax.planning.mpc import PlannerConfig, make_sampler
from persim_jax.types import Environment, Transitions
from tests.models.cadms import random_params, small
from tests.toys import cache_size, factor_params

LANES = 4


class Case(NamedTuple):
    """A model, its params for three agents, and what it is asked for."""

    model: DynamicsModel
    params: object
    obs_size: int
    num_actions: int
    action_size: int


def true_case(name, covariates):
    env = envs.make(name)
    params = jax.vmap(env.params)(np.float32(covariates))
    return Case(true_dynamics(env), params, env.spec.obs_size, env.spec.num_actions, 0)


def factor_case(discrete):
    config = FactorConfig(
        num_agents=3, obs_size=3, action_size=2, discrete=discrete, rank=2, state_features=(5,),
        action_features=() if discrete else (4,), skip=True, ensemble_size=2, agent_penalty=0.1,
    )  # fmt: skip
    return Case(factor_model(config), factor_params(config), 3, 2 if discrete else 0, 2)


def window_case():
    """Two lags of two coordinates, two discrete actions and an input: 2 * 2 + 3 numbers."""
    config = FactorConfig(
        num_agents=3, obs_size=7, action_size=2, discrete=True, rank=2, state_features=(5,),
        skip=True, ensemble_size=2, num_inputs=1, lags=2, normalize_actions=True,
    )  # fmt: skip
    # An action with its input is a vector.
    return Case(factor_model(config), factor_params(config), 7, 0, 3)


def cadm_case():
    """Two noisy members with three particles each."""
    config = small(noisy=True, particles=3, skip=True)
    return Case(cadm_model(config), random_params(config), 3, 2, 2)


MODELS = {
    "mountain_car": lambda: true_case("mountain_car", [[0.0001], [0.001], [0.0035]]),
    "cart_pole": lambda: true_case("cart_pole", [[2.0, 0.5], [10.0, 0.2], [18.0, 0.8]]),
    "factor_discrete": lambda: factor_case(True),
    "factor_continuous": lambda: factor_case(False),
    "factor_window": window_case,
    "cadm": cadm_case,
}


def queries(case, dtype=np.float32, seed=0):
    """Agents, observations and actions of `LANES` lanes."""
    rng = np.random.default_rng(seed)
    actions = (
        rng.integers(case.num_actions, size=LANES).astype(np.int32)
        if case.num_actions
        else rng.uniform(-1, 1, (LANES, case.action_size)).astype(dtype)
    )
    obs = rng.uniform(-0.05, 0.05, (LANES, case.obs_size)).astype(dtype)
    return np.int32([0, 2, 1, 2]), obs, actions


def one_step(model, params, agent, obs, action):
    bound = model.bind(params, agent, None)
    state = model.start(bound, obs)
    state = model.step(jax.random.key(1), bound, state, model.encode_actions(bound, action))
    return model.observe(state)


stepper = functools.partial(jax.jit, static_argnums=0)(one_step)
lanes = functools.partial(jax.jit, static_argnums=0)(
    lambda model, params, *query: jax.vmap(functools.partial(one_step, model, params))(*query)
)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_under_jit_and_vmap_is_the_model(name):
    case = MODELS[name]()
    agents, obs, actions = queries(case)
    together = lanes(case.model, case.params, agents, obs, actions)
    assert together.shape == (LANES, case.model.num_paths, case.obs_size)
    assert together.dtype == jnp.float32
    for lane in (0, 3):
        query = (jnp.asarray(x[lane]) for x in (agents, obs, actions))
        plain = one_step(case.model, case.params, *query)
        np.testing.assert_allclose(together[lane], plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_second_call_compiles_nothing_and_neither_does_a_model_made_again(name):
    case, again = MODELS[name](), MODELS[name]()
    assert again.model is case.model
    lanes(case.model, case.params, *queries(case))
    before = cache_size(lanes)
    lanes(again.model, again.params, *queries(case, seed=1))
    assert cache_size(lanes) == before


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MODELS)
def test_double_precision_stays_double(name):
    with jax.enable_x64(False):  # flax makes float32 weights
        case = MODELS[name]()
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), case.params)
    query = (jnp.asarray(x[0]) for x in queries(case, np.float64))
    assert stepper(case.model, wide, *query).dtype == jnp.float64


@pytest.mark.parametrize("name", ["factor_discrete", "factor_continuous", "factor_window"])
def test_a_loss_has_a_value_and_a_gradient_for_each_member(name):
    case = MODELS[name]()
    agents, obs, actions = (np.stack([x, x]) for x in queries(case))
    batch = Transitions(
        agent=agents, obs=obs, actions=actions, rewards=None, next_obs=obs * 1.1, terminated=None
    )

    @jax.jit
    def loss_and_slope(weights):
        total = lambda w: case.model.loss(  # noqa: E731
            case.params._replace(weights=w), batch, jax.random.key(0)
        )[0].sum()
        losses, _ = case.model.loss(case.params._replace(weights=weights), batch, jax.random.key(0))
        return losses, jax.jvp(total, (weights,), (weights,))[1], jax.grad(total)(weights)

    weights = case.params.weights
    losses, slope, gradient = loss_and_slope(weights)
    assert losses.shape == (2,)
    assert losses.dtype == jnp.float32
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, weights)
    # Forward and reverse differentiation agree along the weights themselves.
    parts = jax.tree.map(lambda g, w: jnp.sum(g * w), gradient, weights)
    np.testing.assert_allclose(slope, sum(jax.tree.leaves(parts)), rtol=1e-3)
    away = loss_and_slope(jax.tree.map(lambda w: w * 1.001, weights))[0].sum()
    np.testing.assert_allclose((away - losses.sum()) / 0.001, slope, rtol=0.05)


@pytest.mark.parametrize("name", envs.ENV_NAMES)
def test_an_environment_has_what_the_core_asks_of_it(name):
    env: Environment = envs.make(name)
    assert hash(env) == hash(envs.make(name))
    params = env.params(jnp.asarray({1: [0.001], 2: [10.0, 0.5]}[len(env.spec.covariate_names)]))
    obs = env.observe(env.reset(jax.random.key(0), params), params)
    assert obs.shape == (env.spec.obs_size,)
    assert obs.dtype == jnp.float32
    np.testing.assert_array_equal(env.observe(env.state_from_obs(obs, params), params), obs)
    spec = env.spec
    action = jnp.zeros((), jnp.int32) if spec.discrete else jnp.zeros(spec.action_size)
    for number in (env.reward(obs, action, obs), env.planning_bonus(obs[None])):
        assert number.shape == ()
        assert number.dtype == jnp.float32
    assert env.terminated(obs).dtype == jnp.bool_


SAMPLERS = ("random_shooting", "cem", "icem", "mppi")


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_keeps_the_structure_of_its_state(name):
    spec = envs.make("mountain_car").spec if name == "random_shooting" else half_cheetah.SPEC
    config = PlannerConfig(name, num_candidates=6, horizon=4, num_elites=3)
    sampler = make_sampler(spec, config)
    assert make_sampler(spec, config) is sampler

    @jax.jit
    def decision(key, state):
        actions, state = sampler.sample(key, state)
        scores = actions.reshape(6, -1).sum(axis=1).astype(jnp.float32)
        state = sampler.update(state, actions, scores)
        return sampler.best(state), sampler.shift(state)

    state = first = sampler.init(spec)
    keys = jax.random.split(jax.random.key(0), 3)
    for key in keys:
        action, state = decision(key, state)
        assert action.shape == (() if spec.discrete else (spec.action_size,))
        assert action.dtype == (jnp.int32 if spec.discrete else jnp.float32)
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)  # noqa: E731
    assert shapes(state) == shapes(first)
    assert cache_size(decision) == 1
    batched = jax.vmap(decision, in_axes=(0, None))(keys, first)[0]
    singles = [np.asarray(decision(key, first)[0]) for key in keys]
    np.testing.assert_allclose(batched, singles, rtol=0, atol=1e-6)
