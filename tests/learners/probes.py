"""Probe environments whose value functions are known: each fails for one kind of mistake.

All six are one environment, with the probe's number as its physics, so that the online loop trains
them as one program, as it does with agents. Reward and termination see observations only: the
number is part of the observation `[value, phase, probe]`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs.base import Env, EnvSpec

CONSTANT, OBSERVED, DELAYED, CHOSEN, BOTH, ENDLESS = range(6)
LOW, HIGH = -1.0, 2.0
BEST = 1.2
"""The continuous action that is best where the choice does not depend on the observation."""


class State(NamedTuple):
    sign: jax.Array
    phase: jax.Array


def reset(key, params):
    return State(sign=jax.random.rademacher(key, (), jnp.float32), phase=jnp.zeros(()))


def step(key, state, action, params):
    del key, action
    return state._replace(phase=state.phase + jnp.where(params == ENDLESS, 0.0, 1.0))


def observe(state, params):
    shows_sign = (params == OBSERVED) | (params == BOTH)
    value = jnp.where(shows_sign, state.sign, 0.0)
    return jnp.stack([value, state.phase, params.astype(jnp.float32)])


def reward(chosen, both, obs, action, next_obs):
    del next_obs
    value, phase, probe = obs
    one = jnp.ones(())
    rewards = jnp.stack([one, value, phase, chosen(action), both(value, action), one])
    return rewards[probe.astype(jnp.int32)]


def terminated(obs):
    return obs[1] >= jnp.where(obs[2] == DELAYED, 2.0, 1.0)


def push(action):
    return jnp.where(action == 1, 1.0, -1.0)


def nearness(action, best):
    # With a kink: a parabola is so flat around its top that the best action would stay vague.
    return 1.0 - jnp.abs(action[0] - best)


@functools.cache
def make(continuous):
    """Two actions that push by -1 and 1, or one number in [-1, 2] that is to be near another."""
    if continuous:
        actions = {"num_actions": 0, "action_low": (LOW,), "action_high": (HIGH,)}
        chosen = functools.partial(nearness, best=BEST)
        both = lambda value, action: nearness(action, 0.5 * value)  # noqa: E731
    else:
        actions = {"num_actions": 2, "action_low": (), "action_high": ()}
        chosen = push
        both = lambda value, action: value * push(action)  # noqa: E731
    return Env(
        spec=EnvSpec(
            name="probe",
            obs_names=("value", "phase", "probe"),
            covariate_names=("probe",),
            max_steps=2,
            dt=1.0,
            **actions,
        ),
        params=lambda covariates: covariates[0],
        reset=reset,
        step=step,
        observe=observe,
        state_from_obs=lambda obs, params: State(obs[0], obs[1]),
        reward=functools.partial(reward, chosen, both),
        terminated=terminated,
        planning_bonus=lambda obs: jnp.zeros(()),
    )
