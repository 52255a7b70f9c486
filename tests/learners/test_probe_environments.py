"""Learners reach the values of environments small enough to know them on paper."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.learners.base import Schedule
from persim_jax.learners.dqn import DQNConfig, make_dqn, q_values
from persim_jax.learners.online import OnlineConfig, train_online
from persim_jax.learners.td3 import TD3Config, actor_action, critic_values, make_td3
from tests.learners import probes
from tests.learners.probes import BEST, BOTH, CHOSEN, CONSTANT, DELAYED, ENDLESS, OBSERVED

DISCOUNT = 0.5
ONLINE = OnlineConfig(
    num_envs=4,
    evaluate_every=4000,
    budget=4000,  # one evaluation, so that what is kept is the last learner
    capacity=1000,
    warm_up=100,
    batch_size=32,
    hold=Schedule(1.0, 1.0, 0),
    episodes=2,
)


def train(continuous, learner, config=ONLINE):
    """Trains all six probes; returns what is kept, leaves `[6, ...]`."""
    keys = jax.random.split(jax.random.key(0), 6)
    # A module's fixture is made before the test lifts strict promotion for optax.
    with jax.numpy_dtype_promotion("standard"):
        env = probes.make(continuous)
        return train_online(env, learner, config, keys, jnp.arange(6), jnp.full(6, jnp.inf)).learner


def of_probe(states, probe):
    return jax.tree.map(lambda leaf: leaf[probe], states)


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
def dqn(request):
    """The config and the states of all six probes."""
    config = CONFIGS[request.param]
    return config, train(False, make_dqn(probes.make(False).spec, config))


@pytest.mark.parametrize(("probe", "value", "phase", "expected"), KNOWN)
def test_dqn_learns_the_known_values(dqn, probe, value, phase, expected):
    config, states = dqn
    obs = jnp.array([value, phase, float(probe)])
    values = q_values(probes.make(False).spec, config, of_probe(states, probe).params, obs)
    np.testing.assert_allclose(values, expected, atol=0.05)


# Probe, observed value, phase, the value of the policy's action, that action if it matters.
KNOWN_CONTINUOUS = [
    pytest.param(CONSTANT, 0.0, 0.0, 1.0, None, id="one-step constant reward"),
    pytest.param(OBSERVED, 1.0, 0.0, 1.0, None, id="reward seen in the observation, +1"),
    pytest.param(OBSERVED, -1.0, 0.0, -1.0, None, id="reward seen in the observation, -1"),
    pytest.param(DELAYED, 0.0, 1.0, 1.0, None, id="reward at the second step, then"),
    pytest.param(DELAYED, 0.0, 0.0, DISCOUNT, None, id="reward at the second step, before"),
    pytest.param(CHOSEN, 0.0, 0.0, 1.0, BEST, id="reward chosen by the action"),
    pytest.param(BOTH, 1.0, 0.0, 1.0, 0.5, id="action and observation, +1"),
    pytest.param(BOTH, -1.0, 0.0, 1.0, -0.5, id="action and observation, -1"),
    pytest.param(ENDLESS, 0.0, 0.0, 2.0, None, id="cut off by the time limit only"),
]
TD3 = TD3Config(hidden=(64,), learning_rate=3e-3, discount=DISCOUNT, target_rate=0.05)


@pytest.fixture(scope="module")
def td3():
    """The states of all six probes."""
    config = dataclasses.replace(ONLINE, batch_size=64)  # a step of the critics on each half
    return train(True, make_td3(probes.make(True).spec, TD3), config)


@pytest.mark.slow
@pytest.mark.parametrize(("probe", "value", "phase", "expected", "best"), KNOWN_CONTINUOUS)
def test_td3_learns_the_known_values_and_the_best_action(td3, probe, value, phase, expected, best):
    spec, state = probes.make(True).spec, of_probe(td3, probe)
    obs = jnp.array([value, phase, float(probe)])
    action = actor_action(spec, TD3, state.params, obs)
    values = critic_values(spec, TD3, state.critics, obs, action)
    np.testing.assert_allclose(values, [expected] * 2, atol=0.08)
    if best is not None:
        np.testing.assert_allclose(action, [best], atol=0.1)
