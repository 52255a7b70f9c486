"""Worlds with continuous actions whose best plans are known in closed form."""

import functools

import jax.numpy as jnp
import numpy as np

from envs import base
from persim_jax.models.base import DynamicsModel

EFFORT = 0.5


def spec_of(low=(-1.0, -2.0), high=(1.0, 0.5), max_steps=10):
    return base.EnvSpec("plane", ("x", "y"), ("gain",), 0, low, high, max_steps, 1.0)


@functools.cache
def plane_env(low=(-1.0, -2.0), high=(1.0, 0.5)):
    """A point in the plane, obs' = obs + gain * action; the distance to 0 and the effort cost.

    reward = -|obs'|^2 - EFFORT |action|^2. It never ends. Bounds differ by coordinate and are not
    symmetric, so that nothing may take them for -1 and 1.
    """
    return base.Env(
        spec=spec_of(low, high),
        params=lambda covariates: {"gain": covariates[0]},
        reset=lambda key, params: jnp.asarray([0.3, -0.2]),
        step=lambda key, state, action, params: state + params["gain"] * action,
        observe=lambda state, params: state,
        state_from_obs=lambda obs, params: obs,
        reward=lambda obs, action, next_obs: (
            -jnp.sum(jnp.square(next_obs)) - EFFORT * jnp.sum(jnp.square(action))
        ),
        terminated=lambda obs: obs[0] > 1e9,
        planning_bonus=lambda obs: jnp.zeros(()),
    )


def best_plan(obs, horizon):
    """The best actions `[H, D]` of `plane_env` with gain 1 where no bound is met, and their return.

    Dynamic programming: with h steps to go the value is -p_h |obs|^2, p_0 = 0; with q = 1 + p_h
    the best action is -q / (q + EFFORT) obs and p_{h + 1} = q EFFORT / (q + EFFORT).
    """
    p = [0.0]
    for _ in range(horizon):
        q = 1 + p[-1]
        p.append(q * EFFORT / (q + EFFORT))
    value, actions, obs = -p[-1] * np.sum(np.square(obs)), [], np.asarray(obs, np.float64)
    for left in range(horizon - 1, -1, -1):
        q = 1 + p[left]
        actions.append(-q / (q + EFFORT) * obs)
        obs = obs + actions[-1]
    return np.array(actions), value


@functools.cache
def pulls_model(num_members):
    """The plane as an ensemble; a bound model is the members' gains `[M]`."""
    return DynamicsModel(
        num_members=num_members,
        init=None,
        fit_normalizer=None,
        loss=None,
        bind=lambda params, agent, history: params[agent],
        encode_actions=lambda bound, actions: actions,
        start=lambda bound, obs: jnp.broadcast_to(obs, (num_members, *obs.shape)),
        step=lambda key, bound, state, action: state + bound[:, None] * action[None],
        observe=lambda state: state,
    )
