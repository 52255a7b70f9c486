"""Small worlds with answers that are known by hand, shared by the tests of the core."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from envs import base
from persim_jax.models.base import DynamicsModel, ModelParams
from persim_jax.models.factor import FactorNormalizer, factor_model
from persim_jax.normalizer import Normalizer

END = 2.0


def push_of(action, num_actions):
    """-1/2 and 1/2 for two actions, -1, 0 and 1 for three."""
    return action.astype(jnp.float32) - (num_actions - 1) / 2


def line_reward(obs, action, next_obs):
    return next_obs[0] - 0.5 * obs[0] + 0.1 * action.astype(obs.dtype)


@functools.cache
def line_env(num_actions=3, max_steps=8):
    """A point on a line, obs [position, clock]; covariates (gain, noise); ends at position >= 2.

    position' = position + gain * push(action) + noise * N(0, 1), clock' = clock + 1.
    """

    def step(key, state, action, params):
        drift = params["gain"] * push_of(action, num_actions)
        noise = params["noise"] * jax.random.normal(key)
        return state + jnp.stack([drift + noise, jnp.ones_like(drift)])

    return base.Env(
        spec=base.EnvSpec(
            "line", ("position", "clock"), ("gain", "noise"), num_actions, (), (), max_steps, 1.0
        ),
        params=lambda covariates: {"gain": covariates[0], "noise": covariates[1]},
        reset=lambda key, params: jnp.stack(
            [jax.random.uniform(key, minval=-0.5, maxval=0.5), jnp.zeros(())]
        ),
        step=step,
        observe=lambda state, params: state,
        state_from_obs=lambda obs, params: obs,
        reward=line_reward,
        terminated=lambda obs: obs[0] >= END,
        planning_bonus=lambda obs: obs[:, 0].max(),
    )


def line_params(gains, noise=0.0):
    """Physics of agents with these gains, leaves [N]."""
    gains = jnp.asarray(gains, jnp.float32)
    return {"gain": gains, "noise": jnp.full_like(gains, noise)}


@functools.cache
def gains_model(num_members, num_actions=3, noise=0.0):
    """The line as an ensemble; params are gains [N, M], so each member has its own."""

    def step(key, bound, state, encoded):
        drift = bound * encoded + noise * jax.random.normal(key, bound.shape)
        return state + jnp.stack([drift, jnp.ones_like(drift)], axis=-1)

    return DynamicsModel(
        num_members=num_members,
        init=None,
        fit_normalizer=None,
        loss=None,
        bind=lambda params, agent, history: params[agent],
        encode_actions=lambda bound, actions: push_of(actions, num_actions)[..., None],
        start=lambda bound, obs: jnp.broadcast_to(obs, (num_members, *obs.shape)),
        step=step,
        observe=lambda state: state,
    )


def tilted_act(key, params, obs):
    """A random one of three actions, to the right the more often the larger `params * position`."""
    return jax.random.categorical(key, params * obs[0] * jnp.asarray([-1.0, 0.0, 1.0]))


def greedy_act(key, params, obs):
    """Right where the position is below `params`, left elsewhere."""
    del key
    return jnp.where(obs[0] < params, 2, 0).astype(jnp.int32)


def factor_params(config, seed=0):
    """Random weights of the right sizes, and a normalizer that scales and shifts coordinates."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(factor_model(config).init, jax.random.key(0))
    draw = lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), jnp.float32)  # noqa: E731

    def scaling(size):
        return Normalizer(
            mean=jnp.asarray(rng.normal(size=size), jnp.float32),
            std=jnp.asarray(rng.uniform(0.3, 3.0, size), jnp.float32),
        )

    obs, delta = scaling(config.input_size), scaling(config.target_size)
    weights = jax.tree.map(draw, shapes)
    scaled = config.normalize_actions and not config.tabular_actions
    actions = scaling(config.action_input_size) if scaled else None
    carry = jnp.ones(config.target_size)
    return ModelParams(weights, FactorNormalizer(obs, delta, carry, actions))


def cache_size(function):
    """How often a jitted function has been compiled."""
    return function._cache_size()
