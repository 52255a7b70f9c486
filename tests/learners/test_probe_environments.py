"""Probe environments whose value functions are known: each fails for one kind of mistake.

All six are one environment, with the probe's number as its physics, so that the online loop trains
them as one program, as it does with agents. Reward and termination see observations only: the
number is part of the observation `[value, phase, probe]`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.base import Env, EnvSpec
from persim_jax.learners.base import Schedule
from persim_jax.learners.dqn import DQNConfig, make_dqn, q_values
from persim_jax.learners.online import OnlineConfig, train_online

CONSTANT, OBSERVED, DELAYED, CHOSEN, BOTH, ENDLESS = range(6)
DISCOUNT = 0.5
SPEC = EnvSpec(
    name="probe",
    obs_names=("value", "phase", "probe"),
    covariate_names=("probe",),
    num_actions=2,
    action_low=(),
    action_high=(),
    max_steps=2,
    dt=1.0,
)


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


def reward(obs, action, next_obs):
    del next_obs
    value, phase, probe = obs
    push = jnp.where(action == 1, 1.0, -1.0)
    rewards = jnp.stack([jnp.ones(()), value, phase, push, value * push, jnp.ones(())])
    return rewards[probe.astype(jnp.int32)]


def terminated(obs):
    return obs[1] >= jnp.where(obs[2] == DELAYED, 2.0, 1.0)


ENV = Env(
    spec=SPEC,
    params=lambda covariates: covariates[0],
    reset=reset,
    step=step,
    observe=observe,
    state_from_obs=lambda obs, params: State(obs[0], obs[1]),
    reward=reward,
    terminated=terminated,
    planning_bonus=lambda obs: jnp.zeros(()),
)

# Probe, observed value, phase, values of both actions.
KNOWN = [
    pytest.param(CONSTANT, 0.0, 0.0, (1.0, 1.0), id="one-step constant reward"),
    pytest.param(OBSERVED, 1.0, 0.0, (1.0, 1.0), id="reward seen in the observation, +1"),
    pytest.param(OBSERVED, -1.0, 0.0, (-1.0, -1.0), id="reward seen in the observation, -1"),
    pytest.param(DELAYED, 0.0, 1.0, (1.0, 1.0), id="reward at the second step, then"),
    pytest.param(DELAYED, 0.0, 0.0, (DISCOUNT, DISCOUNT), id="reward at the second step, before"),
    pytest.param(CHOSEN, 0.0, 0.0, (-1.0, 1.0), id="reward chosen by the action"),
    pytest.param(BOTH, 1.0, 0.0, (-1.0, 1.0), id="action and observation, +1"),
    pytest.param(BOTH, -1.0, 0.0, (1.0, -1.0), id="action and observation, -1"),
    # 1 + 1/2 + 1/4 + ... = 2. Were the time limit a termination, it would be below 1.5.
    pytest.param(ENDLESS, 0.0, 0.0, (2.0, 2.0), id="cut off by the time limit only"),
]
CONFIGS = {
    double: DQNConfig(
        hidden=(32,), learning_rate=3e-3, discount=DISCOUNT, target_rate=0.05, double=double
    )
    for double in (False, True)
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(False, id="dqn"),
        pytest.param(True, id="double dqn", marks=pytest.mark.slow),
    ],
)
def trained(request):
    """The config and the parameters of all six probes."""
    config = CONFIGS[request.param]
    online = OnlineConfig(
        num_envs=4,
        evaluate_every=4000,
        budget=4000,  # one evaluation, so that what is kept is the last learner
        capacity=1000,
        warm_up=100,
        batch_size=32,
        hold=Schedule(1.0, 1.0, 0),
        episodes=2,
    )
    keys = jax.random.split(jax.random.key(0), 6)
    # A module's fixture is made before the test lifts strict promotion for optax.
    with jax.numpy_dtype_promotion("standard"):
        learner = make_dqn(SPEC, config)
        kept = train_online(ENV, learner, online, keys, jnp.arange(6), jnp.full(6, jnp.inf))
    return config, kept.learner.params


@pytest.mark.parametrize(("probe", "value", "phase", "expected"), KNOWN)
def test_learns_the_known_values(trained, probe, value, phase, expected):
    config, params = trained
    own = jax.tree.map(lambda leaf: leaf[probe], params)
    values = q_values(SPEC, config, own, jnp.array([value, phase, float(probe)]))
    np.testing.assert_allclose(values, expected, atol=0.05)
