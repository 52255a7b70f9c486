"""Offline learners reach the known values of the probe environments, from random data alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from persim_jax.learners import discrete
from persim_jax.learners.base import random_action
from persim_jax.learners.bcq_continuous import ContinuousBCQConfig, make_continuous_bcq
from persim_jax.learners.bcq_discrete import DiscreteBCQConfig, make_discrete_bcq
from persim_jax.learners.continuous import critic_values, to_unit
from persim_jax.learners.cql_continuous import ContinuousCQLConfig, make_continuous_cql
from persim_jax.learners.cql_discrete import DiscreteCQLConfig, make_discrete_cql
from persim_jax.learners.offline import Lanes, OfflineConfig, train_offline
from persim_jax.types import Transitions
from tests.learners import probes
from tests.learners.probes import BEST, BOTH, CHOSEN
from tests.learners.test_probe_environments import DISCOUNT, KNOWN, KNOWN_CONTINUOUS

EPISODES = 300
TRAIN = OfflineConfig(num_steps=4000, batch_size=32, chunk=2000, width=0)
GREEDY = jnp.zeros(())


def random_data(continuous, act=None):
    """Random steps of the episodes of the six probes, one probe's after the other's."""
    env = probes.make(continuous)

    def one(key, probe):
        reset_key, *step_keys = jax.random.split(key, 3)
        state, rows = env.reset(reset_key, probe), []
        for step_key in step_keys:
            obs = env.observe(state, probe)
            action = act(step_key, obs) if act else random_action(step_key, env.spec)
            state = env.step(step_key, state, action, probe)
            next_obs = env.observe(state, probe)
            row = Transitions(
                agent=jnp.zeros((), jnp.int32), obs=obs, actions=action,
                rewards=env.reward(obs, action, next_obs), next_obs=next_obs,
                terminated=env.terminated(next_obs),
            )  # fmt: skip
            rows.append(row)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)

    keys = jax.random.split(jax.random.key(0), (6, EPISODES))
    rows = jax.vmap(jax.vmap(one, (0, None)))(keys, jnp.arange(6))
    # Steps after the end of an episode are no data; those of the endless probe never end.
    ended = (rows.obs[..., 1] >= 1) & (rows.obs[..., 2] != probes.DELAYED)
    keep = [np.flatnonzero(~np.asarray(ended[i]).ravel()) for i in range(6)]
    flat = jax.tree.map(lambda leaf: leaf.reshape(6, EPISODES * 2, *leaf.shape[3:]), rows)
    parts = [jax.tree.map(lambda leaf, i=i: leaf[i][keep[i]], flat) for i in range(6)]
    sizes = np.array([len(rows) for rows in keep])
    data = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    return data, Lanes(jnp.asarray(np.cumsum(sizes) - sizes), jnp.asarray(sizes))


def train(learner, continuous, act=None):
    # A module's fixture is made before the test lifts strict promotion for optax.
    with jax.numpy_dtype_promotion("standard"):
        data, lanes = random_data(continuous, act)
        keys = jax.random.split(jax.random.key(1), 6)
        return train_offline(learner, TRAIN, keys, data, lanes).learner


def of_probe(states, probe):
    return jax.tree.map(lambda leaf: leaf[probe], states)


DISCRETE = {
    "hidden": (32,), "learning_rate": 3e-3, "discount": DISCOUNT, "target_rate": 0.05,
}  # fmt: skip
WEIGHT = 0.5
CONFIGS = {
    "bcq": (make_discrete_bcq, DiscreteBCQConfig(**DISCRETE)),
    "cql 0": (make_discrete_cql, DiscreteCQLConfig(**DISCRETE, weight=0.0)),
    "cql": (make_discrete_cql, DiscreteCQLConfig(**DISCRETE, weight=WEIGHT)),
}


@functools.cache
def states_of(name):
    make, config = CONFIGS[name]
    return train(make(probes.make(False).spec, config), False)


def values_of(name, obs, probe):
    net = discrete.network(probes.make(False).spec, CONFIGS[name][1])
    return np.asarray(net.apply(of_probe(states_of(name), probe).params["q"], obs))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bcq", "cql 0"])
@pytest.mark.parametrize(("probe", "value", "phase", "expected"), KNOWN)
def test_discrete_learners_know_the_values(name, probe, value, phase, expected):
    obs = jnp.array([value, phase, float(probe)])
    np.testing.assert_allclose(values_of(name, obs, probe), expected, atol=0.06)


@pytest.mark.slow
def test_the_conservative_term_shifts_values_by_what_theory_says():
    # Both actions equally often, rewards -1 and 1. Where the loss is smallest, the derivative by
    # the value q of action 1 (that of action 0 is -q) is 0: (q - 1) / 2 + w (sigmoid(2 q) - 1/2).
    slope = lambda q: (q - 1) / 2 + WEIGHT * (1 / (1 + np.exp(-2 * q)) - 0.5)  # noqa: E731
    expected = brentq(slope, 0.0, 1.0)
    assert 0.2 < expected < 0.8
    found = values_of("cql", jnp.array([0.0, 0.0, float(CHOSEN)]), CHOSEN)
    np.testing.assert_allclose(found, [-expected, expected], atol=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("probe", "value", "best"), [(CHOSEN, 0, 1), (BOTH, 1, 1), (BOTH, -1, 0)])
def test_discrete_learners_act_as_is_best(name, probe, value, best):
    make, config = CONFIGS[name]
    learner = make(probes.make(False).spec, config)
    obs = jnp.array([float(value), 0.0, float(probe)])
    state = of_probe(states_of(name), probe)
    assert learner.act(jax.random.key(0), state, obs, GREEDY) == best


@pytest.mark.slow
def test_bcq_stays_with_the_action_that_the_data_have():
    # The data push left nine times in ten, which is worse; a threshold above 1/9 forbids the rest.
    config = DiscreteBCQConfig(**DISCRETE, threshold=0.5)
    learner = make_discrete_bcq(probes.make(False).spec, config)
    act = lambda key, obs: (jax.random.uniform(key) < 0.1).astype(jnp.int32)  # noqa: E731
    state = of_probe(train(learner, False, act), CHOSEN)
    obs = jnp.array([0.0, 0.0, float(CHOSEN)])
    net = discrete.network(probes.make(False).spec, config)
    values = net.apply(state.params["q"], obs)
    assert values[1] > values[0] + 1.0
    assert learner.act(jax.random.key(0), state, obs, GREEDY) == 0


CONTINUOUS = {"hidden": (64,), "discount": DISCOUNT, "target_rate": 0.05}
SAMPLED = {
    "bcq": (
        make_continuous_bcq,
        ContinuousBCQConfig(
            **CONTINUOUS, vae_hidden=(32,), learning_rate=3e-3, perturbation=0.5, num_actions=20
        ),
    ),
    "cql 0": (
        make_continuous_cql,
        ContinuousCQLConfig(
            **CONTINUOUS, weight=0.0, num_samples=1, actor_rate=3e-3, critic_rate=3e-3,
            temperature=0.05,
        ),
    ),
}  # fmt: skip


@functools.cache
def sampled_states(name):
    make, config = SAMPLED[name]
    return train(make(probes.make(True).spec, config), True)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize(("probe", "value", "phase", "expected", "best"), KNOWN_CONTINUOUS)
def test_continuous_learners_know_the_values_and_the_best_action(
    name, probe, value, phase, expected, best
):
    spec, (make, config) = probes.make(True).spec, SAMPLED[name]
    state = of_probe(sampled_states(name), probe)
    obs = jnp.array([value, phase, float(probe)])
    action = make(spec, config).act(jax.random.key(0), state, obs, GREEDY)
    critics = state.critics if name == "bcq" else state.sac.critics
    values = critic_values(config.hidden, critics, obs, to_unit(spec, action))
    np.testing.assert_allclose(values, [expected] * 2, atol=0.12)
    if best is not None:
        assert probes.LOW < BEST < probes.HIGH
        np.testing.assert_allclose(action, [best], atol=0.2)
