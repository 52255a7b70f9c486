"""The learner on the probe environments, whose best actions and values are known."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.collect import memoryless
from persim_jax.learners.behavior_cloning import clone_behavior
from persim_jax.learners.natural_gradient import NaturalGradientConfig, make_natural_gradient
from persim_jax.learners.policies import PolicyConfig, make_policy
from persim_jax.models.true_env import true_dynamics
from persim_jax.networks import MLP
from persim_jax.rollout import unroll
from persim_jax.types import Transitions
from tests.learners import probes
from tests.learners.probes import BEST, BOTH, CHOSEN
from tests.learners.test_policies import CONTINUOUS, DISCRETE
from tests.learners.test_probe_environments import DISCOUNT

pytestmark = pytest.mark.optimizes

CONFIG = NaturalGradientConfig(
    policy=PolicyConfig(hidden=(8,), min_log_std=-2.5),
    discount=DISCOUNT,
    max_kl=0.05,
    cg_steps=5,
    damping=1e-2,
    value_hidden=(16,),
    value_rate=0.01,
    value_steps=20,
    value_batch=64,
)
PATHS = 48


@functools.partial(jax.jit, static_argnames=("continuous", "num_updates"))
def learn(keys, numbers, continuous, num_updates):
    """The state after some updates on each of the probes."""
    env = probes.make(continuous)
    learner = make_natural_gradient(env.spec, CONFIG)
    policy = learner.policy

    def episode(key, params, probe):
        key_reset, key_path = jax.random.split(key)
        obs = env.observe(env.reset(key_reset, probe), probe)
        act = lambda key, params, obs: policy.sample(  # noqa: E731
            key, policy.distribution(params, obs)
        )
        model = true_dynamics(env)
        return unroll(key_path, model, probe, env, memoryless(act, params), obs, env.spec.max_steps)

    def one(key, probe):
        def update(state, number):
            key_paths, key_update = jax.random.split(jax.random.fold_in(key, number))
            keys = jax.random.split(key_paths, PATHS)
            episodes = jax.vmap(episode, (0, None, None))(keys, state.params, probe)
            return learner.update(key_update, state, episodes)

        return jax.lax.scan(update, learner.init(key), jnp.arange(num_updates))

    return jax.vmap(one)(keys, numbers)


@functools.cache
def learned(continuous):
    keys = jax.random.split(jax.random.key(0), 6)
    return learn(keys, jnp.arange(6), continuous, 60)


def of_probe(tree, probe):
    return jax.tree.map(lambda leaf: leaf[probe], tree)


def best_action(continuous, probe, value):
    policy = make_policy(probes.make(continuous).spec, CONFIG.policy)
    params = of_probe(learned(continuous)[0].params, probe)
    obs = jnp.asarray([float(value), 0.0, float(probe)])
    return policy.distribution(params, obs), policy


@pytest.mark.parametrize(("probe", "value", "best"), [(CHOSEN, 0, 1), (BOTH, 1, 1), (BOTH, -1, 0)])
def test_a_categorical_policy_finds_the_best_action(probe, value, best):
    logits, policy = best_action(False, probe, value)
    assert policy.mode(logits) == best
    assert jax.nn.softmax(logits)[best] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("probe", "value", "best"), [(CHOSEN, 0, BEST), (BOTH, 1, 0.5), (BOTH, -1, -0.5)]
)
def test_a_gaussian_policy_finds_the_best_action(probe, value, best):
    normal, policy = best_action(True, probe, value)
    np.testing.assert_allclose(policy.mode(normal), [best], atol=0.15)
    assert normal.log_std[0] < CONFIG.policy.init_log_std - 0.3


@pytest.mark.parametrize(
    ("probe", "value", "phase", "expected"),
    [
        (probes.CONSTANT, 0.0, 0.0, 1.0),
        (probes.OBSERVED, 1.0, 0.0, 1.0),
        (probes.OBSERVED, -1.0, 0.0, -1.0),
        (probes.DELAYED, 0.0, 1.0, 1.0),
        (probes.DELAYED, 0.0, 0.0, DISCOUNT),
        # 1 + 1/2 + 1/4 + ...: the time limit after two steps is no termination.
        (probes.ENDLESS, 0.0, 0.0, 2.0),
    ],
)
def test_the_value_network_knows_the_values(probe, value, phase, expected):
    params = of_probe(learned(False)[0].value_params, probe)
    found = MLP((*CONFIG.value_hidden, 1)).apply(params, jnp.asarray([value, phase, float(probe)]))
    np.testing.assert_allclose(found, [expected], atol=0.1)


def test_returns_rise_from_those_of_chance_to_the_best():
    returns = np.asarray(learned(False)[1]["return"])
    assert abs(returns[CHOSEN, 0]) < 0.4
    assert returns[CHOSEN, -5:].mean() > 0.9
    np.testing.assert_allclose(returns[probes.CONSTANT], 1.0)


def cloned(spec, actions, obs, size, num_steps=300):
    policy = make_policy(spec, PolicyConfig(hidden=(16,)))
    rows = obs.shape[0]
    data = Transitions(
        agent=jnp.zeros(rows, jnp.int32), obs=obs, actions=actions, rewards=jnp.zeros(rows),
        next_obs=obs, terminated=jnp.zeros(rows, bool),
    )  # fmt: skip
    params = policy.init(jax.random.key(1))
    new = clone_behavior(
        jax.random.key(2), policy, params, data, jnp.asarray(size), num_steps, 32, 0.02
    )
    return policy, params, new


def test_cloning_recovers_a_deterministic_policy_and_leaves_padding_alone():
    obs = jax.random.normal(jax.random.key(0), (60, 2))
    # Three regions of the plane; padding says otherwise and must not be heard.
    truth = jnp.where(obs[:, 0] > 0.3, 2, jnp.where(obs[:, 1] > 0, 1, 0)).astype(jnp.int32)
    actions = jnp.where(jnp.arange(60) < 40, truth, 0)
    policy, _, params = cloned(DISCRETE, actions, obs, 40)
    modes = jax.vmap(lambda o: policy.mode(policy.distribution(params, o)))(obs[:40])
    assert np.mean(np.asarray(modes == truth[:40])) > 0.95


def test_cloning_recovers_a_mean_and_keeps_the_deviation():
    obs = jax.random.normal(jax.random.key(0), (40, 2))
    truth = jnp.stack([1.0 + 0.5 * obs[:, 0], 0.5 - 0.2 * obs[:, 1]], axis=1)
    policy, before, params = cloned(CONTINUOUS, truth, obs, 40)
    means = jax.vmap(lambda o: policy.distribution(params, o).mean)(obs)
    np.testing.assert_allclose(means, truth, atol=0.15)
    np.testing.assert_array_equal(params["log_std"], before["log_std"])
    _, before, same = cloned(CONTINUOUS, truth, obs, 40, num_steps=0)
    jax.tree.map(np.testing.assert_array_equal, before, same)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cg_steps": 0}, "cg_steps is 0: it must be at least 1"),
        ({"discount": 1.5}, r"discount is 1\.5: it must lie in \(0, 1\]"),
        ({"gae_lambda": 5.0}, r"gae_lambda is 5\.0: it must lie in \[0, 1\]"),
        ({"backtracks": -1}, "backtracks is -1: it must be at least 0"),
        ({"clone_steps": -1}, "clone_steps is -1: it must be at least 0"),
        ({"damping": -0.1}, r"damping is -0\.1: it must not be negative"),
        ({"max_kl": 0.0}, r"max_kl is 0\.0: it must be positive"),
    ],
)
def test_settings_that_make_no_step_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)
